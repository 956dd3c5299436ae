"""The access log has one JSON line of known fields for each answered request."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tableside.telemetry import access_log, logs
from tableside.telemetry.request_trace import RequestTrace
from tableside.web.request_ids import REQUEST_ID, RequestIds


def counted(**more: Any) -> RequestTrace:
    return RequestTrace("id-1", 0.0, **{"model": "wine", "version": "1", "protocol": "v1", "counted": True, **more})


def fields(trace: RequestTrace, path: str = "/a") -> dict[str, object]:
    return access_log.fields(trace, "POST", path, 200, 0.0125, "info")


def test_the_line_of_a_prediction() -> None:
    """It has the model, the rows and the milliseconds of each stage. Its last field is the time."""
    line = fields(counted(rows=9, stages={"decode": 0.001, "predict": 0.0025}))
    assert list(line)[-1] == "time"
    assert isinstance(line.pop("time"), datetime)
    assert line == {
        "event": "request", "source": "access", "method": "POST", "path": "/a", "status": 200, "ms": 12.5,
        "model": "wine", "version": "1", "protocol": "v1", "rows": 9, "decode_ms": 1.0, "predict_ms": 2.5,
        "request_id": "id-1", "level": "info",
    }  # fmt: skip


def test_the_line_of_a_failure() -> None:
    """It has the class of the error. A request that named no model has no fields of a model."""
    assert fields(counted(error="RequestRejected"))["error"] == "RequestRejected"
    assert not {"model", "rows", "error"} & fields(RequestTrace("id-1", 0.0)).keys()


@given(st.text(st.characters(exclude_categories=("Cs",))))
def test_a_path_cannot_break_a_line(path: str) -> None:
    """Clients choose the path: it is cut to `MAX_PATH` characters, and the line stays one line of JSON."""
    with pytest.MonkeyPatch.context() as patch:
        written: list[bytes] = []
        patch.setattr("os.write", lambda _, line: written.append(bytes(line)) or len(line))
        logs.configure("json")
        logs.LineBuffer(None).write("info", fields(counted(), path * 300))
    (line,) = written
    assert line.count(b"\n") == 1
    assert json.loads(line)["path"] == (path * 300)[: access_log.MAX_PATH]


def test_times_are_utc(capfd: pytest.CaptureFixture[str]) -> None:
    """The time of an access line and of a logger's line have the same form: UTC, with a Z at the end."""
    logs.configure("json")
    logs.LineBuffer(None).write("info", fields(counted()))
    logs.get_logger("here").info("other")
    times = [json.loads(line)["time"] for line in capfd.readouterr().out.splitlines()]
    for text in times:
        assert text.endswith("Z")
        assert abs(datetime.now(UTC) - datetime.fromisoformat(text)) < timedelta(seconds=60)


@given(st.text() | st.from_regex(REQUEST_ID))
def test_a_request_id_needs_no_escapes(given_id: str) -> None:
    """Whatever a client sends, the id of the request has only ASCII characters that JSON does not escape."""
    ids = RequestIds()
    for environ in ({"HTTP_X_REQUEST_ID": given_id}, {}):
        request_id = ids.of(environ)
        assert request_id.isascii()
        assert json.dumps(request_id) == f'"{request_id}"'


def test_a_request_is_counted_once_it_has_a_version() -> None:
    """Before `serves` a request has the label of no model; after it, model, version and protocol are those given."""
    trace = RequestTrace("id-1", 0.0)
    assert (trace.counted, trace.model, trace.version, trace.protocol) == (False, "-", "-", "-")
    trace.serves("wine", 3, "v2")
    assert (trace.counted, trace.model, trace.version, trace.protocol) == (True, "wine", "3", "v2")
    assert fields(trace)["version"] == "3"


def test_two_traces_do_not_share_their_stages() -> None:
    """The seconds of one request are not added to those of another."""
    first, second = RequestTrace("a", 0.0), RequestTrace("b", 0.0)
    first.stages["decode"] = 1.0
    assert second.stages == {}
