"""One prediction, in one direction: find, decode, predict, encode. Every protocol's view calls this.

A body or an answer past `predict.in_thread_above_bytes` is decoded or encoded in a native thread, so probes and small
requests do not wait for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np

from app.batching.batcher import Terms
from app.contract.cells import Array
from app.contract.decode import require_rows
from app.contract.rules import Rules
from app.contract.schema import Input, Output
from app.contract.table import Table
from app.errors import NotFinite
from app.serving import rechecks
from app.serving.servable import Servable
from app.web import bodies, deadlines
from app.web.current import wiring
from app.web.trace import Trace, trace

CELL_BYTES = 12
"""About what one number takes in a JSON answer."""

T = TypeVar("T")


@dataclass(frozen=True)
class Asked:
    """What a body says: its table, the outputs it names (none: the default one), the time it gives."""

    table: Table
    outputs: Sequence[str] = ()
    timeout_s: float = math.inf


A = TypeVar("A", bound=Asked)
Read = Callable[[Input, Rules], A]
"""Makes a body an `Asked`. May run in a native thread: it touches neither request nor log."""


@dataclass(frozen=True)
class Answer(Generic[A]):
    """What the model said to `asked`: outputs in the order asked for, each with its array."""

    asked: A
    servable: Servable
    outputs: tuple[tuple[Output, Array], ...]
    rows: int


def answer(servable: Servable, protocol: str, size_bytes: int, read: Read[A]) -> Answer[A]:
    """Decode a body of `size_bytes` with `read` and predict.

    Raises RequestRejected, TooLarge, Overloaded, DeadlineExceeded, ClientGone, InferenceFailed, NotFinite or
    ModelNotReady.
    """
    parts, current = wiring(), trace()
    current.serves(servable, protocol)
    contract = servable.contract
    assert contract is not None
    policy, columns = parts.settings.predict, servable.columns
    rules = Rules(policy.max_cell_errors, policy.show_values, columns.missing, columns.extra, columns.duplicate)
    current.deadline_at_s = deadlines.at_s(current.started_s)
    terms = _terms(servable, current, current.deadline_at_s)
    servable.check_room(terms)
    in_flight = parts.metrics.in_flight.labels(servable.name)
    in_flight.inc()
    try:
        started_s = bodies.now_s()
        asked = _aside(size_bytes, current, lambda: read(contract.input, rules))
        current.rows = require_rows(asked.table).rows
        current.stages["decode"] = bodies.now_s() - started_s
        outputs = servable.outputs(asked.outputs)
        if asked.timeout_s < math.inf:
            current.deadline_at_s = min(current.deadline_at_s, current.started_s + asked.timeout_s)
            terms = _terms(servable, current, current.deadline_at_s)
        if size_bytes > policy.in_thread_above_bytes:
            # A row's cost is learned from rows, not from bytes: a long text is for a thread, however cheap rows were.
            terms = replace(terms, inline_below_s=0.0)
        prediction = servable.predict(asked.table, outputs, parts.predicting, terms)
    finally:
        in_flight.dec()
    current.stages["queue"] = prediction.queue_s
    current.stages["cache" if prediction.cached else "predict"] = prediction.predict_s
    one_in = 0 if prediction.cached else policy.recheck_one_in
    rechecks.maybe(servable, asked.table, outputs, prediction.arrays, one_in, parts.predicting, parts.metrics)
    found = tuple((output, prediction.arrays[output.name]) for output in outputs)
    _check_finite(found, current)
    return Answer(asked, servable, found, current.rows)


def _terms(servable: Servable, current: Trace, deadline_at_s: float) -> Terms:
    parts = wiring()
    policy = parts.settings.predict
    return Terms(
        servable.limits(parts.predicting, policy.max_queue_rows), deadline_at_s, policy.inline_below_ms / 1000,
        deadlines.gone(), current.waited_s, deadline_at_s - current.started_s,
    )  # fmt: skip


def encode(result: Answer[A], write: Callable[[Answer[A]], T]) -> T:
    """What `write` makes of the answer, in a native thread when it is large; timed as the stage `encode`."""
    current = trace()
    started_s = bodies.now_s()
    cells = sum(output.width for output, _ in result.outputs) * result.rows
    written = _aside(cells * CELL_BYTES, current, lambda: write(result))
    current.stages["encode"] = bodies.now_s() - started_s
    return written


def _aside(size_bytes: int, current: Trace, work: Callable[[], T]) -> T:
    parts = wiring()
    if size_bytes <= parts.settings.predict.in_thread_above_bytes:
        return work()
    return parts.coding.call(work, current.deadline_at_s)


def _check_finite(outputs: Sequence[tuple[Output, Array]], current: Trace) -> None:
    lost = 0
    for _, array in outputs:
        if array.dtype.kind == "f":
            finite = np.isfinite(array)
            lost += 0 if finite.all() else int(finite.size - np.count_nonzero(finite))
    if lost:
        parts = wiring()
        parts.metrics.not_finite.labels(current.model, current.version).inc(lost)
        if parts.settings.predict.not_finite == "error":
            raise NotFinite
