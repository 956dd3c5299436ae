"""What a prediction handler is given: stages, headers, the query, and the gauge of requests in flight."""

from __future__ import annotations

import json
import threading

import pytest
from flask import Flask

from tableside.errors import DeadlineExceeded, RequestRejected
from tableside.telemetry import metrics
from tableside.telemetry.metrics import Metrics
from tableside.telemetry.request_metrics import RequestMetrics
from tableside.telemetry.request_trace import RequestTrace
from tableside.web.dispatch import call_handler
from tableside.web.extensions import EXTENSION_KEY
from tableside.web.predictions import run_stage
from tableside.web.request import RequestContext
from tableside.web.response import Reply
from tests.conftest import MakeApp


@pytest.fixture
def context(make_app: MakeApp) -> RequestContext:
    app = make_app(load=False, predict__in_thread_above_bytes="100")
    return RequestContext({}, app.extensions[EXTENSION_KEY], RequestTrace("id", 0.0))


@pytest.mark.parametrize(("size_bytes", "in_thread"), [(0, False), (100, False), (101, True)])
def test_large_work_runs_in_another_thread(context: RequestContext, size_bytes: int, in_thread: bool) -> None:
    """Work above `predict.in_thread_above_bytes` runs in a native thread; its time is noted as its stage."""
    here = threading.get_ident()
    ident = run_stage(context, "decode", size_bytes, threading.get_ident)
    assert (ident != here) is in_thread
    assert set(context.trace.stages) == {"decode"}
    assert context.trace.stages["decode"] >= 0.0


@pytest.mark.parametrize("size_bytes", [0, 101])
def test_a_stage_raises_what_its_work_raises(context: RequestContext, size_bytes: int) -> None:
    """An error of the work is raised on, from both kinds of thread, and the stage has no time."""
    with pytest.raises(json.JSONDecodeError):
        run_stage(context, "decode", size_bytes, json.loads, "{")
    assert context.trace.stages == {}


def test_a_stage_past_the_deadline_is_not_started(context: RequestContext) -> None:
    """Work whose deadline has passed before a thread is free raises DeadlineExceeded and never runs."""
    ran: list[int] = []
    context.trace.deadline_at_s = 0.0
    with pytest.raises(DeadlineExceeded):
        run_stage(context, "decode", 101, ran.append, 1)
    assert ran == []


def test_a_context_reads_headers_and_the_query(app: Flask) -> None:
    """A header that was not sent is empty, and a request without a query string has no parameters."""
    extensions, trace = app.extensions[EXTENSION_KEY], RequestTrace("id", 0.0)
    bare = RequestContext({}, extensions, trace)
    assert (bare.header("HTTP_ACCEPT"), dict(bare.query())) == ("", {})
    full = RequestContext({"HTTP_ACCEPT": "text/csv", "QUERY_STRING": "output=a%20b"}, extensions, trace)
    assert (full.header("HTTP_ACCEPT"), dict(full.query())) == ("text/csv", {"output": "a b"})


def in_flight_value(made: Metrics) -> float | None:
    return made.registry.get_sample_value("tableside_requests_in_flight", {"model": "iris"})


@pytest.mark.parametrize("error", [None, KeyError("x"), RequestRejected("bad")])
def test_a_request_is_in_flight_until_its_handler_returns(app: Flask, error: Exception | None) -> None:
    """The count is back at zero after the handler has returned or raised; what it raised is raised on."""
    made = metrics.make()
    in_flight = RequestMetrics(made, None).in_flight("iris")
    found: list[float | None] = []
    context = RequestContext({}, app.extensions[EXTENSION_KEY], RequestTrace("id", 0.0))

    def handler(context: RequestContext, name: str) -> Reply:
        context.enter(in_flight)
        found.append(in_flight_value(made))
        if error is not None:
            raise error
        return Reply(name.encode())

    if error is None:
        assert call_handler(handler, context, {"name": "x"}).body == b"x"
    else:
        with pytest.raises(type(error)):
            call_handler(handler, context, {"name": "x"})
    context.leave()  # a second call changes nothing
    assert [*found, in_flight_value(made)] == [1.0, 0.0]
