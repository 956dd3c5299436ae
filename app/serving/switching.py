"""Switches all workers of a host to a new generation, or none.

A process that holds the switch lock reads the repository, proposes a statement, and waits until every worker that
answers requests has prepared it. Then one store switches the host. A worker that has ended is left out; one that does
not answer in time, or cannot serve a version that the change is about, keeps everybody where they are.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial

import msgspec

from tableside.errors import ContractBroken, FailureKind
from tableside.process import worker_slots
from tableside.process.offload import run_native
from tableside.serving import desired, generations, statement, statement_changes
from tableside.serving.generations import Generations
from tableside.serving.lifecycle import State
from tableside.serving.statement import Key, Refusal, Statement
from tableside.serving.version_status import read_statuses
from tableside.serving.worker_refusals import WorkerRefusals, refusals_file, still_serving
from tableside.settings import Settings
from tableside.switch_errors import SwitchRefused, WorkerReason
from tableside.telemetry import logs

MARGIN_S = 30.0
"""How long workers may take beyond `repository.load_timeout_s`, which limits the load of one version."""
SEEN_S = 5.0
"""How long to wait, after the switch, until every worker has reported it."""
_POLL_S = 0.005
_ALIVE_EVERY_S = 0.1
log = logs.get_logger("generations")


class Outcome(msgspec.Struct, frozen=True):
    """A switch. generation: what is served now. changed: the models that differ; none if nothing had to be switched.

    workers: how many have switched. refused: the versions that no worker serves, with the reasons, by `name/version`.
    seconds: from the call to the switch.
    """

    generation: int
    changed: tuple[str, ...] = ()
    workers: int = 0
    refused: Mapping[str, Refusal] = {}
    seconds: float = 0.0


class Switching:
    """The holder of the switch lock of a host."""

    def __init__(self, settings: Settings, found: Generations) -> None:
        self._settings = settings
        self._generations = found
        self._slots = settings.run_dir / "worker_slots"
        self._noted: dict[Key, Refusal] = {}
        try:
            self.before = found.current()
        except ContractBroken:  # lost, or of another release
            self.before = statement.EMPTY

    @property
    def generation(self) -> int:
        """The generation that is served."""
        return self._generations.words.current

    def switch(
        self, reason: str, targets: Collection[Key] = (), retry: Collection[str] | None = (), force: bool = False,
        timeout_s: float | None = None,
    ) -> Outcome:  # fmt: skip
        """Make the next generation of what the repository asks for, and return when every worker serves it.

        reason: a sentence for the statement and the log. targets: versions that must be served afterwards. Another new
        version that a worker cannot serve is left out by all. retry: the models whose refused versions are tried again,
        and which start again if they were stopped; None for all. force: switch although nothing has changed. timeout_s:
        for all workers to prepare; None for the load timeout and MARGIN_S.

        Raises SwitchRefused with the reason of each worker, and OSError if the repository cannot be read; nothing is
        switched then. Raises ModelNotReady if the run folder cannot be written.
        """
        started_s = time.monotonic()
        refused = {key: why for key, why in self._known_refusals().items() if retry is not None and key[0] not in retry}
        refused |= self._noted
        limit_s = self._settings.repository.load_timeout_s + MARGIN_S if timeout_s is None else timeout_s
        while True:
            wanted = self._read(refused, reason)
            if not force and not statement.changed(self.before, wanted):
                serving = self._generations.words.serving(worker_slots.held(self._slots))
                return self._outcome(self.before, (), len(serving), started_s)
            starts = None if retry is None else tuple({*retry, *statement.changed(self.before, wanted)})
            proposed = self._propose(msgspec.structs.replace(wanted, starts=starts))
            participants = self._generations.words.serving(worker_slots.held(self._slots))
            try:
                new = self._new_refusals(self._answers(proposed.generation, participants, limit_s), targets)
            except BaseException:
                self._generations.give_up()
                raise
            if not new:
                break
            refused |= new
            force = True
        self._generations.commit(proposed.generation)
        outcome = self._outcome(proposed, statement.changed(self.before, proposed), len(participants), started_s)
        self._wait_seen(proposed.generation, participants)
        before, self.before = self.before, proposed
        if participants:
            _log(before, proposed, outcome, reason)
        return outcome

    def note(self, problem: SwitchRefused) -> None:
        """Have the versions that a change was refused for shown as such, if the repository asks for them anyway.

        Nothing else changes. Raises what `switch` raises.
        """
        found = {key: Refusal(kind, reason) for key, (kind, reason) in problem.versions.items()}
        sound = self.before.sound
        self._noted = {key: refusal for key, refusal in found.items() if key not in sound}
        if self._noted:
            self.switch(f"refused: {', '.join(f'{name}/{number}' for name, number in self._noted)}")

    def _read(self, refused: Mapping[Key, Refusal], reason: str) -> Statement:
        return run_native(partial(desired.read, self._settings.repository_path, self.before, refused, reason))

    def _known_refusals(self) -> dict[Key, Refusal]:
        """What is left out now, and what no worker could load when it started."""
        entries = read_statuses(worker_slots.statuses(self._slots))
        served = {entry.key for entry in entries if entry.state is not State.UNAVAILABLE or not entry.failure_kind}
        candidates = self.before.sound - served
        found = {
            entry.key: Refusal(entry.failure_kind, entry.reason)
            for entry in entries
            if entry.key in candidates and entry.failure_kind is not FailureKind.QUARANTINED
        }
        return {**found, **self.before.refusals}

    def _propose(self, wanted: Statement) -> Statement:
        try:
            return self._generations.propose(wanted)
        except OSError as problem:
            raise generations.cannot_tell(self._generations.folder, problem) from problem

    def _answers(self, number: int, participants: Mapping[int, int], limit_s: float) -> list[WorkerRefusals]:
        """Wait until every participant has prepared, or ended. Returns what they have against it.

        Raises SwitchRefused if one does not answer in time, or could prepare nothing.
        """
        give_up_at_s, look_at_s = time.monotonic() + limit_s, 0.0
        missing, found = dict(participants), []
        while missing:
            now_s = time.monotonic()
            if now_s >= look_at_s:
                look_at_s = now_s + _ALIVE_EVERY_S
                words = self._generations.words
                missing = {slot: pid for slot, pid in missing.items() if words.is_alive(slot, pid, self._slots)}
            for slot in list(missing):
                answer = self._generations.words.answer_of(slot, number)
                if answer is not None:
                    found += [self._refusals(number, slot, missing[slot])] if answer else []
                    del missing[slot]
            if missing and now_s >= give_up_at_s:
                late = tuple(WorkerReason(pid, f"has not prepared it after {limit_s:g} s") for pid in missing.values())
                raise SwitchRefused(f"generation {number} was not prepared in time; nothing has changed", late)
            if missing:
                time.sleep(_POLL_S)
        broken = tuple(WorkerReason(each.pid, each.failure) for each in found if each.failure)
        if broken:
            raise SwitchRefused(f"generation {number} could not be prepared; nothing has changed", broken)
        return found

    def _refusals(self, number: int, slot: int, pid: int) -> WorkerRefusals:
        with suppress(OSError, msgspec.DecodeError):
            content = refusals_file(self._generations.folder, slot).read_bytes()
            found = msgspec.json.decode(content, type=WorkerRefusals)
            if found.generation == number:
                return found
        return WorkerRefusals(number, pid, {}, "it refuses, and could not write why; its log has the reason")

    def _new_refusals(self, answers: list[WorkerRefusals], targets: Collection[Key]) -> dict[Key, Refusal]:
        """Return what all workers leave out from now on. Raises SwitchRefused if a target is among what is refused."""
        reasons, found, sound = [], dict[Key, Refusal](), self.before.sound
        bad: dict[Key, tuple[FailureKind, str]] = {}
        for answer in answers:
            for spec, why in answer.refused.items():
                name, _, number = spec.rpartition("/")
                key = (name, int(number))
                if key in targets:
                    bad[key] = (why.kind, why.reason)
                    said = still_serving(why.reason) if key in sound else why.reason
                    reasons.append(WorkerReason(answer.pid, f"{spec}: {said}"))
                elif key not in sound:  # what is served elsewhere goes on there
                    found[key] = why
        if reasons:
            wanted = ", ".join(sorted(f"{name}/{number}" for name, number in targets))
            raise SwitchRefused(f"{wanted} cannot be served; nothing has changed", tuple(reasons), bad)
        return found

    def _wait_seen(self, number: int, participants: Mapping[int, int]) -> None:
        """Wait until the status files show the switch, so that the next look at them does too."""
        words, give_up_at_s = self._generations.words, time.monotonic() + SEEN_S
        missing = dict(participants)
        while missing and time.monotonic() < give_up_at_s:
            missing = {
                slot: pid
                for slot, pid in missing.items()
                if 0 < words.generation_of(slot) < number and words.is_alive(slot, pid, self._slots)
            }
            time.sleep(_POLL_S if missing else 0)

    @staticmethod
    def _outcome(served: Statement, changed: Collection[str], workers: int, started_s: float) -> Outcome:
        refused = {f"{name}/{version}": why for (name, version), why in served.refusals.items()}
        return Outcome(served.generation, tuple(changed), workers, refused, round(time.monotonic() - started_s, 4))


@contextmanager
def exclusive(settings: Settings, timeout_s: float | None = None) -> Iterator[Switching]:
    """Hold the switch lock of the host. Raises ModelNotReady if that is not possible in `timeout_s` seconds.

    timeout_s: None for as long as another switch may take.
    """
    try:
        found = Generations.open(settings.run_dir)
    except OSError as problem:
        raise generations.cannot_tell(settings.run_dir / generations.FOLDER, problem) from problem
    limit_s = settings.repository.load_timeout_s + 2 * MARGIN_S if timeout_s is None else timeout_s
    with found.switch_lock(limit_s):
        yield Switching(settings, found)


def switch(
    settings: Settings, reason: str, targets: Collection[Key] = (), retry: Collection[str] | None = (),
    force: bool = False, timeout_s: float | None = None,
) -> Outcome:  # fmt: skip
    """Do as `Switching.switch`, with the switch lock."""
    with exclusive(settings) as switching:
        return switching.switch(reason, targets, retry, force, timeout_s)


def begin(settings: Settings) -> None:
    """Make the first generation of a stack that starts, if no worker runs: what the repository asks for now.

    Versions that were refused are tried again. Raises OSError if the repository cannot be read.
    """
    with exclusive(settings) as switching:
        if not worker_slots.held(settings.run_dir / "worker_slots"):
            switching.switch("start of the stack", retry=None, force=True)


def _log(before: Statement, now: Statement, outcome: Outcome, reason: str) -> None:
    log.info(
        "generation_switched",
        generation=outcome.generation,
        reason=reason,
        models=", ".join(outcome.changed[:20]),
        **statement_changes.in_words(before, now),
        workers=outcome.workers,
        seconds=round(outcome.seconds, 3),
    )
