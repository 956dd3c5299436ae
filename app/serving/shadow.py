"""The shadow: computes answered requests once more with another version, after the answers have gone.

It delays no answer: it waits until this worker has no request in hand, keeps within a share of one core, takes few rows
at a time, and drops what it cannot do in time. The thread has the usual priority: a thread of low priority that
holds the interpreter's lock would make all others wait while the machine is busy.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from functools import partial

import msgspec

from tableside.contracts import answers, table_fit
from tableside.contracts.array_type import Array
from tableside.contracts.schema import Contract, Input, Output
from tableside.contracts.table import Table
from tableside.errors import DeadlineExceeded
from tableside.model_process.remote_runtime import RemoteRuntime
from tableside.process.offload import Offload
from tableside.runtimes.base import Runtime
from tableside.serving import answer_comparison
from tableside.serving.answer_comparison import Differences
from tableside.serving.cpu_budget import CpuBudget
from tableside.serving.lifecycle import State
from tableside.serving.servable import Servable
from tableside.telemetry import logs

log = logs.get_logger("traffic")
MAX_ROWS = 512
"""Of a larger request the first rows are compared: a call must not keep the interpreter for long."""
MAX_WAITING = 4
"""Samples that wait for an idle worker; each holds a table."""
MAX_AGE_S = 1.0
POLL_S = 0.01
REMOTE_TIMEOUT_S = 10.0
TIMEOUT_S = 30.0
"""A call that takes longer counts as an error."""


class Drop(StrEnum):
    """Why a request that was chosen is not computed once more."""

    BUSY = "busy"
    CPU_SHARE = "cpu_share"
    INPUT_DIFFERS = "input_differs"
    OUTPUT_DIFFERS = "output_differs"
    NOT_READY = "not_ready"


class Sample(msgspec.Struct, frozen=True):
    """An answered request. answered: the arrays that the client got, by output name. contract: of who answered.

    call_s: how long the call took that answered it; None if it was no such call, or answered more than these rows.
    """

    table: Table
    outputs: Sequence[Output]
    answered: Mapping[str, Array]
    contract: Contract
    call_s: float | None


def sample_of(
    table: Table, outputs: Sequence[Output], answered: Mapping[str, Array], contract: Contract, call_s: float | None
) -> Sample:
    """Return an answered request as a sample. Of a large one the first rows are copied, so that the rest is freed."""
    if table.rows > MAX_ROWS:
        table = Table.concat([table.take(0, MAX_ROWS)])
        answered = {name: array[:MAX_ROWS].copy() for name, array in answered.items()}
        call_s = None
    return Sample(table, outputs, answered, contract, call_s)


class Replayed(msgspec.Struct):
    """What came out. differences: None if the candidate raised `error`. call_s: seconds of the call. cpu_s: of all."""

    rows: int
    differences: Differences | None
    error: str
    call_s: float
    cpu_s: float


class Record(msgspec.Struct, frozen=True):
    """Where a comparison's events go, on the event loop's thread."""

    replayed: Callable[[Sample, Replayed], None]
    dropped: Callable[[Drop], None]


class InputFit:
    """Whether tables of one version fit another one, looked at once for each pair of loaded versions."""

    def __init__(self) -> None:
        self._known: tuple[Input, Input, bool] | None = None

    def fits(self, served: Input, candidate: Input) -> bool:
        """Whether a table that was decoded for the one is a table of the other."""
        known = self._known
        if known is None or known[0] is not served or known[1] is not candidate:
            differ = table_fit.input_differences(served, candidate)
            known = self._known = (served, candidate, not differ)
        return known[2]


class Job(msgspec.Struct, frozen=True):
    """A sample with the parts of its comparison. candidate: returns the version, None if it is not there.

    queued_at_s: seconds of the monotonic clock.
    """

    sample: Sample
    candidate: Callable[[], Servable | None]
    fit: InputFit
    budget: CpuBudget
    record: Record
    queued_at_s: float


class Replays:
    """The samples of a worker that wait, and the loop that replays them one after the other in one native thread."""

    def __init__(self, offload: Callable[[], Offload], is_busy: Callable[[], bool]) -> None:
        """offload: makes the native thread, when the first sample is there. is_busy: whether a request is in hand."""
        self._make_offload = offload
        self._offload: Offload | None = None
        self.is_busy = is_busy
        self._waiting: deque[Job] = deque()
        self._is_running = False

    def add(self, job: Job) -> None:
        """Replay a sample soon. Call it on the event loop's thread; it returns at once."""
        if len(self._waiting) >= MAX_WAITING:
            job.record.dropped(Drop.BUSY)
            return
        self._waiting.append(job)
        if self._offload is None:
            self._offload = self._make_offload()
        if not self._is_running:
            self._is_running = True
            self._offload.spawn(partial(self._run, self._offload))

    def _run(self, offload: Offload) -> None:
        try:
            while self._waiting:
                try:
                    self._replay(self._waiting[0], offload)
                except Exception as problem:  # noqa: BLE001 - the next samples are replayed nevertheless
                    log.error("replay_failed", error=f"{type(problem).__name__}: {problem}")
                self._waiting.popleft()
        finally:
            self._is_running = False

    def _replay(self, job: Job, offload: Offload) -> None:
        sample = job.sample
        while self.is_busy():
            if time.monotonic() - job.queued_at_s > MAX_AGE_S:
                job.record.dropped(Drop.BUSY)
                return
            time.sleep(POLL_S)
        candidate = job.candidate()
        reason = _obstacle(job, candidate)
        if reason is not None or candidate is None or candidate.runtime is None or candidate.contract is None:
            job.record.dropped(reason or Drop.NOT_READY)
            return
        work = partial(replay, sample, candidate.runtime, candidate.contract)
        try:
            replayed = offload.call(work, time.monotonic() + TIMEOUT_S)
        except DeadlineExceeded as problem:  # it goes on in its thread, and the next ones wait for that
            replayed = Replayed(sample.table.rows, None, type(problem).__name__, 0.0, TIMEOUT_S)
        job.budget.spend(replayed.cpu_s)
        job.record.replayed(sample, replayed)


