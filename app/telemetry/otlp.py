"""Spans as a message of OTLP, the protocol of OpenTelemetry, and what a receiver's answer says.

https://opentelemetry.io/docs/specs/otlp/. The messages are OpenTelemetry's own (opentelemetry-proto).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1 import trace_pb2

from tableside import __version__
from tableside.telemetry.spans import Attributes, Span, TracedRequest

PATH = "/v1/traces"
"""What follows the base URL of a receiver."""
CONTENT_TYPE = "application/x-protobuf"
_SCOPE = InstrumentationScope(name="tableside", version=__version__)
_LOCAL = trace_pb2.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK | 1
_REMOTE = _LOCAL | trace_pb2.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK


class Rejected(NamedTuple):
    """What a receiver says of spans that it did not take, although it answered 200."""

    spans: int
    message: str


def encode(resource: Mapping[str, str | int], requests: Iterable[TracedRequest]) -> bytes:
    """Return an ExportTraceServiceRequest. resource: the attributes of what has made the spans."""
    found: list[trace_pb2.Span] = []
    for request in requests:
        trace_id = request.trace_id.to_bytes(16)
        found.extend(_span(trace_id, request.state, span) for span in request.spans)
    scope = trace_pb2.ScopeSpans(scope=_SCOPE, spans=found)
    spans = trace_pb2.ResourceSpans(resource=Resource(attributes=_attributes(resource)), scope_spans=[scope])
    return bytes(ExportTraceServiceRequest(resource_spans=[spans]).SerializeToString())


def rejected(answer: bytes) -> Rejected:
    """Return how many spans a receiver rejected, by the body of its answer 200."""
    try:
        partial = ExportTraceServiceResponse.FromString(answer).partial_success
    except DecodeError:
        return Rejected(0, "")
    return Rejected(max(0, partial.rejected_spans), partial.error_message)


def _span(trace_id: bytes, state: str, span: Span) -> trace_pb2.Span:
    made = trace_pb2.Span(
        trace_id=trace_id,
        span_id=span.span_id.to_bytes(8),
        parent_span_id=span.parent_id.to_bytes(8) if span.parent_id else b"",
        trace_state=state,
        flags=_REMOTE if span.is_server and span.parent_id else _LOCAL,
        name=span.name,
        kind=trace_pb2.Span.SPAN_KIND_SERVER if span.is_server else trace_pb2.Span.SPAN_KIND_INTERNAL,
        start_time_unix_nano=span.start_ns,
        end_time_unix_nano=span.end_ns,
        attributes=_attributes(span.attributes),
    )
    if span.is_error:
        made.status.code = trace_pb2.Status.STATUS_CODE_ERROR
    return made


def _attributes(values: Attributes) -> list[KeyValue]:
    return [KeyValue(key=key, value=_value(value)) for key, value in values.items()]


def _value(value: str | int | float | bool) -> AnyValue:
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    if isinstance(value, float):
        return AnyValue(double_value=value)
    return AnyValue(string_value=value)
