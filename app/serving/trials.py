"""Which versions have to be tried before a worker may load them, and the waiting for it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from app import logs
from app.concurrency.offload import Offload
from app.serving import trial_runs
from app.serving.catalog import Catalog
from app.serving.loader import candidates
from app.serving.verdicts import Candidate, Memory, Verdict, Verdicts
from app.settings import Repository

PAUSE_S = 1.0
"""How long finished verdicts wait for unfinished ones before they are told."""
_TURN_POLL_S = 0.05
log = logs.get("trials")


class Trials:
    """Tries what is new on this host. One process at a time tries; the others wait and read what it found.

    folder: where verdicts are remembered. aside: runs what reads the disk, away from the event loop. shelf: where
    trials lay out what workers share; None: nowhere.
    """

    def __init__(self, folder: Path, aside: Offload, shelf: Path | None = None) -> None:
        self._folder = folder
        self._aside = aside
        self._shelf = shelf

    def rounds(self, root: Path, policy: Repository, before: Catalog) -> Iterator[Verdicts]:
        """What is known of the versions that `before` does not serve yet: at once what is remembered, then whatever
        comes, in the end all. Raises OSError when `root` cannot be read.
        """
        memory = Memory(self._folder, policy)
        wanted = self._aside.call(lambda: candidates(root, before))
        known = self._aside.call(lambda: memory.recall(wanted))
        if all(each in known for each in wanted):
            yield Verdicts(known)
            return
        yield Verdicts(dict(known), complete=False)
        look_at_s = time.monotonic() + PAUSE_S
        while (fd := memory.lock()) is None:
            time.sleep(_TURN_POLL_S)
            if time.monotonic() > look_at_s:
                yield from self._news(memory, wanted, known)
                look_at_s = time.monotonic() + PAUSE_S
        try:
            yield from self._news(memory, wanted, known)
            left = [each for each in wanted if each not in known]
            yield from self._try(root, policy, memory, left, known)
        finally:
            if fd >= 0:
                os.close(fd)
        yield Verdicts(known)

    def _news(self, memory: Memory, wanted: Sequence[Candidate], known: dict[Candidate, Verdict]) -> Iterator[Verdicts]:
        """Tell what another process has found meanwhile."""
        found = self._aside.call(lambda: memory.recall([each for each in wanted if each not in known]))
        if found:
            known.update(found)
            yield Verdicts(dict(known), complete=False)

    def _try(
        self, root: Path, policy: Repository, memory: Memory, left: Sequence[Candidate],
        known: dict[Candidate, Verdict],
    ) -> Iterator[Verdicts]:  # fmt: skip
        told_at_s, untold = time.monotonic(), 0
        for found in trial_runs.run(root, left, policy, self._shelf):
            if found is not None:
                candidate, verdict = found
                known[candidate] = verdict
                untold += 1
                self._aside.call(partial(memory.remember, candidate, verdict))
                _tell(candidate, verdict)
            elif untold and time.monotonic() - told_at_s > PAUSE_S:
                yield Verdicts(dict(known), complete=False)
                told_at_s, untold = time.monotonic(), 0


def _tell(candidate: Candidate, verdict: Verdict) -> None:
    labels = {"model": candidate.name, "version": candidate.version}
    if verdict.trouble:
        log.warning("trial_failed", **labels, reason=verdict.trouble.value, detail=verdict.reason, stderr=verdict.tail)
    else:
        log.info("trial_passed", **labels)
