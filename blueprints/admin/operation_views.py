"""`/admin/api/operations`: long acts, which any worker can be asked about."""

from __future__ import annotations

import time

import msgspec
from flask import Blueprint, Response, request, url_for

from tableside.errors import ModelNotFound, RequestRejected
from tableside.process import operations
from tableside.process.operations import Operation
from tableside.web import error_replies, response
from tableside.web.extensions import settings

MAX_WAIT_S = 100.0
"""How long a request waits for an operation at most: less than nginx waits for the answer."""
MOST = 200
_POLL_S = 0.05


def mount(blueprint: Blueprint) -> None:
    """Add the routes."""
    blueprint.add_url_rule("/operations", "operations", list_operations)
    blueprint.add_url_rule("/operations/<operation_id>", "operation", show)


def list_operations() -> Response:
    """The newest operations of this host, the newest first; `limit` says how many."""
    most = whole_number("limit", 50, MOST)
    found = operations.recent(settings().run_dir, most)
    return response.json_response({"operations": [msgspec.to_builtins(each) for each in found]})


def show(operation_id: str) -> Response:
    """One operation: 200 whatever its state is. `wait` waits up to so many seconds while it is running."""
    found = waited(operation_id, wait_s())
    if found is None:
        raise ModelNotFound(
            f"no operation {operation_id[:60]!r}; the newest {operations.KEEP} that are over are kept. GET "
            "/admin/api/operations lists them"
        )
    return response.json_response(msgspec.to_builtins(found))


def wait_s() -> float:
    """How many seconds the caller waits for the result: the parameter `wait`. Raises RequestRejected."""
    text = request.args.get("wait", "0")
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= MAX_WAIT_S:
        raise RequestRejected(f"wait is a number of seconds from 0 to {MAX_WAIT_S:g}, such as wait=30")
    return seconds


def whole_number(name: str, default: int, most: int) -> int:
    """Return a parameter that is a whole number from 1 to `most`. Raises RequestRejected."""
    text = request.args.get(name, str(default))
    number = int(text) if text.isdecimal() and text.isascii() and len(text) < 10 else 0
    if not 0 < number <= most:
        raise RequestRejected(f"{name} is a whole number from 1 to {most}")
    return number


def waited(operation_id: str, seconds: float) -> Operation | None:
    """Return an operation when it is over, or after so many seconds as it is then; None if there is none."""
    give_up_at_s = time.monotonic() + seconds
    run_dir = settings().run_dir
    while (found := operations.find(run_dir, operation_id)) is not None:
        if found.state != "running" or time.monotonic() >= give_up_at_s:
            break
        time.sleep(_POLL_S)
    return found


def answer(operation_id: str, seconds: float) -> Response:
    """Answer a request that has begun an operation: 202 while it is running, its result, or its error."""
    found = waited(operation_id, seconds)
    assert found is not None
    body = {"operation": msgspec.to_builtins(found)}
    if found.state == "running":
        replied = response.json_response(body, 202)
    elif found.state == "done":
        replied = response.json_response({**found.result, **body})
    else:
        more = {**body, "reasons": list(found.reasons)} if found.reasons else body
        replied = response.json_response(error_replies.body(found.status, found.error, **more), found.status)
    replied.headers["Location"] = url_for("admin.operation", operation_id=operation_id)
    return replied
