"""The real stack sends its spans to a receiver of OTLP that decodes OpenTelemetry's own messages, ends and comes back.

With TABLESIDE_TEST_COLLECTOR a real collector stands between the two.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from benchmarks.free_ports import free_port
from tests.e2e.conftest import Stack, until
from tests.span_receiver import Received, SpanReceiver, receiving

pytestmark = pytest.mark.e2e

IRIS, GOOD = "/v1/models/iris:predict", {"instances": [[5.1, 3.5, 1.4, 0.2]]}
SPAN = "00f067aa0ba902b7"
STAGES = ["decode", "queue", "predict", "encode"]


class Collector:
    """What the stack sends its spans to, on a port of 127.0.0.1: the tests' receiver, or a program before it.

    TABLESIDE_TEST_COLLECTOR names the program: `rotel-agent`, which the wheel of Rotel has in its folder.
    """

    def __init__(self, receiver: SpanReceiver, folder: Path) -> None:
        self._program = os.environ.get("TABLESIDE_TEST_COLLECTOR", "")
        self._receiver = receiver
        self._folder = folder
        self._port, self._grpc_port = free_port(), free_port()
        self._running = ExitStack()
        self._behind = ExitStack()
        if self._program:
            self._behind.enter_context(receiving(receiver=receiver))
        self.url = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        if not self._program:
            self._running.enter_context(receiving(self._port, self._receiver))
            return
        options = {
            "otlp-http-endpoint": f"127.0.0.1:{self._port}", "otlp-grpc-endpoint": f"127.0.0.1:{self._grpc_port}",
            "exporter": "otlp", "otlp-exporter-endpoint": self._receiver.url, "otlp-exporter-protocol": "http",
            "pid-file": str(self._folder / "rotel.pid"), "log-file": str(self._folder / "rotel.log"),
        }  # fmt: skip
        command = [self._program, "start", *(f"--{name}={value}" for name, value in options.items())]
        with (self._folder / "rotel.out").open("ab") as out:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        self._running.callback(process.wait)
        self._running.callback(process.kill)

    def kill(self) -> None:
        """End it: connections to it are refused until it is started again."""
        self._running.close()

    def close(self) -> None:
        self.kill()
        self._behind.close()


@pytest.fixture(scope="module")
def receiver() -> SpanReceiver:
    return SpanReceiver()


@pytest.fixture(scope="module")
def collector(receiver: SpanReceiver, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    made = Collector(receiver, tmp_path_factory.mktemp("collector"))
    made.start()
    yield made
    made.close()


@pytest.fixture(scope="module")
def stack(make_stack: Callable[..., Stack], collector: Collector) -> Iterator[Stack]:
    started = make_stack(
        TABLESIDE__TRACING__ENDPOINT=collector.url, TABLESIDE__TRACING__SAMPLE_RATIO="1",
        TABLESIDE__TRACING__SERVICE_NAME="models",
        TABLESIDE__TRACING__RESOURCE_ATTRIBUTES="deployment.environment.name=test",
    )  # fmt: skip
    yield started
    started.stop()


def headers(trace: int, flags: str = "01") -> dict[str, str]:
    return {"traceparent": f"00-{trace:032x}-{SPAN}-{flags}", "tracestate": "congo=t61"}


def arrived(receiver: SpanReceiver, trace: int, spans: int = 5) -> list[Received]:
    """The spans of a trace, as soon as so many have arrived: all of a request are in one message."""
    until(lambda: len(receiver.of_trace(f"{trace:032x}")) >= spans)
    return receiver.of_trace(f"{trace:032x}")


def names(stages: list[Received]) -> list[str]:
    """The stages' names. A busy machine lets requests wait for a worker, which is a span more."""
    return [span.name for span in stages if span.name != "accept"]


