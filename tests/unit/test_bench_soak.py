"""The soak's figures: each request counts in the window in which it was due, and each failure is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.soak import measured
from benchmarks.soak.events import EVENTS
from benchmarks.soak.measured import Sent, Window

pytestmark = pytest.mark.no_greenlets

WINDOWS = [Window("restart", 1, 100.0, 110.0), Window("hup", 1, 110.0, 120.0), Window("restart", 2, 120.0, 130.0)]


def sent(due_s: float, latency_s: float = 0.01, outcome: str = "ok") -> Sent:
    return Sent(due_s, latency_s, "m0000", outcome)


def test_a_request_counts_where_it_was_due() -> None:
    """An answer that comes after the window's end still belongs to the window."""
    found = measured.rows([sent(109.9, 5.0), sent(110.0), sent(125.0), sent(130.0)], WINDOWS)
    assert [(row.event, row.rounds, row.requests, row.over_1s) for row in found] == [
        ("restart", 2, 2, 1),
        ("hup", 1, 1, 0),
    ]
    assert (found[0].worst_ms, found[0].p50_ms) == (5000.0, 10.0)


def test_failures_are_counted_by_event_and_text() -> None:
    """A wrong answer is a failure, like an error."""
    requests = [sent(101.0, outcome="503 x"), sent(121.0, outcome="503 x"), sent(111.0, outcome="a wrong answer")]
    assert measured.failures(requests, WINDOWS) == {("restart", "503 x"): 2, ("hup", "a wrong answer"): 1}
    assert [row.failed for row in measured.rows(requests, WINDOWS)] == [2, 1]


def test_a_silence_is_the_time_without_any_answer() -> None:
    """One slow request beside others is no silence; a failure is no answer; the edges of the window count."""
    answers = [sent(100.0 + tenth / 10) for tenth in range(100)]
    assert measured.longest_silence_s([*answers, sent(101.0, 6.0)], WINDOWS[0]) < 0.2
    gap = [request for request in answers if not 104.0 < request.due_s < 107.0]
    assert measured.longest_silence_s([*gap, sent(105.0, outcome="503 x")], WINDOWS[0]) == pytest.approx(3.0)
    assert measured.longest_silence_s(answers[:20], WINDOWS[0]) > 8.0
    assert measured.longest_silence_s([], WINDOWS[0]) == pytest.approx(10.0)


def test_the_events_are_those_that_operators_meet() -> None:
    """Each has a line that says what it does, and its name can be given on the command line."""
    assert {"restart", "hup", "upgrade", "recycle"} < set(EVENTS)
    assert {f"kill-{what}" for what in ("worker", "master", "holders", "nginx-master", "supervisord")} < set(EVENTS)
    assert all(event.__doc__ for event in EVENTS.values())


def test_the_file_is_read_in_the_order_of_due_times(tmp_path: Path) -> None:
    """The client writes a line when an answer comes, so slow answers stand late in the file."""
    path = tmp_path / "client.jsonl"
    lines = [{"due_s": due, "latency_s": 0.1, "model": "m", "outcome": "ok"} for due in (3.0, 1.0, 2.0)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert [request.due_s for request in measured.read(path)] == [1.0, 2.0, 3.0]


def test_an_event_without_requests_has_no_quantiles() -> None:
    """The table shows it all the same."""
    [row] = measured.rows([], WINDOWS[1:2])
    assert (row.requests, row.failed) == (0, 0)
    assert "| hup | 1 | 0 | 0 | nan |" in measured.table([row])
