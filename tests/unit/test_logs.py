"""Lines that are made often leave together, in order, and none is lost."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from tableside.telemetry import logs
from tableside.telemetry.metrics import make
from tableside.telemetry.request_metrics import RequestMetrics
from tableside.telemetry.request_trace import RequestTrace

Work = Callable[[], None]
PATH = "/v1/models/wine:predict"


def events(capfd: pytest.CaptureFixture[str]) -> list[str]:
    """What was written to standard output since the last call."""
    return [json.loads(line)["event"] for line in capfd.readouterr().out.splitlines()]


def test_they_wait_for_the_turn_and_leave_together(capfd: pytest.CaptureFixture[str]) -> None:
    """Many lines, one piece of work."""
    waiting: list[Work] = []
    logs.configure("json")
    lines = logs.LineBuffer(waiting.append)
    for name in "abc":
        lines.write("info", {"event": name})
    assert len(waiting) == 1
    assert events(capfd) == []
    waiting.pop()()
    assert events(capfd) == ["a", "b", "c"]
    lines.write("info", {"event": "d"})
    assert len(waiting) == 1
    waiting.pop()()
    assert events(capfd) == ["d"]


def test_no_other_line_overtakes_them(capfd: pytest.CaptureFixture[str]) -> None:
    """A line of a logger, ours or another library's, comes after those that waited; their turn repeats none."""
    waiting: list[Work] = []
    logs.configure("json")
    lines = logs.LineBuffer(waiting.append)
    lines.write("info", {"event": "first"})
    logs.get_logger("here").info("second")
    lines.write("info", {"event": "third"})
    logging.getLogger("library").warning("fourth")
    for work in waiting:
        work()
    assert events(capfd) == ["first", "second", "third", "fourth"]


def test_without_a_hub_nothing_waits(capfd: pytest.CaptureFixture[str]) -> None:
    """Threads write each line at once, whatever waits already."""
    logs.configure("json")
    logs.LineBuffer(lambda _: None).write("info", {"event": "waits"})
    logs.LineBuffer(None).write("info", {"event": "now"})
    assert events(capfd) == ["waits", "now"]


def test_none_is_lost_when_the_process_ends() -> None:
    """An orderly exit writes what waits, though its turn never comes."""
    code = """
from tableside.telemetry import logs
logs.configure("json")
logs.LineBuffer(lambda work: None).write("info", {"event": "last"})
raise SystemExit(3)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, timeout=60)
    assert (ended.returncode, ended.stdout) == (3, b'{"event":"last"}\n'), ended.stderr


def test_every_answer_has_its_line(capfd: pytest.CaptureFixture[str]) -> None:
    """Predictions have the fields of their model and stages, too; good answers to probes are not logged."""
    logs.configure("json")
    request_metrics = RequestMetrics(make(), None)
    good = RequestTrace(
        "good", 0.0, model="wine", version="1", protocol="v1", rows=2, counted=True, stages={"decode": 0.001}
    )
    bad = replace(good, request_id="bad", error="RequestRejected")
    request_metrics.record(good, "POST", PATH, 200, 0.002)
    request_metrics.record(bad, "POST", PATH, 400, 0.002)
    request_metrics.record(RequestTrace("none", 0.0), "GET", "/v9", 404, 0.002)
    request_metrics.record(RequestTrace("probe", 0.0), "GET", "/ping", 200, 0.002)
    said = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    shared = {"event", "source", "method", "path", "status", "ms", "request_id", "level", "time"}
    counted = shared | {"model", "version", "protocol", "rows", "decode_ms"}
    assert [(line["request_id"], line["status"]) for line in said] == [("good", 200), ("bad", 400), ("none", 404)]
    assert [set(line) for line in said] == [counted, counted | {"error"}, shared]


def test_text_is_for_terminals(capfd: pytest.CaptureFixture[str]) -> None:
    """Where lines are text, a prediction's is, too."""
    logs.configure("text")
    trace = RequestTrace("good", 0.0, model="wine", version="1", protocol="v1", counted=True)
    RequestMetrics(make(), None).record(trace, "POST", PATH, 200, 0.002)
    written = capfd.readouterr().out
    assert "request_id=good" in written
    assert not written.startswith("{")
