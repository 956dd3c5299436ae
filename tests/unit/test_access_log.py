"""The access log: one JSON line of known fields for each answered request."""

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
from tableside.web.request_lifecycle import begin


def counted(**more: Any) -> RequestTrace:
    return RequestTrace("id-1", 0.0, **{"model": "wine", "version": "1", "protocol": "v1", "counted": True, **more})


def fields(trace: RequestTrace, path: str = "/a") -> dict[str, object]:
    return access_log.fields(trace, "POST", path, 200, 0.0125, "info")


def test_a_prediction_s_line() -> None:
    """It names the model, the rows and the time of each stage in milliseconds; its last field is the time."""
    line = fields(counted(rows=9, stages={"decode": 0.001, "predict": 0.0025}))
    assert line.pop("time")
    assert line == {
        "event": "request", "source": "access", "method": "POST", "path": "/a", "status": 200, "ms": 12.5,
        "model": "wine", "version": "1", "protocol": "v1", "rows": 9, "decode_ms": 1.0, "predict_ms": 2.5,
        "request_id": "id-1", "level": "info",
    }  # fmt: skip


def test_a_failure_s_line() -> None:
    """It names the class of the error; a request that named no model has no fields of one."""
    assert fields(counted(error="RequestRejected"))["error"] == "RequestRejected"
    assert not {"model", "rows", "error"} & fields(RequestTrace("id-1", 0.0)).keys()


@given(st.text(st.characters(exclude_categories=("Cs",))))
def test_a_path_cannot_break_a_line(path: str) -> None:
    """A path is the client's choice: it is cut, and whatever it holds the line stays one line of JSON."""
    with pytest.MonkeyPatch.context() as patch:
        written: list[bytes] = []
        patch.setattr("os.write", lambda _, line: written.append(bytes(line)) or len(line))
        logs.configure("json")
        logs.LineBuffer(None).write("info", fields(counted(), path * 300))
    (line,) = written
    assert line.count(b"\n") == 1
    assert json.loads(line)["path"] == (path * 300)[: access_log.MAX_PATH]


def test_its_time_is_utc(capfd: pytest.CaptureFixture[str]) -> None:
    """To the microsecond, in the spelling of every other line."""
    logs.configure("json")
    logs.LineBuffer(None).write("info", fields(counted()))
    logs.get_logger("here").info("other")
    times = [json.loads(line)["time"] for line in capfd.readouterr().out.splitlines()]
    for text in times:
        assert text.endswith("Z")
        assert abs(datetime.now(UTC) - datetime.fromisoformat(text)) < timedelta(seconds=60)


@given(st.text() | st.from_regex(REQUEST_ID))
def test_no_id_needs_escapes(given_id: str) -> None:
    """Whatever a client sends: the id of the request is letters, digits and four signs of ASCII."""
    ids = RequestIds()
    for environ in ({"HTTP_X_REQUEST_ID": given_id}, {}):
        request_id = begin(environ, ids).request_id
        assert request_id.isascii()
        assert json.dumps(request_id) == f'"{request_id}"'