def _obstacle(job: Job, candidate: Servable | None) -> Drop | None:
    if candidate is None or candidate.state is not State.READY or candidate.contract is None:
        return Drop.NOT_READY
    if not job.fit.fits(job.sample.contract.input, candidate.contract.input):
        return Drop.INPUT_DIFFERS
    if table_fit.output_differences(job.sample.outputs, candidate.contract):
        return Drop.OUTPUT_DIFFERS
    return None if job.budget.has_left else Drop.CPU_SHARE


def replay(sample: Sample, runtime: Runtime, contract: Contract) -> Replayed:
    """Compute a sample with another version, and compare. Runs in a native thread and never raises.

    A call in a model process counts with all its seconds as CPU time, because it runs elsewhere.
    """
    cpu_s, started_s = time.thread_time(), time.monotonic()
    rows, differences, error = sample.table.rows, None, ""
    call_s = 0.0
    try:
        table = Table(contract.input, rows, sample.table.arrays, sample.table.matrix)
        run = runtime.run
        if isinstance(runtime, RemoteRuntime):
            run = partial(runtime.run_until, started_s + REMOTE_TIMEOUT_S)
        outputs = [found for each in sample.outputs if (found := contract.output(each.name)) is not None]
        arrays = answers.collect(outputs, run, runtime.prepare(table))
        call_s = time.monotonic() - started_s
        both = (sample.contract, contract)
        differences = answer_comparison.compare(sample.outputs, sample.answered, arrays, both)
    except Exception as problem:  # noqa: BLE001 - what the candidate raises is what is counted
        error = type(problem).__name__
    if isinstance(runtime, RemoteRuntime):
        return Replayed(rows, differences, error, call_s, time.monotonic() - started_s)
    return Replayed(rows, differences, error, call_s, time.thread_time() - cpu_s)
