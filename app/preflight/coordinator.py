"""Which versions have to be tried before a worker may load them, and the waiting for it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from tableside.preflight import runner
from tableside.preflight.results import PreflightResult, PreflightResults, ResultStore, VersionFiles
from tableside.process.offload import Offload
from tableside.settings import Repository
from tableside.telemetry import logs

PAUSE_S = 1.0
"""How long finished preflight results wait for unfinished ones before they are told."""
_LOCK_POLL_S = 0.05
log = logs.get_logger("preflight")


class PreflightCoordinator:
    """Tries what is new on this host. One process at a time tries; the others wait and read what it found.

    folder: where preflight results are remembered. offload: runs what reads the disk, away from the event loop. store:
    where preflights lay out what workers share; None: nowhere.
    """

    def __init__(self, folder: Path, offload: Offload, store: Path | None = None) -> None:
        self._folder = folder
        self._offload = offload
        self._store = store

    def rounds(
        self, root: Path, policy: Repository, find: Callable[[], Sequence[VersionFiles]]
    ) -> Iterator[PreflightResults]:
        """What is known of the versions that `find` returns: at once what is remembered, then whatever
        comes, in the end all. Raises OSError when `root` cannot be read.
        """
        result_store = ResultStore(self._folder, policy)
        wanted = self._offload.call(find)
        known = self._offload.call(lambda: result_store.read(wanted))
        if all(each in known for each in wanted):
            yield PreflightResults(known)
            return
        yield PreflightResults(dict(known), complete=False)
        look_at_s = time.monotonic() + PAUSE_S
        while (fd := result_store.lock()) is None:
            time.sleep(_LOCK_POLL_S)
            if time.monotonic() > look_at_s:
                yield from self._news(result_store, wanted, known)
                look_at_s = time.monotonic() + PAUSE_S
        try:
            yield from self._news(result_store, wanted, known)
            left = [each for each in wanted if each not in known]
            yield from self._try(root, policy, result_store, left, known)
        finally:
            if fd >= 0:
                os.close(fd)
        yield PreflightResults(known)

    def _news(
        self, result_store: ResultStore, wanted: Sequence[VersionFiles], known: dict[VersionFiles, PreflightResult]
    ) -> Iterator[PreflightResults]:
        """Tell what another process has found meanwhile."""
        found = self._offload.call(lambda: result_store.read([each for each in wanted if each not in known]))
        if found:
            known.update(found)
            yield PreflightResults(dict(known), complete=False)

    def _try(
        self, root: Path, policy: Repository, result_store: ResultStore, left: Sequence[VersionFiles],
        known: dict[VersionFiles, PreflightResult],
    ) -> Iterator[PreflightResults]:  # fmt: skip
        reported_at_s, unreported = time.monotonic(), 0
        for found in runner.run(root, left, policy, self._store):
            if found is not None:
                files, result = found
                known[files] = result
                unreported += 1
                self._offload.call(partial(result_store.write, files, result))
                _log_result(files, result)
            elif unreported and time.monotonic() - reported_at_s > PAUSE_S:
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
        log.info("preflight_passed", **labels)
