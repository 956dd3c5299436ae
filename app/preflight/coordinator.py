"""The coordinator: finds the versions that need a preflight, and has one process of the host run it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from tableside.preflight import runner
from tableside.preflight.results import PreflightResult, PreflightResults, ResultStore, VersionFiles
from tableside.process.offload import Offload
from tableside.settings import Environment, Repository
from tableside.telemetry import logs

REPORT_S = 0.1
"""Results are reported to the worker at most this often while others are still missing."""
LOOK_S = 0.5
"""How often a worker looks for results that another process has kept."""
_LOCK_POLL_S = 0.05
log = logs.get_logger("preflight")


class PreflightCoordinator:
    """Runs the preflights of new versions. One process of the host runs them; the others wait and read its results."""

    def __init__(
        self, folder: Path, offload: Offload, store: Path | None = None,
        environments: Callable[[], Mapping[str, Environment]] = dict, checked: Path | None = None,
        workers: int = 0,
    ) -> None:  # fmt: skip
        """Make a coordinator; it starts nothing.

        folder: the folder of the results. offload: reads and writes files in native threads. store: the folder of the
        shared store, which preflights fill; None for none. environments: returns those that models may name. checked:
        the folder of checked artifacts, which they fill too. workers: how many load what has passed; 0 does not look
        whether it fits into memory.
        """
        self._folder = folder
        self._offload = offload
        self._store = store
        self._environments = environments
        self._checked = checked
        self._workers = workers

    def rounds(
        self, root: Path, policy: Repository, find: Callable[[], Sequence[VersionFiles]],
        asked: Callable[[], Sequence[VersionFiles]] = tuple,
    ) -> Iterator[PreflightResults]:  # fmt: skip
        """Yield the results of the versions that `find` returns: first the kept ones, then all so far, at last all.

        asked: returns the versions that requests wait for, whose preflights run first. Only the last PreflightResults
        is `complete`. Raises OSError if `root` cannot be read.
        """
        result_store = ResultStore(self._folder, policy)
        wanted = self._offload.call(find)
        known = self._offload.call(lambda: result_store.read(wanted))
        if all(version in known for version in wanted):
            yield PreflightResults(known)
            return
        yield PreflightResults(dict(known), complete=False)
        next_look_s = time.monotonic() + LOOK_S
        while (fd := result_store.lock()) is None:
            time.sleep(_LOCK_POLL_S)
            if time.monotonic() > next_look_s:
                self._offload.call(lambda: result_store.ask(asked()))
                yield from self._new_results(result_store, wanted, known)
                next_look_s = time.monotonic() + LOOK_S
        try:
            yield from self._new_results(result_store, wanted, known)
            missing = [version for version in wanted if version not in known]
            yield from self._run(root, policy, result_store, missing, known, asked)
        finally:
            if fd >= 0:
                os.close(fd)
        yield PreflightResults(known)

    def _new_results(
        self, result_store: ResultStore, wanted: Sequence[VersionFiles], known: dict[VersionFiles, PreflightResult]
    ) -> Iterator[PreflightResults]:
        """Yield the results that another process has kept since the last look."""
        missing = [version for version in wanted if version not in known]
        found = self._offload.call(lambda: result_store.read(missing))
        if found:
            known.update(found)
            yield PreflightResults(dict(known), complete=False)

    def _run(
        self, root: Path, policy: Repository, result_store: ResultStore, missing: Sequence[VersionFiles],
        known: dict[VersionFiles, PreflightResult], asked: Callable[[], Sequence[VersionFiles]],
    ) -> Iterator[PreflightResults]:  # fmt: skip
        reported_at_s, unreported = time.monotonic(), 0

        def first() -> Sequence[VersionFiles]:
            """What requests of this worker wait for, then those of the host's other workers."""
            return [*asked(), *self._offload.call(lambda: result_store.asked(missing))]

        for found in runner.run(
            root, missing, policy, self._store, self._environments(), self._checked, first, self._workers, self._folder
        ):
            if found is not None:
                files, result = found
                known[files] = result
                unreported += 1
                self._offload.call(partial(result_store.write, files, result))
                _log_result(files, result)
            if unreported and time.monotonic() - reported_at_s > REPORT_S:
                yield PreflightResults(dict(known), complete=False)
                reported_at_s, unreported = time.monotonic(), 0


def _log_result(files: VersionFiles, result: PreflightResult) -> None:
    labels = {"model": files.name, "version": files.version}
    if result.failure_kind:
        log.warning(
            "preflight_failed",
            **labels,
            reason=result.failure_kind.value,
            detail=result.reason,
            stderr=result.stderr_tail,
        )
    else:
        log.info("preflight_passed", **labels, memory_mb=round((result.held.own + result.held.shared) / 1e6, 1))
