"""The steps that the prediction views of all protocols share: admit, decode, predict, encode.

A view finds its servable, reads the body, and calls the steps in this order.
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

from tableside.batching.admission import waited_too_long
from tableside.batching.limits import RequestLimits
from tableside.contracts.array_type import Array
from tableside.contracts.schema import Output
from tableside.contracts.table import Table
from tableside.errors import AnswerTooLarge, DeadlineExceeded, NotFinite
from tableside.serving import verification
from tableside.serving.servable import Servable
from tableside.web import deadlines, input_anomalies, request_guard
from tableside.web.request import RequestContext

CELL_BYTES = 12
"""The length of a typical number in a JSON answer."""

P = ParamSpec("P")
T = TypeVar("T")


class PredictionRequest(msgspec.Struct, frozen=True):
    """A decoded body.

    outputs: names of the requested outputs; empty means the default output. timeout_s: the budget that the body sets.
    """

    table: Table
    outputs: Sequence[str] = ()
    timeout_s: float = math.inf


class PredictionResult(msgspec.Struct, frozen=True):
    """The answer. outputs: in the requested order, each with its array, whose first dimension is `rows`. The ids of the
    rows, if the request had them, are the last output, so that every answer format has them.

    size_bytes: its approximate length as JSON.
    """

    outputs: Sequence[tuple[Output, Array]]
    rows: int
    size_bytes: int


def answer_bytes(outputs: Sequence[Output], rows: int) -> int:
    """The approximate length of an answer as JSON."""
    width = 0
    for output in outputs:
        width += output.width
    return width * rows * CELL_BYTES


def admit(context: RequestContext, servable: Servable, protocol: str, body_bytes: int) -> RequestLimits:
    """Admit the request before its body is decoded; from here on it counts in the servable's metrics and as in flight.

    Returns the request's limits. Raises RequestRejected for a deadline header that is not valid, and Overloaded when
    the servable's queue has no room, and as `request_guard.hold` does for a request that has ended workers.
    """
    extensions, trace = context.extensions, context.trace
    trace.serves(servable.name, servable.version, protocol)
    budget_s = extensions.settings.server.request_timeout_s
    trace.deadline_at_s = deadlines.at_s(context.environ, trace.started_s, budget_s)
    # The estimate of a call's cost comes from its number of rows. It does not see one very long text, so a large body
    # is always predicted in a native thread.
    may_inline = body_bytes <= extensions.settings.predict.in_thread_above_bytes
    held = request_guard.hold(context, servable.name, servable.version)
    # A request that runs alone may hang, so that it does not run on the event loop.
    limits = RequestLimits(
        trace.deadline_at_s, trace.deadline_at_s - trace.started_s, trace.waited_s, may_inline and not held.alone,
        context.environ.get("gunicorn.socket"), held, trace.generation,
    )  # fmt: skip
    servable.check_room(limits)
    context.enter(extensions.request_metrics.in_flight(trace.model))
    return limits


def run_stage(
    context: RequestContext, stage: str, size_bytes: int, work: Callable[P, T], *args: P.args, **more: P.kwargs
) -> T:
    """Call `work(*args)` and note its time as that stage.

    Above `predict.in_thread_above_bytes` the work runs in a native thread, so that a large body or answer does not
    delay probes and small requests. The work must not use the Flask request or the log. Raises what the work raises,
    and DeadlineExceeded when no thread is free in time. When the deadline has passed before the body is decoded, raises
    DeadlineExceeded too, or WaitedTooLong if the time passed outside of this process.
    """
    extensions, trace, started_s = context.extensions, context.trace, now_s()
    if stage == "decode" and started_s >= trace.deadline_at_s:  # nobody waits for the answer any more
        budget_s = trace.deadline_at_s - trace.started_s
        if 0 < budget_s <= trace.waited_s:
            raise waited_too_long(trace.waited_s, 0.0)
        raise DeadlineExceeded(budget_s)
    if size_bytes <= extensions.settings.predict.in_thread_above_bytes:
        result = work(*args, **more)
    else:
        result = extensions.codec_offload.call(partial(work, *args, **more), trace.deadline_at_s)
    trace.stages[stage] = now_s() - started_s
    return result


def predict(
    context: RequestContext, servable: Servable, decoded: PredictionRequest, limits: RequestLimits
) -> PredictionResult:
    """Run the model on the decoded table.

    Raises RequestRejected, AnswerTooLarge, Overloaded, DeadlineExceeded, ClientClosedRequest, InferenceFailed,
    ModelNotReady, and NotFinite when `predict.not_finite` is `error`.
    """
    extensions, trace, table = context.extensions, context.trace, decoded.table
    trace.rows = table.rows
    if table.anomalies:
        trace.anomalies = input_anomalies.by_label(table)
    ids, outputs = table.ids, _asked(servable, decoded)
    size_bytes = _check_answer(outputs, table, extensions.settings.server.max_answer_bytes)
    limits = _shorten(context, decoded.timeout_s, limits)
    prediction = servable.predict(table, outputs, extensions.predict_offload, limits)
    trace.stages["queue"] = prediction.queue_s
    trace.stages["cache" if prediction.cached else "predict"] = prediction.predict_s
    one_in = 0 if prediction.cached else extensions.settings.predict.verify_one_in
    verification.maybe_verify(
        servable, table, outputs, prediction.arrays, one_in, extensions.predict_offload, extensions.metrics
    )
    if trace.watch is not None and servable.traffic is not None:
        trace.sample = servable.traffic.sample(servable, table, outputs, prediction)
    arrays = [(output, prediction.arrays[output.name]) for output in outputs]
    _check_finite(arrays, context)
    if ids is not None:
        arrays.append((ids.output, ids.cells))
        if servable.policy.log_ids:
            trace.row_ids = ids.first()
    return PredictionResult(arrays, table.rows, size_bytes)


def _asked(servable: Servable, decoded: PredictionRequest) -> tuple[Output, ...]:
    """The outputs that the model computes. A request may name the id column among them, which comes back anyway."""
    ids = decoded.table.ids
    return servable.outputs(decoded.outputs if ids is None else [name for name in decoded.outputs if name != ids.name])


def answered(servable: Servable, decoded: PredictionRequest) -> tuple[Output, ...]:
    """Return all outputs that the answer will have: those of the model, and the ids of the rows.

    Raises RequestRejected for an output that the model does not have.
    """
    ids = decoded.table.ids
    return _asked(servable, decoded) if ids is None else (*_asked(servable, decoded), ids.output)


def _check_answer(outputs: Sequence[Output], table: Table, limit_bytes: int) -> int:
    size_bytes = answer_bytes(outputs, table.rows)
    if table.ids is not None:
        size_bytes += table.ids.size_bytes
    if size_bytes > limit_bytes:
        raise AnswerTooLarge(size_bytes, limit_bytes)
    return size_bytes


def _shorten(context: RequestContext, timeout_s: float, limits: RequestLimits) -> RequestLimits:
    if timeout_s == math.inf:
        return limits
    trace = context.trace
    trace.deadline_at_s = min(trace.deadline_at_s, trace.started_s + timeout_s)
    return replace(limits, deadline_at_s=trace.deadline_at_s, budget_s=trace.deadline_at_s - trace.started_s)


def _check_finite(outputs: Sequence[tuple[Output, Array]], context: RequestContext) -> None:
    not_finite = 0
    for _, array in outputs:
        if array.dtype.kind == "f":
            finite = np.isfinite(array)
            not_finite += 0 if finite.all() else int(finite.size - np.count_nonzero(finite))
    if not_finite:
        extensions, trace = context.extensions, context.trace
        extensions.metrics.not_finite.labels(trace.model, trace.version).inc(not_finite)
        if extensions.settings.predict.not_finite == "error":
            raise NotFinite
