"""Request bodies in, JSON out."""

from __future__ import annotations

import time
from typing import Any, TypeVar

import msgspec
import orjson
from flask import Response, request

from app.errors import CellError, RequestRejected
from app.web.current import settings

T = TypeVar("T")
_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS


def read() -> bytes:
    """The whole body. Raises werkzeug's RequestEntityTooLarge over the limit."""
    return request.get_data(cache=False)


def parse(body: bytes, kind: type[T]) -> T:
    """JSON of that shape, whatever the Content-Type says. Raises RequestRejected naming the place."""
    if not body:
        raise RequestRejected("the body is empty; a JSON object was expected")
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as problem:
        message, _, place = str(problem).partition(" - at ")
        path = place.strip("`").removeprefix("$").removeprefix(".") or "body"
        raise RequestRejected("the request is malformed", (CellError(path, message),)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        detail = "nested too deeply" if isinstance(problem, RecursionError) else str(problem)
        raise RequestRejected(f"the body is not JSON: {detail}") from None


def answer(content: Any, status: int = 200) -> Response:
    """A JSON response; arrays as they are, not-finite numbers as null."""
    return Response(orjson.dumps(content, option=_OPTIONS), status, content_type="application/json")


def deadline_at_s(started_s: float) -> float:
    """When the answer must be there, on the monotonic clock."""
    return started_s + settings().server.request_timeout_s


def now_s() -> float:
    """The monotonic clock, in seconds."""
    return time.monotonic()
