"""Answered requests are counted and logged, at once or together at the event loop's next turn."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from prometheus_client import generate_latest

from tableside.telemetry import logs, metrics
from tableside.telemetry.request_metrics import RequestMetrics
from tableside.telemetry.request_trace import RequestTrace


class Turn:
    """Keeps the function that was given for the next turn of an event loop, and counts how often one was given."""

    def __init__(self) -> None:
        self.works: list[Callable[[], None]] = []

    def __call__(self, work: Callable[[], None]) -> None:
        self.works.append(work)

    def end(self) -> None:
        works, self.works = self.works, []
        for work in works:
            work()


class Unwanted:
    """Compares the versions of a model, and must not be told of this request."""

    def answered(self, trace: RequestTrace, status: int, seconds: float) -> None:
        raise AssertionError("the request was not of a version")


def served(rows: int = 1, **stages: float) -> RequestTrace:
    return RequestTrace("id", 0.0, model="wine", version="2", protocol="v1", rows=rows, counted=True, stages=stages)


def samples(made: metrics.Metrics) -> dict[str, float]:
    """Sample line without its value to the value."""
    lines = [line for line in generate_latest(made.registry).decode().splitlines() if line.startswith("tableside_")]
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


def requests(made: metrics.Metrics, code: str = "200") -> float:
    key = f'tableside_requests_total{{code="{code}",model="wine",protocol="v1",version="2"}}'
    return samples(made).get(key, 0.0)


def test_without_an_event_loop_a_request_is_counted_at_once() -> None:
    """The counter, the histograms and the rows have their values when `record` returns."""
    made = metrics.make()
    RequestMetrics(made, None).record(served(3, decode=0.002), "POST", "/v1/models/wine:predict", 200, 0.02)
    found = samples(made)
    assert requests(made) == 1.0
    assert found['tableside_rows_total{model="wine",version="2"}'] == 3.0
    assert found['tableside_request_seconds_sum{model="wine",version="2"}'] == 0.02
    assert found['tableside_stage_seconds_sum{model="wine",stage="decode",version="2"}'] == 0.002


def test_the_requests_of_one_turn_are_counted_together() -> None:
    """The loop is asked for one turn, whatever the number of requests; after it each is counted once."""
    made, turn = metrics.make(), Turn()
    counting = RequestMetrics(made, None, turn)
    for _ in range(5):
        counting.record(served(), "POST", "/v1/models/wine:predict", 200, 0.01)
    assert len(turn.works) == 1
    assert requests(made) == 0.0
    turn.end()
    assert requests(made) == 5.0
    counting.record(served(), "POST", "/v1/models/wine:predict", 200, 0.01)
    turn.end()
    assert requests(made) == 6.0


def test_a_failed_request_counts_under_its_status_and_adds_no_rows() -> None:
    """Rows of a request that was refused were not predicted."""
    made = metrics.make()
    RequestMetrics(made, None).record(served(7), "POST", "/v1/models/wine:predict", 400, 0.01)
    assert (requests(made), requests(made, "400")) == (0.0, 1.0)
    assert 'tableside_rows_total{model="wine",version="2"}' in samples(made)
    assert samples(made)['tableside_rows_total{model="wine",version="2"}'] == 0.0


def test_a_prediction_that_no_version_took_is_counted_without_its_name(capfd: pytest.CaptureFixture[str]) -> None:
    """A name that a client made up never becomes a label; nor is the request among the activity of a model."""
    logs.configure("json")
    made = metrics.make()
    counting = RequestMetrics(made, None)
    assert counting.take_activity() == {}
    trace = RequestTrace("id-9", 0.0, protocol="v1", watch=Unwanted())
    counting.record(trace, "POST", "/v1/models/invented:predict", 404, 0.001)
    found = samples(made)
    assert found['tableside_requests_total{code="404",model="-",protocol="v1",version="-"}'] == 1.0
    assert found['tableside_request_seconds_count{model="-",version="-"}'] == 1.0
    assert not [line for line in found if "invented" in line]
    assert counting.take_activity() == {}
    line = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert (line["status"], line["request_id"], line["path"]) == (404, "id-9", "/v1/models/invented:predict")


def test_other_requests_are_not_counted() -> None:
    """Probes, metadata and the admin API are no predictions."""
    made = metrics.make()
    RequestMetrics(made, None).record(RequestTrace("id-9", 0.0), "GET", "/v2/models/invented", 404, 0.001)
    assert not [line for line in samples(made) if "tableside_requests_total" in line]


def test_lines_keep_the_order_of_the_answers(capfd: pytest.CaptureFixture[str]) -> None:
    """Requests that are logged in one turn appear in the log in the order in which they were answered."""
    logs.configure("json")
    turn = Turn()
    counting = RequestMetrics(metrics.make(), None, turn)
    for number in range(4):
        counting.record(RequestTrace(f"id-{number}", 0.0), "GET", "/v2", 200, 0.001)
    turn.end()
    found = [json.loads(line)["request_id"] for line in capfd.readouterr().out.splitlines()]
    assert found == ["id-0", "id-1", "id-2", "id-3"]


def test_the_gauge_of_requests_in_flight_is_set_once_in_each_turn() -> None:
    """A request that was answered within its turn never shows; one that is still being answered does."""
    made, turn = metrics.make(), Turn()
    counting = RequestMetrics(made, None, turn)
    gauge = 'tableside_requests_in_flight{model="wine"}'
    counting.in_flight("wine").enter()
    assert counting.in_flight("wine") is counting.in_flight("wine")
    counting.record(served(), "POST", "/v1/models/wine:predict", 200, 0.01)
    assert (len(turn.works), samples(made)[gauge]) == (1, 0.0)
    turn.end()
    assert samples(made)[gauge] == 1.0
    counting.in_flight("wine").enter()
    counting.in_flight("wine").leave()
    counting.in_flight("wine").leave()
    turn.end()
    assert samples(made)[gauge] == 0.0


def test_versions_codes_and_protocols_of_one_turn_are_counted_apart() -> None:
    """Requests are summed up only with those of the same version, protocol and status code."""
    made, turn = metrics.make(), Turn()
    counting = RequestMetrics(made, None, turn)
    for status in (200, 400, 200):
        counting.record(served(2), "POST", "/v1/models/wine:predict", status, 0.01)
    other = RequestTrace("id", 0.0, model="wine", version="3", protocol="v2", rows=5, counted=True)
    counting.record(other, "POST", "/v2/models/wine/infer", 200, 0.01)
    turn.end()
    found = samples(made)
    assert (requests(made), requests(made, "400")) == (2.0, 1.0)
    assert found['tableside_requests_total{code="200",model="wine",protocol="v2",version="3"}'] == 1.0
    assert found['tableside_rows_total{model="wine",version="2"}'] == 4.0
    assert found['tableside_rows_total{model="wine",version="3"}'] == 5.0
