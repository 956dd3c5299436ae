"""Spans are made from the times that a request has recorded."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tableside.telemetry import otlp, spans
from tableside.telemetry.sampled_trace import SampledTrace
from tableside.telemetry.trace_context import TraceContext
from tests.span_receiver import SpanReceiver

EPOCH_S = 1_800_000_000.0
BASE: dict[str, Any] = {
    "method": "POST", "path": "/v1/models/iris:predict", "route": "/v1/models/{name}:predict", "scheme": "http",
    "status": 200, "seconds": 1.0,
}  # fmt: skip


def trace(stages: dict[str, tuple[float, float]], **more: Any) -> SampledTrace:
    """A trace that began at 100. stages: the seconds of each, and the moment at which they were noted."""
    made = SampledTrace("id-1", 100.0, context=TraceContext(7, 8, 9, "a=b"), **more)
    for stage, (spent_s, noted_s) in stages.items():
        made.stages[stage] = spent_s
        made.stages.noted_at_s[stage] = noted_s
    return made


def answer(**more: Any) -> spans.Answer:
    return spans.Answer(**{**BASE, **more})


def test_a_stage_is_noted_when_it_ends() -> None:
    """The plain dictionary of stages gets the moments as well."""
    made = SampledTrace("id-1", 0.0, context=TraceContext(1, 2))
    before_s = time.monotonic()
    made.stages["decode"] = 0.5
    assert made.stages == {"decode": 0.5}
    assert before_s <= made.stages.noted_at_s["decode"] <= time.monotonic()


def test_stages_follow_each_other() -> None:
    """Queue and call begin where decode ended; what they waited for the event loop afterwards is nobody's time."""
    made = trace({"decode": (0.1, 100.2), "queue": (0.3, 100.8), "predict": (0.1, 100.8), "encode": (0.05, 100.9)})
    assert spans.stage_times(made, 101.0) == [
        ("decode", pytest.approx(100.1), pytest.approx(100.2)),
        ("queue", pytest.approx(100.2), pytest.approx(100.5)),
        ("predict", pytest.approx(100.5), pytest.approx(100.6)),
        ("encode", pytest.approx(100.85), pytest.approx(100.9)),
    ]


def test_no_stage_leaves_the_request() -> None:
    """Clocks and durations are measured one after the other: a stage is cut at the request's begin and end."""
    made = trace({"decode": (5.0, 100.2), "queue": (0.0, 100.3), "predict": (9.0, 100.3), "encode": (0.1, 103.0)})
    for _, start_s, end_s in spans.stage_times(made, 101.0):
        assert 100.0 <= start_s <= end_s <= 101.0


def test_the_wait_for_a_worker_is_a_span_if_it_is_long() -> None:
    """nginx states its times in milliseconds, so that a shorter one says nothing."""
    assert spans.stage_times(trace({}, waited_s=0.001), 101.0) == []
    assert spans.stage_times(trace({}, waited_s=0.25), 101.0) == [("accept", 100.0, 100.25)]


def received(made: SampledTrace, **more: Any) -> SpanReceiver:
    """What a receiver decodes."""
    receiver = SpanReceiver()
    request = spans.of_request(made, answer(**more), EPOCH_S)
    receiver.take(otlp.encode({"service.name": "tableside", "process.pid": 5}, [request]), {})
    return receiver


def test_the_servers_span_holds_the_stages() -> None:
    """It is the caller's child, and the stages are its own; ids, state, times and attributes arrive."""
    made = trace({"decode": (0.1, 100.2)})
    made.serves("iris", 3, "v1")
    made.rows, made.generation = 2, 4
    server, decode = received(made).spans
    assert (server.trace, server.span, server.parent) == (f"{7:032x}", f"{8:016x}", f"{9:016x}")
    assert (decode.trace, decode.parent, decode.kind) == (server.trace, server.span, 1)
    assert (server.name, server.kind, server.state, server.scope) == (
        "POST /v1/models/{name}:predict", 2, "a=b", "tableside",
    )  # fmt: skip
    assert (server.start_ns, server.end_ns) == (1_800_000_100_000_000_000, 1_800_000_101_000_000_000)
    assert server.start_ns < decode.start_ns < decode.end_ns < server.end_ns
    assert server.attributes == {
        "http.request.method": "POST", "url.path": "/v1/models/iris:predict", "url.scheme": "http",
        "http.route": "/v1/models/{name}:predict", "http.response.status_code": 200, "tableside.request_id": "id-1",
        "tableside.model": "iris", "tableside.version": "3", "tableside.generation": 4, "tableside.protocol": "v1",
        "tableside.rows": 2,
    }  # fmt: skip
    assert server.resource == {"service.name": "tableside", "process.pid": 5}


@pytest.mark.parametrize(("status", "is_error"), [(200, False), (404, False), (429, False), (499, False), (503, True)])
def test_only_the_servers_own_failures_are_errors(status: int, is_error: bool) -> None:
    """HTTP's conventions for servers leave the status of a span unset below 500."""
    (server,) = received(trace({}, error="ModelNotReady"), status=status).spans
    assert server.is_error is is_error
    assert server.attributes.get("error.type") == ("ModelNotReady" if is_error else None)


def test_what_clients_choose_makes_no_new_names() -> None:
    """An unknown method and a path without a rule are no part of a span's name, and the path is cut and escaped."""
    (server,) = received(trace({}), method="BREW", route="", path="/" + "\n" * 400).spans
    assert server.name == "HTTP"
    assert server.attributes["http.request.method"] == "_OTHER"
    assert "\n" not in server.attributes["url.path"]
    assert "http.route" not in server.attributes


def test_an_answer_that_is_no_message_is_no_rejection() -> None:
    """Receivers may answer 200 with any body."""
    assert otlp.rejected(b"") == (0, "")
    assert otlp.rejected(b"<html>") == (0, "")
