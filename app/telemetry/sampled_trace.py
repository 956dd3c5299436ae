"""The trace of a request whose spans are exported: with ids, and with the moments at which its stages ended."""

from __future__ import annotations

import time

import msgspec

from tableside.telemetry.request_trace import RequestTrace
from tableside.telemetry.trace_context import TraceContext


class TimedStages(dict[str, float]):
    """Seconds spent in each stage. noted_at_s: when each was noted, in seconds of the monotonic clock."""

    def __init__(self) -> None:
        super().__init__()
        self.noted_at_s: dict[str, float] = {}

    def __setitem__(self, stage: str, spent_s: float) -> None:
        """Note a stage that ends now."""
        self.noted_at_s[stage] = time.monotonic()
        super().__setitem__(stage, spent_s)


class SampledTrace(RequestTrace, kw_only=True):
    """What is known about one request that is traced."""

    context: TraceContext
    stages: TimedStages = msgspec.field(default_factory=TimedStages)

    def served(self) -> list[tuple[str, str]]:
        """Return the headers that say what has answered, and the ids of the span."""
        return [self.context.response_header(), *RequestTrace.served(self)]
