"""Schemathesis against the real stack: nginx and gunicorn answer as the OpenAPI document says."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.e2e.conftest import Stack
from tests.fuzzing import run

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def stack(shared_stack: Stack) -> Stack:
    """The stack of several files."""
    return shared_stack


def test_no_input_surprises_the_stack(stack: Stack, record_property: Callable[[str, object], None]) -> None:
    """Through nginx every operation of a model answers as its document says, and no error is logged."""
    log = stack.run_dir / "log" / "web.log"
    before = log.stat().st_size
    seen = run(f"http://127.0.0.1:{stack.data}", examples=15, document="/v2/models/wine/openapi.json")
    record_property("said", str(seen))
    assert seen.findings == [], "\n\n".join(seen.findings)
    assert seen.answers[200] > 200
    assert seen.answers[400] > 200
    assert b'"level":"error"' not in log.read_bytes()[before:]


def test_trace_is_refused_in_json(stack: Stack) -> None:
    """nginx answers TRACE with 405, the error object and the methods of the path in Allow."""
    for path, allowed in (("/v2", "GET, HEAD, OPTIONS"), ("/v1/models/iris:predict", "OPTIONS, POST")):
        status, content, headers = stack.call(path, method="TRACE", headers={"X-Request-ID": "abc-2"})
        assert (status, content["status"], headers["Allow"]) == (405, 405, allowed)
        assert content["instance"] == headers["X-Request-ID"] == "abc-2"
