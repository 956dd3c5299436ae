"""Request bodies in, JSON out."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import msgspec
import orjson
from flask import Response

JSON = "application/json"
_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS


def to_json(content: Any) -> bytes:
    """JSON text; numpy arrays at their own width, not-finite numbers as null."""
    return orjson.dumps(content, option=_OPTIONS)


def json_response(content: Any, status: int = 200) -> Response:
    """A JSON response."""
    return text_response(to_json(content), status=status)


def text_response(text: bytes, kind: str = JSON, status: int = 200) -> Response:
    """A response of that text."""
    return Response(text, status, content_type=kind)


class Reply(msgspec.Struct, frozen=True):
    """kind: the Content-Type. headers: further ones."""

    body: bytes
    kind: str = JSON
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def line(self) -> str:
        """The status with its words, as WSGI wants it."""
        return STATUS_LINES.get(self.status) or f"{self.status} {HTTPStatus(self.status).phrase}"


STATUS_LINES = {200: "200 OK", 499: "499 Client Closed Request"}


def as_response(reply: Reply) -> Response:
    """The reply as Flask has it."""
    return Response(reply.body, reply.line, reply.headers, content_type=reply.kind)
