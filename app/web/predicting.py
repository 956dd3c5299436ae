"""The steps that the prediction views of every protocol share: admit, decode, predict, encode.

Each step takes values and returns a value. A view finds its servable, reads the body and calls them in that order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from time import monotonic as now_s
from typing import ParamSpec, TypeVar

import msgspec
import numpy as np
from msgspec.structs import replace

from app.batching.batcher import RequestLimits
from app.contract.cells import Array
from app.contract.schema import Output
from app.contract.table import Table
from app.errors import NotFinite
from app.serving import rechecks
from app.serving.servable import Servable
from app.web import deadlines
from app.web.exchange import Exchange

CELL_BYTES = 12
"""About what one number takes in a JSON answer."""

P = ParamSpec("P")
T = TypeVar("T")


class Asked(msgspec.Struct, frozen=True):
    """What a body says: its table, the outputs it names (none: the default one), the time it gives."""

    table: Table
    outputs: Sequence[str] = ()
    timeout_s: float = math.inf


class Predicted(msgspec.Struct, frozen=True):
    """outputs: in the order asked for, each with its array of `rows` rows."""

    outputs: Sequence[tuple[Output, Array]]
    rows: int

    @property
    def size_bytes(self) -> int:
        """About how long the answer is, as JSON."""
        width = 0
        for output, _ in self.outputs:
            width += output.width
        return width * self.rows * CELL_BYTES


def admit(exchange: Exchange, servable: Servable, protocol: str, body_bytes: int) -> RequestLimits:
    """Let the request in before its body is decoded: it counts for the servable and is in flight from here on.

    Returns its limits. Raises RequestRejected for a deadline that cannot be read, Overloaded when there is no room.
    """
    parts, current = exchange.parts, exchange.trace
    current.serves(servable, protocol)
    budget_s = parts.settings.server.request_timeout_s
    current.deadline_at_s = deadlines.at_s(exchange.environ, current.started_s, budget_s)
    # A row's cost is learned from rows, not from bytes: a long text is for a thread, however cheap rows were.
    may_inline = body_bytes <= parts.settings.predict.in_thread_above_bytes
    limits = RequestLimits(
        current.deadline_at_s, current.deadline_at_s - current.started_s, current.waited_s, may_inline,
        exchange.environ.get("gunicorn.socket"),
    )  # fmt: skip
    servable.check_room(limits)
    exchange.enter(parts.journal.counts(current.model, current.version).in_flight)
    return limits


def run_stage(
    exchange: Exchange, stage: str, size_bytes: int, work: Callable[P, T], *args: P.args, **more: P.kwargs
) -> T:
    """`work(*args)`, timed as that stage; in a native thread when `size_bytes` is past `predict.in_thread_above_bytes`.

    Probes and small requests do not wait for large bodies and answers then. The work touches neither request nor log.
    Raises what the work raises, DeadlineExceeded when a thread is not free in time.
    """
    parts, current, started_s = exchange.parts, exchange.trace, now_s()
    if size_bytes <= parts.settings.predict.in_thread_above_bytes:
        done = work(*args, **more)
    else:
        done = parts.coding.call(partial(work, *args, **more), current.deadline_at_s)
    current.stages[stage] = now_s() - started_s
    return done


def predict(exchange: Exchange, servable: Servable, asked: Asked, limits: RequestLimits) -> Predicted:
    """What the model says to the table.

    Raises RequestRejected, Overloaded, DeadlineExceeded, ClientGone, InferenceFailed, NotFinite or ModelNotReady.
    """
    parts, current, table = exchange.parts, exchange.trace, asked.table
    current.rows = table.rows
    outputs = servable.outputs(asked.outputs)
    if asked.timeout_s < math.inf:
        current.deadline_at_s = min(current.deadline_at_s, current.started_s + asked.timeout_s)
        budget_s = current.deadline_at_s - current.started_s
        limits = replace(limits, deadline_at_s=current.deadline_at_s, budget_s=budget_s)
    prediction = servable.predict(table, outputs, parts.predicting, limits)
    current.stages["queue"] = prediction.queue_s
    current.stages["cache" if prediction.cached else "predict"] = prediction.predict_s
    one_in = 0 if prediction.cached else parts.settings.predict.recheck_one_in
    rechecks.maybe(servable, table, outputs, prediction.arrays, one_in, parts.predicting, parts.metrics)
    found = [(output, prediction.arrays[output.name]) for output in outputs]
    _check_finite(found, exchange)
    return Predicted(found, table.rows)


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
