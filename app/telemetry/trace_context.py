"""W3C Trace Context: which requests are traced, and under which ids.

https://www.w3.org/TR/trace-context/. The headers are read with OpenTelemetry's own propagator. Only what most requests
send, a valid header that asks for no trace, is recognized before, because the propagator takes 10 us.
"""

from __future__ import annotations

import logging
import random
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from opentelemetry.propagators.textmap import Getter
from opentelemetry.trace import SpanContext, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

PARENT, STATE = "HTTP_TRACEPARENT", "HTTP_TRACESTATE"
"""The WSGI keys of the two request headers."""
RESPONSE_HEADER = "traceresponse"
"""Response header with the ids of the server's span, in the form of `traceparent` (W3C, Trace Context HTTP Response
Headers Format, a draft)."""
_NOT_SAMPLED = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f][02468ace]\Z")
"""A valid `traceparent` whose flag `sampled` is not set."""

# Clients choose the headers: their mistakes must not fill the log.
logging.getLogger("opentelemetry").setLevel(logging.ERROR)


class TraceContext(NamedTuple):
    """The ids of one traced request. parent_id: the caller's span; 0 if the trace begins here.

    state: the caller's `tracestate`, as it was valid; empty if there is none.
    """

    trace_id: int
    span_id: int
    parent_id: int = 0
    state: str = ""

    def response_header(self) -> tuple[str, str]:
        """Return the header of the answer."""
        return RESPONSE_HEADER, f"00-{self.trace_id:032x}-{self.span_id:016x}-01"


class _Headers(Getter[Mapping[str, Any]]):
    """Reads headers from a WSGI environ."""

    def get(self, carrier: Mapping[str, Any], key: str) -> list[str] | None:
        value = carrier.get(PARENT if key == "traceparent" else STATE)
        return None if value is None else [str(value)]

    def keys(self, carrier: Mapping[str, Any]) -> list[str]:
        return [key for key in (PARENT, STATE) if key in carrier]


_HEADERS = _Headers()
_propagator = TraceContextTextMapPropagator()


def caller_of(environ: Mapping[str, Any]) -> SpanContext | None:
    """Return the context that the request's headers state; None without a valid `traceparent`."""
    found = get_current_span(_propagator.extract(environ, getter=_HEADERS)).get_span_context()
    return found if found.is_valid else None


class Sampler:
    """Decides by the caller's flag, and for a request without a valid `traceparent` by chance.

    ratio: the share of the latter that is traced. is_excluded: whether a path is never traced by chance.
    """

    def __init__(self, ratio: float, is_excluded: Callable[[str], bool]) -> None:
        self._ratio = ratio
        self._is_excluded = is_excluded

    def context_of(self, environ: Mapping[str, Any]) -> TraceContext | None:
        """Return the ids under which a request is traced; None if it is not."""
        header = environ.get(PARENT)
        if header is not None:
            if _NOT_SAMPLED.match(header):
                return None
            caller = caller_of(environ)
            if caller is not None:
                if not caller.trace_flags.sampled:
                    return None
                return TraceContext(caller.trace_id, new_span_id(), caller.span_id, caller.trace_state.to_header())
        if random.random() >= self._ratio or self._is_excluded(environ["PATH_INFO"]):  # noqa: S311 - no secret
            return None
        return TraceContext(random.getrandbits(128) or 1, new_span_id())


def new_span_id() -> int:
    """Return a random id; never 0, which is no valid one."""
    return random.getrandbits(64) or 1
