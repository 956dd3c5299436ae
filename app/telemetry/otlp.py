"""Spans as a message of OTLP, the protocol of OpenTelemetry, and what a receiver's answer says.

https://opentelemetry.io/docs/specs/otlp/. The messages are OpenTelemetry's own (opentelemetry-proto).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.trace.v1 import trace_pb2

from tableside import __version__
from tableside.telemetry.spans import Attributes, Span, TracedRequest

PATH = "/v1/traces"
"""What follows the base URL of a receiver."""
CONTENT_TYPE = "application/x-protobuf"
_SCOPE = InstrumentationScope(name="tableside", version=__version__)
_PAUSE_EVERY = 8
"""After so many requests other greenlets run: 0.2 ms pass until then."""
_LOCAL = trace_pb2.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK | 1
_REMOTE = _LOCAL | trace_pb2.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK


class Rejected(NamedTuple):
    """What a receiver says of spans that it did not take, although it answered 200."""

    spans: int
    message: str


def encode(resource: Mapping[str, str | int], requests: Iterable[TracedRequest]) -> bytes:
    """Return an ExportTraceServiceRequest. resource: the attributes of what has made the spans.

    Other threads, or greenlets, run in between.
    """
    message = ExportTraceServiceRequest()
    group = message.resource_spans.add()  # built in place: each copy of a message takes as long as making it
    _add_attributes(group.resource.attributes, resource)
    scope = group.scope_spans.add(scope=_SCOPE)
    for at, request in enumerate(requests, 1):
        trace_id = request.trace_id.to_bytes(16)
        for span in request.spans:
            _add_span(scope.spans, trace_id, request.state, span)
        if at % _PAUSE_EVERY == 0:
            time.sleep(0)
    return bytes(message.SerializeToString())


def rejected(answer: bytes) -> Rejected:
    """Return how many spans a receiver rejected, by the body of its answer 200."""
    try:
        partial = ExportTraceServiceResponse.FromString(answer).partial_success
    except DecodeError:
        return Rejected(0, "")
    return Rejected(max(0, partial.rejected_spans), partial.error_message)


def _add_span(found: Any, trace_id: bytes, state: str, span: Span) -> None:
    made = found.add(
        trace_id=trace_id,
        span_id=span.span_id.to_bytes(8),
        flags=_REMOTE if span.is_server and span.parent_id else _LOCAL,
        name=span.name,
        kind=trace_pb2.Span.SPAN_KIND_SERVER if span.is_server else trace_pb2.Span.SPAN_KIND_INTERNAL,
        start_time_unix_nano=span.start_ns,
        end_time_unix_nano=span.end_ns,
    )
    if span.parent_id:
        made.parent_span_id = span.parent_id.to_bytes(8)
    if state:
        made.trace_state = state
    if span.is_error:
        made.status.code = trace_pb2.Status.STATUS_CODE_ERROR
    _add_attributes(made.attributes, span.attributes)


def _add_attributes(found: Any, values: Attributes) -> None:
    for key, value in values.items():
        made = found.add(key=key).value
        if isinstance(value, bool):
            made.bool_value = value
        elif isinstance(value, int):
            made.int_value = value
        elif isinstance(value, float):
            made.double_value = value
        else:
            made.string_value = value
