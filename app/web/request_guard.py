"""Admits a request unless it has ended workers before, and records it as in hand.

docs/decisions/0019-requests-that-end-a-worker.md has the reasons.
"""

from __future__ import annotations

import time
from functools import partial

from tableside.errors import ModelNotReady
from tableside.process import settling
from tableside.process.suspects import Suspect
from tableside.process.worker_hand import Held, WorkerHand
from tableside.quarantine_errors import ModelQuarantined, RequestQuarantined, WorkersLost
from tableside.telemetry import logs
from tableside.web.request import RequestContext

log = logs.get_logger("quarantine")


def hold(context: RequestContext, model: str, version: int) -> Held:
    """Record the request as in hand until the context ends it. Waits if it, or another one, has to run alone.

    The trace of the context must have the deadline. Raises ModelQuarantined, RequestQuarantined, WorkersLost, and
    ModelNotReady if the request has to run alone and other requests did not end in time.
    """
    extensions, trace, label = context.extensions, context.trace, f"{model}/{version}"
    hand, held = extensions.hand, None
    if len(context.raw) <= extensions.settings.predict.in_thread_above_bytes:
        held = hand.begin(context.environ["PATH_INFO"], context.raw, trace.request_id, label, trace.waited_s)
    if held is None:
        digest, is_alone = _looked_up(context, hand, model)
        held = hand.hold(digest, trace.request_id, label, is_alone, trace.deadline_at_s)
    if held is None:
        raise ModelNotReady("a worker died while it computed this request, and none was free in time to try it alone")
    context.held = held
    return held


def _looked_up(context: RequestContext, hand: WorkerHand, model: str) -> tuple[bytes, bool]:
    """Return the digest of a request, and whether it has to run alone. Raises as `hold` does."""
    trace = context.trace
    if stopped := hand.stopped(model):
        context.extensions.metrics.quarantined.labels(trace.model, trace.version).inc()
        raise ModelQuarantined(model, _seconds_until(stopped.until_s))
    digest = _digest(context, hand)
    suspect = hand.look_up(digest, trace.request_id, trace.waited_s)
    if hand.settled:
        _log_deaths(hand)
    if suspect is not None and suspect.is_quarantined:
        context.extensions.metrics.quarantined.labels(trace.model, trace.version).inc()
        raise _refusal(suspect, trace.request_id)
    return digest, suspect is not None


def _digest(context: RequestContext, hand: WorkerHand) -> bytes:
    """A large body is digested in a native thread: a second passes for each gigabyte."""
    extensions, path = context.extensions, context.environ["PATH_INFO"]
    if len(context.raw) <= extensions.settings.predict.in_thread_above_bytes:
        return hand.digest(path, context.raw)
    return extensions.codec_offload.call(partial(hand.digest, path, context.raw), context.trace.deadline_at_s)


def _refusal(suspect: Suspect, request_id: str) -> Exception:
    if suspect.request_id == request_id[:48]:
        return WorkersLost(request_id)
    return RequestQuarantined(_seconds_until(suspect.until_s))


def _seconds_until(until_s: float) -> int:
    return max(1, int(until_s - time.time()))


def _log_deaths(hand: WorkerHand) -> None:
    settled, hand.settled = hand.settled, []
    for death in settled:
        for line in settling.lines(death):
            log.error("worker_died", reason=line)
