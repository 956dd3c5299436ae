"""Ids of the caller stand in the access line, cut and escaped, and come back where their protocol says so."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tableside.telemetry import access_log, correlation, logs
from tableside.telemetry.request_trace import RequestTrace

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def line(environ: dict[str, str], **more: Any) -> dict[str, Any]:
    return access_log.fields(RequestTrace("id-1", 0.0, environ=environ, **more), "POST", "/a", 200, 0.01, "info")


def test_only_the_ids_that_were_sent_are_in_the_line() -> None:
    """Each id has a field of its own; an id that was not sent, or is empty, has none."""
    assert not line({"HTTP_HOST": "a", "HTTP_CE_ID": ""}).keys() & {"id", "row_ids", *correlation.LOGGED}
    environ = {key: f"value of {name}" for name, key in correlation.LOGGED.items()} | {"HTTP_TRACEPARENT": TRACE}
    found = line(environ, v2_id="r-7", row_ids=["u-1", "u-2"])
    assert {name: found[name] for name in ("id", "traceparent", "ce_id", "correlation_id", "row_ids")} == {
        "id": "r-7", "traceparent": TRACE, "ce_id": "value of ce_id", "correlation_id": "value of correlation_id",
        "row_ids": ["u-1", "u-2"],
    }  # fmt: skip
    assert found["inference_id"] == "value of inference_id"
    assert found["custom_attributes"] == "value of custom_attributes"
    assert line({}, v2_id="")["id"] == ""  # the protocol allows it


@given(st.text(max_size=300))
def test_an_id_cannot_break_a_line(text: str) -> None:
    """It is cut, and each character that does not print is an escape: the line stays one line, on a terminal too."""
    found = correlation.printable(text)
    assert found.isprintable()
    assert len(found) <= 10 * correlation.MAX_LOGGED_CHARS
    if text.isprintable():
        assert found == text[: correlation.MAX_LOGGED_CHARS]
    with pytest.MonkeyPatch.context() as patch:
        written: list[bytes] = []
        patch.setattr("os.write", lambda _, line: written.append(bytes(line)) or len(line))
        logs.configure("json")
        logs.LineBuffer(None).write("info", line({}, v2_id=text))
    assert written[0].count(b"\n") == 1
    assert json.loads(written[0])["id"] == found


def test_a_header_in_utf_8_is_read_as_such() -> None:
    """WSGI hands over the bytes of a header as Latin-1."""
    assert line({"HTTP_X_CORRELATION_ID": "größe".encode().decode("latin-1")})["correlation_id"] == "größe"


@pytest.mark.parametrize("value", ["", "a\tb", "größe", "a\nb", "x" * 1025])
def test_only_printable_ascii_comes_back(value: str) -> None:
    """A value that would not be a valid header, or is longer than SageMaker allows, is left out."""
    assert correlation.echoed({"HTTP_X_CORRELATION_ID": value}) == []
    sent = {"HTTP_X_CORRELATION_ID": "c 1", "HTTP_X_AMZN_SAGEMAKER_CUSTOM_ATTRIBUTES": "x" * 1024}
    assert correlation.echoed(sent) == [
        ("X-Correlation-ID", "c 1"), ("X-Amzn-SageMaker-Custom-Attributes", "x" * 1024),
    ]  # fmt: skip
    assert correlation.echoed({"HTTP_TRACEPARENT": TRACE}) == ()
