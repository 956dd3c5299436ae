"""Frequent lines are written together, in order, and none is lost; each line has the format of the others."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from tableside.telemetry import logs
from tableside.telemetry.metrics import make
from tableside.telemetry.request_metrics import RequestMetrics
from tableside.telemetry.request_trace import RequestTrace

Work = Callable[[], None]
ROOT = Path(__file__).parents[2]
PATH = "/v1/models/wine:predict"


def events(capfd: pytest.CaptureFixture[str]) -> list[str]:
    """The events that were written to standard output since the last call."""
    return [json.loads(line)["event"] for line in capfd.readouterr().out.splitlines()]


def test_buffered_lines_are_written_together(capfd: pytest.CaptureFixture[str]) -> None:
    """Several lines need one delayed call, which writes all of them; the next line needs another call."""
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


def test_no_other_line_overtakes_buffered_lines(capfd: pytest.CaptureFixture[str]) -> None:
    """A line of a logger is written after the buffered lines, and the delayed call repeats none of them."""
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


def test_without_an_event_loop_nothing_is_buffered(capfd: pytest.CaptureFixture[str]) -> None:
    """A buffer without a delayed call writes each line at once, after the lines that another one has buffered."""
    logs.configure("json")
    logs.LineBuffer(lambda _: None).write("info", {"event": "waits"})
    logs.LineBuffer(None).write("info", {"event": "now"})
    assert events(capfd) == ["waits", "now"]


def test_buffered_lines_are_written_when_the_process_ends() -> None:
    """A normal exit writes the buffered lines, even if the delayed call never runs."""
    code = """
from tableside.telemetry import logs
logs.configure("json")
logs.LineBuffer(lambda work: None).write("info", {"event": "last"})
raise SystemExit(3)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, timeout=60)
    assert (ended.returncode, ended.stdout) == (3, b'{"event":"last"}\n'), ended.stderr


def test_each_answer_has_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    """Lines of predictions also have fields of model and stages. Successful health probes are not logged."""
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
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    shared = {"event", "source", "method", "path", "status", "ms", "request_id", "level", "time"}
    counted = shared | {"model", "version", "protocol", "rows", "decode_ms"}
    assert [(line["request_id"], line["status"]) for line in lines] == [("good", 200), ("bad", 400), ("none", 404)]
    assert [set(line) for line in lines] == [counted, counted | {"error"}, shared]


def test_access_lines_are_text_where_the_format_is_text(capfd: pytest.CaptureFixture[str]) -> None:
    """With the format `text` a prediction's line is text as well."""
    logs.configure("text")
    trace = RequestTrace("good", 0.0, model="wine", version="1", protocol="v1", counted=True)
    RequestMetrics(make(), None).record(trace, "POST", PATH, 200, 0.002)
    written = capfd.readouterr().out
    assert "request_id=good" in written
    assert not written.startswith("{")


def test_probes_are_logged_at_level_debug(capfd: pytest.CaptureFixture[str]) -> None:
    """With the level `debug` a successful probe has a line; a failed one has a line at every level."""
    for level, status, expected in (("debug", 200, ["debug"]), ("info", 200, []), ("info", 503, ["info"])):
        logs.configure("json", level)
        RequestMetrics(make(), None).record(RequestTrace("probe", 0.0), "GET", "/v2/health/ready", status, 0.002)
        assert [json.loads(line)["level"] for line in capfd.readouterr().out.splitlines()] == expected
    logs.configure("json")


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_lines_below_the_level_are_not_written(capfd: pytest.CaptureFixture[str], level: str) -> None:
    """The level holds for loggers and for buffers; a buffer also reports it, so that lines need not be made."""
    logs.configure("json", level)
    levels = ["debug", "info", "warning", "error"]
    written = levels[levels.index(level) :]
    for name in levels:
        logs.get_logger("here").log(logging.getLevelNamesMapping()[name.upper()], name)
    assert events(capfd) == written
    buffer = logs.LineBuffer(None)
    assert [name for name in levels if buffer.is_enabled(name)] == written
    logs.configure("json")


def test_an_unknown_level_is_an_error() -> None:
    """`configure` raises KeyError, and does not fall back to another level."""
    with pytest.raises(KeyError):
        logs.configure("json", "loud")


def test_records_of_other_libraries_have_the_same_fields(capfd: pytest.CaptureFixture[str]) -> None:
    """`source` is the name of the logger for our own events as well as for records of `logging`."""
    logs.configure("json")
    logs.get_logger("here").warning("ours", model="iris")
    logging.getLogger("library").warning("theirs %d", 3)
    ours, theirs = (json.loads(line) for line in capfd.readouterr().out.splitlines())
    assert (ours["event"], ours["source"], ours["model"]) == ("ours", "here", "iris")
    assert (theirs["event"], theirs["source"], theirs["level"]) == ("theirs 3", "library", "warning")
    assert ours.keys() - {"model"} == theirs.keys()


