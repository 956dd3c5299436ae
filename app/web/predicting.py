"""One prediction, in one direction: find, decode, predict, encode. Every protocol's view calls this.

A body or an answer past `predict.in_thread_above_bytes` is decoded or encoded in a native thread, so probes and small
requests do not wait for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from time import monotonic as now_s
from typing import Generic, TypeVar

import msgspec
import numpy as np
from msgspec.structs import replace

from app.batching.batcher import Terms
from app.contract.cells import Array
from app.contract.decode import require_rows
from app.contract.rules import Rules
from app.contract.schema import Input, Output
from app.contract.table import Table
from app.errors import NotFinite
from app.serving import rechecks
from app.serving.servable import Servable
from app.web import deadlines
from app.web.exchange import Exchange

CELL_BYTES = 12
"""About what one number takes in a JSON answer."""

T = TypeVar("T")


class Asked(msgspec.Struct, frozen=True):
    """What a body says: its table, the outputs it names (none: the default one), the time it gives."""

    table: Table
    outputs: Sequence[str] = ()
    timeout_s: float = math.inf


A = TypeVar("A", bound=Asked)
Read = Callable[[Input, Rules], A]
"""Makes a body an `Asked`. May run in a native thread: it touches neither request nor log."""


class Answer(msgspec.Struct, Generic[A], frozen=True):
    """What the model said to `asked`: outputs in the order asked for, each with its array."""

    asked: A
    servable: Servable
    outputs: Sequence[tuple[Output, Array]]
    rows: int


def answer(exchange: Exchange, servable: Servable, protocol: str, size_bytes: int, read: Read[A]) -> Answer[A]:
    """Decode a body of `size_bytes` with `read` and predict.

    Raises RequestRejected, TooLarge, Overloaded, DeadlineExceeded, ClientGone, InferenceFailed, NotFinite or
    ModelNotReady.
    """
    parts, current = exchange.parts, exchange.trace
    current.serves(servable, protocol)
    contract = servable.contract
    assert contract is not None
    policy = parts.settings.predict
    budget_s = parts.settings.server.request_timeout_s
    current.deadline_at_s = deadlines.at_s(exchange.environ, current.started_s, budget_s)
    terms = Terms(
        servable.limits(parts.predicting, policy.max_queue_rows), current.deadline_at_s, policy.inline_below_ms / 1000,
        exchange.is_gone, current.waited_s, current.deadline_at_s - current.started_s,
    )  # fmt: skip
    servable.check_room(terms)
    in_flight = parts.journal.counts(current.model, current.version).in_flight
    in_flight.inc()
    try:
        started_s = now_s()
        rules = servable.rules(policy)
        if size_bytes <= policy.in_thread_above_bytes:
            asked = read(contract.input, rules)
        else:
            asked = parts.coding.call(lambda: read(contract.input, rules), current.deadline_at_s)
            # A row's cost is learned from rows, not from bytes: a long text is for a thread, however cheap rows were.
            terms = replace(terms, inline_below_s=0.0)
        current.rows = require_rows(asked.table).rows
        current.stages["decode"] = now_s() - started_s
        outputs = servable.outputs(asked.outputs)
        if asked.timeout_s < math.inf:
            current.deadline_at_s = min(current.deadline_at_s, current.started_s + asked.timeout_s)
            budget_s = current.deadline_at_s - current.started_s
            terms = replace(terms, deadline_at_s=current.deadline_at_s, budget_s=budget_s)
        prediction = servable.predict(asked.table, outputs, parts.predicting, terms)
    finally:
        in_flight.inc(-1)
    current.stages["queue"] = prediction.queue_s
    current.stages["cache" if prediction.cached else "predict"] = prediction.predict_s
    one_in = 0 if prediction.cached else policy.recheck_one_in
    rechecks.maybe(servable, asked.table, outputs, prediction.arrays, one_in, parts.predicting, parts.metrics)
    found = [(output, prediction.arrays[output.name]) for output in outputs]
    _check_finite(found, exchange)
    return Answer(asked, servable, found, current.rows)


def encode(exchange: Exchange, result: Answer[A], write: Callable[[Answer[A]], T]) -> T:
    """What `write` makes of the answer, in a native thread when it is large; timed as the stage `encode`."""
    current, started_s = exchange.trace, now_s()
    width = 0
    for output, _ in result.outputs:
        width += output.width
    if width * result.rows * CELL_BYTES <= exchange.parts.settings.predict.in_thread_above_bytes:
        written = write(result)
    else:
        written = exchange.parts.coding.call(lambda: write(result), current.deadline_at_s)
    current.stages["encode"] = now_s() - started_s
    return written


def _check_finite(outputs: Sequence[tuple[Output, Array]], exchange: Exchange) -> None:
    lost = 0
    for _, array in outputs:
        if array.dtype.kind == "f":
            finite = np.isfinite(array)
            lost += 0 if finite.all() else int(finite.size - np.count_nonzero(finite))
    if lost:
        parts, current = exchange.parts, exchange.trace
        parts.metrics.not_finite.labels(current.model, current.version).inc(lost)
        if parts.settings.predict.not_finite == "error":
            raise NotFinite
