"""What this worker has in hand, and what it knows of requests that have ended workers."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection
from pathlib import Path

from tableside.process import deaths, process_table, settling, suspects
from tableside.process.exclusive import Exclusive
from tableside.process.hand_file import SLOTS, Entry, HandFile, Holder, Pulse, State
from tableside.process.settling import Settled
from tableside.process.suspects import Ledger, StoppedModel, Suspect

REPEATED_ABOVE_S = 0.002
"""A request that nginx repeats was received longer ago than this: a process needs more time to end."""
HUNG_AFTER_S = 5.0
"""A call that runs so much longer than the last of its requests was allowed to counts as hung."""


class Held:
    """A request in hand, from before its body is decoded until it is answered, or until its call ends if that is later.

    alone: whether it runs while no other request is in hand.
    """

    __slots__ = ("_hand", "alone", "digest", "left_at_s", "model", "place", "request_id")

    def __init__(
        self, hand: WorkerHand, place: int, digest: bytes, request_id: str, model: str, alone: bool = False
    ) -> None:
        self._hand, self.place, self.digest, self.alone = hand, place, digest, alone
        self.request_id, self.model = request_id, model
        self.left_at_s: float | None = None

    def waits(self) -> None:
        """Note that it waits in a queue: a death of the worker is not its doing."""
        self._hand.mark(self.place, State.WAITING)

    def computes(self) -> None:
        """Note that its call begins."""
        self._hand.mark(self.place, State.COMPUTING)

    def leave_behind(self) -> None:
        """Note that it is answered although its call still runs."""
        self.left_at_s = time.monotonic()
        self._hand.mark(self.place, State.LEFT)
        self._hand.left_behind.append(self)

    def call_ended(self) -> None:
        """Note that a call has ended whose request was answered before."""
        if self in self._hand.left_behind:
            self._hand.left_behind.remove(self)
            self._hand.release(self)

    def end(self) -> None:
        """Forget it: it is answered. Does nothing while its call still runs."""
        if self.left_at_s is None:
            self._hand.release(self)


class WorkerHand:
    """The requests in hand of one process. Until `attach` nothing is recorded, and no request is a suspect."""

    def __init__(self) -> None:
        self._exclusive = Exclusive()
        self.left_behind: list[Held] = []
        self.settled: list[Settled] = []
        """Deaths that this worker has settled and that were not logged yet."""
        self._file: HandFile | None = None
        self._slot, self._keep_s = 0, 0.0
        self._seen = -1
        self._suspects: dict[str, Suspect] = {}
        self._stopped: dict[str, StoppedModel] = {}

    def attach(self, run_dir: Path, slot: int, keep_s: float) -> None:
        """Begin to record in this slot. keep_s: how long suspects are remembered; 0 records nothing.

        Raises OSError if the file cannot be made or its space cannot be reserved. The process should also call
        `deaths.record_faults`: without it, only the OOM killer is recognized.
        """
        if slot >= SLOTS or not keep_s:
            return
        file = HandFile(run_dir)
        pid = os.getpid()
        self.settled += settling.settle_ended(file, keep_s)
        file.take(slot, Holder(pid, process_table.started(pid), deaths.oom_kills()))
        self._file, self._slot, self._keep_s = file, slot, keep_s

    def beat(self) -> None:
        """Note a heartbeat. The worker calls this once a second."""
        if self._file is not None:
            self._file.beat(self._slot, deaths.oom_kills(), time.time())

    def pulses(self) -> dict[int, Pulse]:
        """Return the last heartbeat of each worker of the host by its slot; none where nothing is recorded."""
        if self._file is None:
            return {}
        found = {slot: self._file.pulse(slot) for slot in self._file.slots()}
        return {slot: pulse for slot, pulse in found.items() if pulse is not None}

    def digest(self, path: str, body: bytes) -> bytes:
        """Return the digest of a request; empty while nothing is recorded."""
        return self._file.digest(path, body) if self._file is not None else b""

    def begin(self, path: str, body: bytes, request_id: str, model: str, waited_s: float) -> Held | None:
        """Record a request that needs no look at suspects, as `hold` does. None for any other, or without a file.

        Nearly every request begins here. model: `name/version`. waited_s: as for `look_up`.
        """
        file = self._file
        if (
            file is None or waited_s > REPEATED_ABOVE_S or self._suspects or self._stopped or self.settled
            or self._exclusive.wanted or file.version != self._seen
        ):  # fmt: skip
            return None
        digest = file.digest(path, body)
        self._exclusive.inside += 1
        return Held(
            self, file.put(self._slot, digest, request_id, model, False, time.time()), digest, request_id, model
        )

    def look_up(self, digest: bytes, request_id: str, waited_s: float) -> Suspect | None:
        """Return what is known of a request. waited_s: how long ago nginx had received it.

        If nginx repeats a request because its worker has died, this worker may be the first to know of the death.
        """
        file = self._file
        if file is None:
            return None
        if waited_s > REPEATED_ABOVE_S:
            for slot in file.find(request_id, self._slot):
                if (settled := settling.settle(file, slot, self._keep_s)) is not None:
                    self.settled.append(settled)
            if file.version % 2:
                file.wait_for_writer()
        if file.version != self._seen:
            self._refresh(file)
        if not self._suspects:
            return None
        found = self._suspects.get(digest.hex())
        return found if found is not None and time.time() < found.until_s else None

    def stopped(self, name: str) -> StoppedModel | None:
        """Return the model's entry if it is stopped because of its requests."""
        if self._file is not None and self._file.version != self._seen:
            self._refresh(self._file)
        found = self._stopped.get(name) if self._stopped else None
        return found if found is not None and time.time() < found.until_s else None

    def stopped_models(self) -> frozenset[str]:
        """Return the names of the models that are stopped now."""
        self.stopped("")
        return frozenset(name for name in self._stopped if self.stopped(name))

    def hold(self, digest: bytes, request_id: str, model: str, alone: bool, deadline_at_s: float) -> Held | None:
        """Record a request that is about to be decoded and computed. model: `name/version`.

        alone: waits first until no other request is in hand. Other requests wait for one that is to run alone. None if
        the deadline passed before.
        """
        file, place = self._file, 0
        if file is not None:
            if not alone:
                self._exclusive.enter(deadline_at_s)
            elif not self._exclusive.enter_alone(deadline_at_s):
                return None
            place = file.put(self._slot, digest, request_id, model, alone, time.time())
        return Held(self, place, digest, request_id, model, alone)

    def mark(self, place: int, state: State) -> None:
        """Set the state of a recorded request."""
        if self._file is not None:
            self._file.mark(place, state)

    def release(self, held: Held) -> None:
        """Forget a request. One that ran alone, and was answered without harm, is no suspect any more."""
        if self._file is None:
            return
        self._file.forget(self._slot, held.place)
        self._exclusive.leave(held.alone)
        if held.alone and held.left_at_s is None:
            self._update(lambda ledger: suspects.cleared(ledger, held.digest.hex()))

    def blame_hung(self) -> list[Settled]:
        """Blame the requests whose calls do not end. Returns one entry for each, once."""
        now_s = time.monotonic()
        hung = [held for held in self.left_behind if held.left_at_s and now_s - held.left_at_s >= HUNG_AFTER_S]
        found = []
        for held in hung:
            self.left_behind.remove(held)
            found.append(self._blame(held))
        return found

    def _blame(self, held: Held) -> Settled:
        entry = Entry(State.LEFT, held.alone, time.time(), held.digest.hex(), held.request_id, held.model)
        blamed: list[Suspect] = []

        def change(ledger: Ledger) -> Ledger:
            after, found = suspects.blame(ledger, [entry], time.time(), self._keep_s)
            blamed.extend(found)
            return after

        self._update(change)
        self.mark(held.place, State.WAITING)  # blamed once, and not again if the worker is killed
        death = deaths.Death(deaths.Cause.HUNG, f"a call has not ended {HUNG_AFTER_S:g} s after its deadline")
        return Settled(self._slot, os.getpid(), death, blamed)

    def serves(self, generation: int, starts: Collection[str] | None) -> None:
        """Note that this worker serves a generation. starts: the stopped models that start with it; None for all."""
        if self._file is not None and self._ledger().generation < generation:
            self._update(lambda ledger: suspects.served(ledger, generation, starts))

    def _ledger(self) -> Ledger:
        return suspects.parse(self._file.read_ledger()[1]) if self._file is not None else Ledger()

    def _update(self, change: Callable[[Ledger], Ledger]) -> None:
        if self._file is not None:
            self._file.update_ledger(lambda text: suspects.encode(change(suspects.parse(text))))

    def _refresh(self, file: HandFile) -> None:
        version, text = file.read_ledger()
        if version % 2:
            return
        ledger = suspects.current(suspects.parse(text), time.time())
        self._seen = version
        self._suspects = {each.digest: each for each in ledger.suspects}
        self._stopped = {each.name: each for each in ledger.models}
