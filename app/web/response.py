"""JSON and text responses, and the reply that a prediction handler returns."""

from __future__ import annotations

from http import HTTPStatus

import msgspec
import orjson
from flask import Response

JSON = "application/json"
STATUS_LINES = {200: "200 OK", 499: "499 Client Closed Request"}
"""Status lines that are known beforehand: the most frequent one, and one that `http.HTTPStatus` does not have."""
_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS


def to_json(content: object) -> bytes:
    """JSON text. Numbers in numpy arrays are written at the array's precision, NaN and infinity as null."""
    return orjson.dumps(content, option=_OPTIONS)


def json_response(content: object, status: int = 200) -> Response:
    """A JSON response."""
    return text_response(to_json(content), status=status)


def text_response(text: bytes, kind: str = JSON, status: int = 200) -> Response:
    """A response with that text; `kind` is its Content-Type."""
    return Response(text, status, content_type=kind)


class Reply(msgspec.Struct, frozen=True):
    """A response that does not depend on Flask. kind: the Content-Type. headers: further headers."""

    body: bytes
    kind: str = JSON
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def line(self) -> str:
        """The WSGI status line, such as `200 OK`."""
        return STATUS_LINES.get(self.status) or f"{self.status} {HTTPStatus(self.status).phrase}"


def as_response(reply: Reply) -> Response:
    """The reply as a Flask response."""
    return Response(reply.body, reply.line, reply.headers, content_type=reply.kind)
