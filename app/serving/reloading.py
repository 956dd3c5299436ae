"""One reload: loads the pending versions of a scan one by one, as their preflights end and as requests ask for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from tableside.errors import FailureKind
from tableside.preflight.results import PreflightResult, PreflightResults, VersionFiles
from tableside.process.offload import Offload
from tableside.serving.load_queue import Key, LoadQueue
from tableside.serving.loader import CHANGED, Loader
from tableside.serving.scan import PendingVersion, refused
from tableside.serving.servable import Servable

Adopt = Callable[[PendingVersion, Servable], None]
Job = tuple[PendingVersion, PreflightResult]
MOST_ENVIRONMENTS = 8
"""How many environments load at the same time. Such a load waits for a model process and holds no lock meanwhile."""
THREADS = 3 + MOST_ENVIRONMENTS
"""The native threads that a reload may use: for the versions in their order, for those that requests ask for, for the
files of preflight results, and for environments. Loads in this process hold the interpreter's lock, so that more
threads would not be faster."""
_PASSED = PreflightResult(FailureKind.NONE)
_CHANGED = PreflightResult(FailureKind.OTHER, CHANGED)


class Reload:
    """The pending versions of one scan, and who waits for them."""

    def __init__(self, pending: tuple[PendingVersion, ...], loader: Loader, offload: Offload, adopt: Adopt) -> None:
        """offload: runs loads in native threads. adopt: is given each version with its new servable, one at a time."""
        self._pending = {each.key: each for each in pending}
        self._queue: LoadQueue[Job] = LoadQueue(each.key for each in pending)
        self._loader = loader
        self._offload = offload
        self._adopt = adopt
        self._problem: Exception | None = None
        self.ask = self._queue.ask
        """Load a version first, because a request waits for it (LoadQueue.ask)."""

    def asked(self) -> list[VersionFiles]:
        """Return the versions that requests wait for, in the order in which they were asked for."""
        return [self._pending[key].files for key in self._queue.asked]

    def run(self, rounds: Iterator[PreflightResults] | None) -> None:
        """Load all versions and return when each is adopted.

        rounds: the results of their preflights as they come; None loads without preflights. Raises what `rounds` raises
        after loading what had passed; the other versions are then UNAVAILABLE with that reason.
        """
        if rounds is None:
            self._queue.offer((key, (pending, _PASSED)) for key, pending in self._pending.items())
            self._queue.close()
        else:
            self._offload.spawn(partial(self._feed, rounds))
        own, *others = self._groups()
        for group in others:
            self._offload.spawn(partial(self._load_all, group))
        if len(own) > 1:
            self._offload.spawn(partial(self._load_all, own, only_asked=True))
        self._load_all(own)
        for key in self._queue.finish():
            reason = f"no preflight could run: {type(self._problem).__name__}: {self._problem}; reload again"
            self._adopt(self._pending[key], refused(self._pending[key], reason))
            self._queue.done(key)
        if self._problem is not None:
            raise self._problem

    def _groups(self) -> list[set[Key]]:
        """Divide the versions: those of this process first, then those of each environment.

        An environment whose processes do not run holds up its own versions only, each for `repository.load_timeout_s`.
        """
        names = sorted({each.environment for each in self._pending.values()} - {""})
        place = {name: 1 + number % MOST_ENVIRONMENTS for number, name in enumerate(names)}
        groups: list[set[Key]] = [set() for _ in range(1 + min(len(names), MOST_ENVIRONMENTS))]
        for key, pending in self._pending.items():
            groups[place.get(pending.environment, 0)].add(key)
        return groups

    def _feed(self, rounds: Iterator[PreflightResults]) -> None:
        missing = {pending.files: pending for pending in self._pending.values()}
        try:
            for results in rounds:
                known = results.known
                found = [each for each in missing.values() if each.files in known or results.complete]
                self._queue.offer((each.key, (each, known.get(each.files, _CHANGED))) for each in found)
                for each in found:
                    del missing[each.files]
        except Exception as problem:  # noqa: BLE001 - `run` raises it in the caller's thread
            self._problem = problem
        finally:
            self._queue.close()

    def _load_all(self, group: set[Key], only_asked: bool = False) -> None:
        while (taken := self._queue.take(group, only_asked)) is not None:
            key, (pending, result) = taken
            try:
                self._adopt(pending, self._offload.call(partial(self._loader.load, pending, result)))
            except Exception as problem:  # noqa: BLE001 - the other versions are loaded all the same
                self._problem = problem
            finally:
                self._queue.done(key)
