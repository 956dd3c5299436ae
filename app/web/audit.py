"""Records the changes that views make in the audit log (`tableside.process.audit_log`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from flask import request

from tableside.disk_errors import DiskFull
from tableside.errors import TablesideError
from tableside.process.audit_log import END_BYTES, Line, now
from tableside.web.auth import KEY_NAME
from tableside.web.extensions import extensions
from tableside.web.request_lifecycle import current_trace

MAX_TEXT_CHARS = 200
"""A longer text is cut off: names of models are shorter, and clients choose what they send."""


@contextmanager
def recorded(action: str, model: str = "", **details: str) -> Iterator[dict[str, str]]:
    """Record a change before it is made, and how it ended. Raises DiskFull, before anything is done, without room.

    details: what is to be changed, such as `before`. Yields a dict for what is known at the end, such as `after`.
    """
    log, change = extensions().audit_log, begin(action, model, **details)
    known: dict[str, str] = {}
    try:
        yield known
    except Exception as problem:
        log.end({**now(), **change, **known, "state": "failed", **_failure(problem)})
        raise
    log.end({**now(), **change, **known, "state": "done"})


def begin(action: str, model: str = "", **details: str) -> dict[str, str]:
    """Record that a change begins. Return what its last line shall say too. Raises DiskFull, as `recorded` does."""
    change = _change(action, model, details)
    try:
        extensions().audit_log.begin({**now(), **change, "state": "begun"})
    except OSError as problem:
        raise DiskFull("the audit log", END_BYTES) from problem
    return change


def abandoned(change: Mapping[str, str], problem: Exception) -> None:
    """Record that a change which has begun was not made."""
    line: Line = {**now(), **change, "state": "failed", **_failure(problem)}
    extensions().audit_log.end(line)


def _failure(problem: Exception) -> dict[str, str]:
    reason = {"reason": str(problem)[:MAX_TEXT_CHARS]} if isinstance(problem, TablesideError) else {}
    return {"error": type(problem).__name__, **reason}


def _change(action: str, model: str, details: Mapping[str, str]) -> dict[str, str]:
    named = {"model": model[:MAX_TEXT_CHARS]} if model else {}
    cut = {name: text[:MAX_TEXT_CHARS] for name, text in details.items() if text}
    return {
        "level": "info", "source": "audit", "event": action, **named, **cut,
        "key": str(request.environ.get(KEY_NAME, "")), "request_id": current_trace().request_id,
    }  # fmt: skip
