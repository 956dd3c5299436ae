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

from tableside.batching.batcher import RequestLimits
from tableside.contract.array_type import Array
from tableside.contract.schema import Output
from tableside.contract.table import Table
from tableside.errors import NotFinite
from tableside.serving import verification
from tableside.serving.servable import Servable
from tableside.web import deadlines
from tableside.web.request import RequestContext

CELL_BYTES = 12
"""About what one number takes in a JSON answer."""

P = ParamSpec("P")
T = TypeVar("T")


class PredictionRequest(msgspec.Struct, frozen=True):
    """What a body says: its table, the outputs it names (none: the default one), the time it gives."""

    table: Table
    outputs: Sequence[str] = ()
    timeout_s: float = math.inf


class PredictionResult(msgspec.Struct, frozen=True):
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


def admit(context: RequestContext, servable: Servable, protocol: str, body_bytes: int) -> RequestLimits:
    """Let the request in before its body is decoded: it counts for the servable and is in flight from here on.

    Returns its limits. Raises RequestRejected for a deadline that cannot be read, Overloaded when there is no room.
    """
    extensions, current = context.extensions, context.trace
    current.serves(servable.name, servable.version, protocol)
    budget_s = extensions.settings.server.request_timeout_s
    current.deadline_at_s = deadlines.at_s(context.environ, current.started_s, budget_s)
    # A row's cost is learned from rows, not from bytes: a long text is for a thread, however cheap rows were.
    may_inline = body_bytes <= extensions.settings.predict.in_thread_above_bytes
    limits = RequestLimits(
        current.deadline_at_s, current.deadline_at_s - current.started_s, current.waited_s, may_inline,
        context.environ.get("gunicorn.socket"),
    )  # fmt: skip
    servable.check_room(limits)
    context.enter(extensions.request_metrics.counts(current.model, current.version).in_flight)
    return limits


def run_stage(
    context: RequestContext, stage: str, size_bytes: int, work: Callable[P, T], *args: P.args, **more: P.kwargs
) -> T:
    """`work(*args)`, timed as that stage; in a native thread when `size_bytes` is past `predict.in_thread_above_bytes`.

    Probes and small requests do not wait for large bodies and answers then. The work touches neither request nor log.
    Raises what the work raises, DeadlineExceeded when a thread is not free in time.
    """
    extensions, current, started_s = context.extensions, context.trace, now_s()
    if size_bytes <= extensions.settings.predict.in_thread_above_bytes:
        done = work(*args, **more)
    else:
        done = extensions.codec_offload.call(partial(work, *args, **more), current.deadline_at_s)
    current.stages[stage] = now_s() - started_s
    return done


def predict(
    context: RequestContext, servable: Servable, decoded: PredictionRequest, limits: RequestLimits
) -> PredictionResult:
    """What the model says to the table.

    Raises RequestRejected, Overloaded, DeadlineExceeded, ClientClosedRequest, InferenceFailed, NotFinite or
    ModelNotReady.
    """
    extensions, current, table = context.extensions, context.trace, decoded.table
    current.rows = table.rows
    outputs = servable.outputs(decoded.outputs)
    if decoded.timeout_s < math.inf:
        current.deadline_at_s = min(current.deadline_at_s, current.started_s + decoded.timeout_s)
        budget_s = current.deadline_at_s - current.started_s
        limits = replace(limits, deadline_at_s=current.deadline_at_s, budget_s=budget_s)
    prediction = servable.predict(table, outputs, extensions.predict_offload, limits)
    current.stages["queue"] = prediction.queue_s
    current.stages["cache" if prediction.cached else "predict"] = prediction.predict_s
    one_in = 0 if prediction.cached else extensions.settings.predict.verify_one_in
    verification.maybe_verify(
        servable, table, outputs, prediction.arrays, one_in, extensions.predict_offload, extensions.metrics
    )
    found = [(output, prediction.arrays[output.name]) for output in outputs]
    _check_finite(found, context)
    return PredictionResult(found, table.rows)


def _check_finite(outputs: Sequence[tuple[Output, Array]], context: RequestContext) -> None:
    lost = 0
    for _, array in outputs:
        if array.dtype.kind == "f":
            finite = np.isfinite(array)
            lost += 0 if finite.all() else int(finite.size - np.count_nonzero(finite))
    if lost:
        extensions, current = context.extensions, context.trace
        extensions.metrics.not_finite.labels(current.model, current.version).inc(lost)
        if extensions.settings.predict.not_finite == "error":
            raise NotFinite