@pytest.mark.processes
def test_lines_go_to_the_fallback_file_when_the_reader_has_ended(tmp_path: Path) -> None:
    """The workers of a killed master write to a pipe without a reader: no line raises, and none is lost."""
    code = """
import sys
from pathlib import Path
from tableside.telemetry import logs
logs.configure("json", fallback=Path(sys.argv[1]))
sys.stdin.read()
for name in ("first", "second"):
    logs.get_logger("here").info(name)
print("printed", flush=True)
"""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    worker = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "web.log")], env=environ, cwd=ROOT,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert worker.stdin
    assert worker.stdout
    assert worker.stderr
    worker.stdout.close()
    worker.stdin.close()
    assert (worker.wait(60), worker.stderr.read()) == (0, b"")
    worker.stderr.close()
    *lines, printed = (tmp_path / "web.log").read_text().splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["first", "second"]
    assert printed == "printed"
    assert (tmp_path / "web.log").stat().st_mode & 0o777 == 0o600


@pytest.mark.processes
@pytest.mark.parametrize("fallback", ["None", "Path('/nonexistent/web.log')"])
def test_a_log_that_cannot_be_written_raises_nothing(fallback: str) -> None:
    """Without a usable fallback the lines are lost, but the process goes on."""
    code = f"""
import os
from pathlib import Path
from tableside.telemetry import logs
os.close(1)
logs.configure("json", fallback={fallback})
logs.get_logger("here").info("lost")
logs.LineBuffer(None).write("info", {{"event": "lost"}})
raise SystemExit(3)
"""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, timeout=60, env=environ)
    assert (ended.returncode, ended.stdout, ended.stderr) == (3, b"", b"")


@pytest.mark.processes
def test_a_reader_that_stops_holds_up_nothing(tmp_path: Path) -> None:
    """Lines that do not fit into the pipe are dropped and counted; the reader gets whole lines, and later ones too."""
    code = """
import os, sys
from tableside.telemetry import logs
logs.configure("json")
lines = logs.LineBuffer(None)
for number in range(20_000):
    lines.write("info", {"event": "line", "number": number, "filler": "x" * 200})
sys.stderr.write(f"{logs.dropped_lines()}\\n")
sys.stdin.readline()
lines.write("info", {"event": "last"})
sys.stderr.write(f"{logs.dropped_lines()}\\n")
"""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    writer = subprocess.Popen(
        [sys.executable, "-c", code], env=environ, cwd=ROOT,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert writer.stdin
    assert writer.stdout
    assert writer.stderr
    dropped = int(writer.stderr.readline())  # nobody has read a line yet
    first = [json.loads(writer.stdout.readline())["number"] for _ in range(1000)]
    writer.stdin.write("\n")
    writer.stdin.flush()
    assert int(writer.stderr.readline()) == 0
    *rest, last = [json.loads(line) for line in writer.stdout]
    assert last["event"] == "last"
    assert first + [line["number"] for line in rest] == list(range(20_000 - dropped))
    assert writer.wait(60) == 0
    for stream in (writer.stdin, writer.stdout, writer.stderr):
        stream.close()


def raise_with_a_cause(text: str) -> None:
    try:
        raise KeyError(text)
    except KeyError as cause:
        raise ValueError(text) from cause


def test_a_traceback_without_values_hides_the_texts() -> None:
    """It has the types, files and functions, the cause first, and names the setting that shows the texts."""
    with pytest.raises(ValueError, match="secret") as raised:
        raise_with_a_cause(f"secret {1}")
    text = logs.frames_without_values(raised.value)
    assert "secret 1" not in text
    assert text.index("builtins.KeyError") < text.index("which caused:") < text.index("builtins.ValueError")
    assert "in raise_with_a_cause" in text
    assert "predict.show_values" in text


def test_a_traceback_follows_only_causes_that_are_not_suppressed() -> None:
    """`raise ... from None` hides the context here, as it does in Python's own tracebacks."""
    for suppressed, types in ((True, 1), (False, 2)):
        try:
            try:
                raise KeyError
            except KeyError:
                if suppressed:
                    raise ValueError from None
                raise ValueError  # noqa: B904 - the context is what is tested
        except ValueError as error:
            assert logs.frames_without_values(error).count("builtins.") == types
