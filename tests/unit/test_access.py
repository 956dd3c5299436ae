"""The access log's line: made from a pattern it says what it says when it is made from its fields."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.web import access
from app.web.request_ids import REQUEST_ID, RequestIds
from app.web.trace import Trace, begin

SECONDS = st.floats(0, 4000)
STAGES = st.dictionaries(st.sampled_from(("decode", "queue", "predict", "cache", "encode")), SECONDS)
TEXT = st.text(st.characters(exclude_categories=("Cs",)))


def counted(**more: Any) -> Trace:
    return Trace("id-1", 0.0, **{"model": "wine", "version": "1", "protocol": "v1", "counted": True, **more})


def said(line: bytes) -> list[tuple[str, Any]]:
    """Its fields in order, without the time."""
    assert line.endswith(b"}\n")
    pairs: list[tuple[str, Any]] = json.loads(line, object_pairs_hook=list)
    assert [key for key, _ in pairs[-3:]] == ["request_id", "level", "time"]
    return pairs[:-1]


PATTERNS = access.Patterns()


@given(TEXT, TEXT, STAGES, st.lists(st.tuples(SECONDS, st.integers(0, 2**40)), min_size=2, max_size=2))
def test_it_says_what_its_fields_say(path: str, model: str, stages: dict[str, float], two: Any) -> None:
    """In the same order; the second one by a pattern that is known. Percent signs and quotes stay what they are."""
    for seconds, rows in two:
        trace = counted(rows=rows, model=model, stages=stages)
        fields = access.fields(trace, "POST", path, 200, seconds, "info")
        assert fields.pop("time")
        assert said(PATTERNS.line(trace, "POST", path, 200, seconds, "info")) == list(fields.items())


def test_each_kind_of_request_has_its_own_pattern() -> None:
    """Whatever differs in what a pattern keeps makes another line."""
    patterns, plain = access.Patterns(), counted()
    kinds: list[tuple[Trace, str, str, int, str]] = [
        (plain, "POST", "/a", 200, "info"), (plain, "PUT", "/a", 200, "info"), (plain, "POST", "/b", 200, "info"),
        (plain, "POST", "/a", 429, "info"), (plain, "POST", "/a", 200, "debug"),
        (counted(model="iris"), "POST", "/a", 200, "info"), (counted(version="2"), "POST", "/a", 200, "info"),
        (counted(protocol="v2"), "POST", "/a", 200, "info"), (counted(rows=9), "POST", "/a", 200, "info"),
        (counted(stages={"decode": 1.0}), "POST", "/a", 200, "info"),
        (counted(stages={"encode": 1.0}), "POST", "/a", 200, "info"),
    ]  # fmt: skip
    for trace, method, path, status, level in kinds:
        fields = access.fields(trace, method, path, status, 0.5, level)
        del fields["time"]
        assert said(patterns.line(trace, method, path, status, 0.5, level)) == list(fields.items())


@pytest.mark.parametrize("at_s", [0.0, 1.9999999, 1_700_000_000.000001, 1_795_000_000.5])
def test_its_time_is_the_clocks(at_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """In UTC, to the microsecond, in the spelling of every other line; and the next second's a second later."""
    patterns = access.Patterns()
    for more_s in (0, 0, 1, 3600, -1):
        monkeypatch.setattr(time, "time", lambda now_s=at_s + more_s: now_s)
        line = json.loads(patterns.line(counted(), "POST", "/a", 200, 0.5, "info"))
        assert line["time"].endswith("Z")
        assert len(line["time"]) == len("2026-01-01T00:00:00.000000Z")
        apart = datetime.fromisoformat(line["time"]) - datetime.fromtimestamp(at_s + more_s, UTC)
        assert abs(apart) <= timedelta(microseconds=1)


def test_paths_cannot_fill_the_memory() -> None:
    """A path is the client's choice: long ones are cut, many are forgotten."""
    patterns = access.Patterns()
    for at in range(access.MOST_PATTERNS + 10):
        patterns.line(counted(), "POST", f"/{at}".ljust(5000, "x"), 200, 0.5, "info")
    assert len(patterns._known) <= access.MOST_PATTERNS
    assert all(len(key[0]) == access.MOST_PATH for key in patterns._known)


@given(st.text() | st.from_regex(REQUEST_ID))
def test_no_id_needs_escapes(given_id: str) -> None:
    """Whatever a client sends: the id of the request is letters, digits and four signs of ASCII."""
    ids = RequestIds()
    for environ in ({"HTTP_X_REQUEST_ID": given_id}, {}):
        request_id = begin(environ, ids).request_id
        assert request_id.isascii()
        assert json.dumps(request_id) == f'"{request_id}"'
