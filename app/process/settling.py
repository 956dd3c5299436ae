"""Settles the death of a worker: its requests in hand become suspects, if the way it died says that one killed it.

gunicorn's master does this when it learns of the death. A worker may get such a request again before that, and does it
then; and whoever takes a slot does it for the one before. Whoever comes second finds nothing left.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import NamedTuple

from tableside.process import deaths, process_table, suspects, worker_lives
from tableside.process.deaths import Death
from tableside.process.hand_file import HandFile
from tableside.process.process_table import Process
from tableside.process.suspects import Suspect


class Settled(NamedTuple):
    """What was found out about a worker that has died.

    suspects: the requests that it computed. in_hand: how many requests it had in all.
    """

    slot: int
    pid: int
    death: Death
    suspects: list[Suspect]
    in_hand: int = 0


_LIVES = {deaths.Cause.FAULT: worker_lives.Cause.CRASHED, deaths.Cause.MEMORY: worker_lives.Cause.MEMORY}


def settle(file: HandFile, slot: int, keep_s: float) -> Settled | None:
    """Settle the death of the worker in this slot; None if it lives, or nothing is left to settle.

    keep_s: how long suspects are remembered.
    """
    settled: Settled | None = None
    fault = deaths.fault_file(file.folder, slot)

    def change(text: bytes) -> bytes | None:
        nonlocal settled
        holder = file.holder(slot)
        if holder is None or not process_table.is_ending(Process(holder.pid, holder.started)):
            return None
        death = deaths.how(fault, holder, deaths.oom_kills())
        entries = file.entries(slot)
        ledger, blamed = suspects.blame(suspects.parse(text), entries if death.cause else [], time.time(), keep_s)
        settled = Settled(slot, holder.pid, death, blamed, len(entries))
        return suspects.encode(ledger) if blamed else None

    def free() -> None:
        if settled is not None:
            file.free(slot)
            with suppress(OSError):
                fault.unlink()

    # The slot is freed when the ledger says what was in it: a worker that no longer finds a request here reads there.
    file.update_ledger(change, free)
    if settled is not None:
        cause = _LIVES.get(settled.death.cause) if settled.death.cause else None
        worker_lives.note(file.folder.parent, settled.pid, cause, settled.in_hand)
    return settled


def settle_ended(file: HandFile, keep_s: float) -> list[Settled]:
    """Settle all workers that have died."""
    return [settled for slot in file.slots() if (settled := settle(file, slot, keep_s)) is not None]


def lines(settled: Settled) -> list[str]:
    """Return what the log says about a death: the way, the models and the digests, and no values of a request."""
    if settled.death.cause is None:
        return []
    said = f"worker (pid {settled.pid}) died: {settled.death.detail}. Requests that it computed: "
    found = [said + (str(len(settled.suspects)) if settled.suspects else "none")]
    for suspect in settled.suspects:
        what = (
            "quarantined: it has ended two workers"
            if suspect.is_quarantined
            else "suspect: it runs alone if it comes again"
        )
        found.append(f"request {suspect.request_id} of model {suspect.model}, digest {suspect.digest}: {what}")
    return found