def test_a_request_is_one_trace_through_all_of_it(stack: Stack, receiver: SpanReceiver) -> None:
    """nginx passes the caller's ids on; the spans lie within the caller's own time, and the log line names them."""
    before_ns = time.time_ns()
    status, _, answer = stack.call(IRIS, GOOD, headers=headers(1))
    after_ns = time.time_ns()
    assert status == 200
    server, *stages = arrived(receiver, 1)
    assert names(stages) == STAGES
    assert (server.name, server.parent, server.state) == ("POST /v1/models/{name}:predict", SPAN, "congo=t61")
    assert {span.parent for span in stages} == {server.span}
    edges = [server.start_ns, *(edge for span in stages for edge in (span.start_ns, span.end_ns)), server.end_ns]
    assert edges == sorted(edges)
    a_millisecond = 1_000_000  # nginx's clock has no more digits
    assert before_ns - a_millisecond <= server.start_ns < server.end_ns <= after_ns
    assert answer["traceresponse"] == f"00-{1:032x}-{server.span}-01"
    assert server.attributes["tableside.request_id"] == answer["X-Request-ID"]
    assert (server.resource["service.name"], server.resource["deployment.environment.name"]) == ("models", "test")
    assert server.resource["service.instance.id"].split(":")[1:] in ([str(stack.run_dir), slot] for slot in "01")

    def line() -> Any:
        lines = (stack.run_dir / "log" / "web.log").read_text().splitlines()
        return next((json.loads(each) for each in lines if f'"trace_id":"{1:032x}"' in each), None)

    assert until(line)["span_id"] == server.span


def test_a_large_answer_names_its_span(stack: Stack, receiver: SpanReceiver) -> None:
    """nginx sends it from a file, with the worker's header; body and answer pass through native threads."""
    rows = 40_000
    status, content, answer = stack.call(IRIS, {"instances": GOOD["instances"] * rows}, headers=headers(10))
    assert (status, len(content["predictions"])) == (200, rows)
    server, *stages = arrived(receiver, 10)
    assert names(stages) == STAGES
    assert server.attributes["tableside.rows"] == rows
    assert answer["traceresponse"] == f"00-{10:032x}-{server.span}-01"


def test_the_caller_and_chance_decide(stack: Stack, receiver: SpanReceiver) -> None:
    """A caller that is not sampled is followed although the ratio is 1; invalid and missing headers begin traces."""
    _, _, unsampled = stack.call(IRIS, GOOD, headers=headers(20, "00"))
    assert "traceresponse" not in unsampled
    begun = []
    for sent in ({}, {"traceparent": f"00-{21:032x}-{'0' * 16}-01"}, {"traceparent": "nonsense"}):
        _, _, answer = stack.call(IRIS, GOOD, headers=sent)
        begun.append(int(answer["traceresponse"].split("-")[1], 16))
    assert 21 not in begun
    for trace in begun:
        assert arrived(receiver, trace)[0].parent == ""
    assert receiver.of_trace(f"{20:032x}") == receiver.of_trace(f"{21:032x}") == []
    assert not [span.name for span in receiver.spans if "health" in span.name]


def test_errors_are_spans(stack: Stack, receiver: SpanReceiver) -> None:
    """A request for an unknown model is a span; the mistake is the caller's, so that its status is no error."""
    assert stack.call("/v1/models/none:predict", GOOD, headers=headers(30))[0] == 404
    server, *_ = arrived(receiver, 30, 1)
    assert (server.attributes["http.response.status_code"], server.is_error) == (404, False)


def test_concurrent_requests_are_not_mixed_up(stack: Stack, receiver: SpanReceiver) -> None:
    """Each of many requests at once, some of which share a call, has all of its own spans and no other."""
    traces = range(1000, 1100)
    with ThreadPoolExecutor(16) as pool:
        statuses = list(pool.map(lambda trace: stack.call(IRIS, GOOD, headers=headers(trace))[0], traces))
    assert statuses == [200] * len(traces)
    for trace in traces:
        server, *stages = arrived(receiver, trace)
        assert names(stages) == STAGES
        assert {span.parent for span in stages} == {server.span}
        assert all(server.start_ns <= span.start_ns <= span.end_ns <= server.end_ns for span in stages)


def test_a_dead_collector_costs_no_request_and_no_span(
    stack: Stack, receiver: SpanReceiver, collector: Collector
) -> None:
    """Requests are answered while it is away, and their spans are sent when it is back."""
    collector.kill()
    traces = range(2000, 2030)
    assert [stack.call(IRIS, GOOD, headers=headers(trace))[0] for trace in traces] == [200] * len(traces)
    assert not receiver.of_trace(f"{2000:032x}")
    collector.start()
    for trace in traces:
        assert names(arrived(receiver, trace)[1:]) == STAGES


def test_a_restart_loses_no_span(stack: Stack, receiver: SpanReceiver) -> None:
    """Workers send their last spans before they end."""
    traces = range(3000, 3010)
    for trace in traces:
        assert stack.call(IRIS, GOOD, headers=headers(trace))[0] == 200
    stack.restart()
    for trace in traces:
        assert names(arrived(receiver, trace)[1:]) == STAGES
    assert stack.call(IRIS, GOOD, headers=headers(3999))[0] == 200
    assert names(arrived(receiver, 3999)[1:]) == STAGES
