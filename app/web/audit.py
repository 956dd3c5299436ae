"""Records the changes that views make in the audit log (`tableside.process.audit_log`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from flask import request

from tableside.disk_errors import DiskFull
from tableside.process.audit_log import END_BYTES, Line
from tableside.web.auth import KEY_NAME
from tableside.web.extensions import extensions
from tableside.web.request_lifecycle import current_trace

MAX_MODEL_CHARS = 200
"""A longer name cannot be a model's; clients choose it."""


@contextmanager
def recorded(action: str, model: str = "") -> Iterator[None]:
    """Record a change before it is made, and how it ended. Raises DiskFull, before anything is done, without room."""
    log, change = extensions().audit_log, _change(action, model)
    try:
        log.begin(_now() | change | {"state": "begun"})
    except OSError as problem:
        raise DiskFull("the audit log", END_BYTES) from problem
    try:
        yield
    except Exception as problem:
        log.end(_now() | change | {"state": "failed", "error": type(problem).__name__})
        raise
    log.end(_now() | change | {"state": "done"})


def _now() -> Line:
    return {"time": datetime.now(UTC).isoformat()}


def _change(action: str, model: str) -> Line:
    named: Line = {"model": model[:MAX_MODEL_CHARS]} if model else {}
    return {
        "level": "info", "source": "audit", "event": action, **named,
        "key": request.environ.get(KEY_NAME, ""), "request_id": current_trace().request_id,
    }  # fmt: skip
