"""Request bodies in, JSON out."""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec
import orjson
from flask import Response
from werkzeug.exceptions import ClientDisconnected
from werkzeug.wrappers import Request

from app.contract import inflate
from app.contract.rules import malformed
from app.errors import RequestRejected
from app.settings import Server

T = TypeVar("T")
JSON = "application/json"
_NOT_JSON = re.compile(rb"[\[:,\s-](NaN|Infinity)\b")
_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS


class Body(msgspec.Struct, frozen=True):
    """A body as it came. `encoding`: its Content-Encoding; `limit_bytes`: what it may inflate to."""

    raw: bytes
    encoding: str
    limit_bytes: int

    @property
    def weight(self) -> int:
        """How much work it is to read, in bytes; a compressed one may be any size."""
        return self.limit_bytes if self.encoding else len(self.raw)

    def content(self) -> bytes:
        """The bytes the client meant. Raises TooLarge, UnsupportedBody or RequestRejected."""
        return inflate.inflate(self.raw, self.encoding, self.limit_bytes)


def read(environ: dict[str, Any], limits: Server) -> Body:
    """The whole body. Raises werkzeug's RequestEntityTooLarge over the limit, ClientDisconnected when it is cut."""
    encoding = environ.get("HTTP_CONTENT_ENCODING", "")
    if encoding:
        encoding = encoding.strip().lower()
        encoding = "" if encoding == "identity" else encoding
    return Body(_raw(environ, limits), encoding, limits.max_inflated_bytes)


def _raw(environ: dict[str, Any], limits: Server) -> bytes:
    length = environ.get("CONTENT_LENGTH", "")
    if length.isdecimal() and length.isascii() and len(length) < 20:
        size = int(length)
        if size <= limits.max_body_bytes:
            raw: bytes = environ["wsgi.input"].read(size)
            if len(raw) < size:
                raise ClientDisconnected
            return raw
    request = Request(environ)  # without a length, or with too great a one
    request.max_content_length = limits.max_body_bytes
    return request.get_data(cache=False)


def parse(body: bytes, kind: type[T], limit_bytes: int | None = None, narrow: type[T] | None = None) -> T:
    """JSON of that shape, whatever the Content-Type says.

    limit_bytes: what its cells may take in memory. narrow: a subclass of `kind` whose fields are narrower, made instead
    where the body is one. Raises RequestRejected naming the place, or TooLarge.
    """
    if not body:
        raise RequestRejected("the body is empty; JSON was expected")
    if limit_bytes is not None:
        inflate.check_cells(body, limit_bytes)
    if narrow is not None:
        try:
            return msgspec.json.decode(body, type=narrow)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as problem:
        message, _, place = str(problem).partition(" - at ")
        raise malformed(place.strip("`").removeprefix("$").removeprefix(".") or "body", message) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        detail = "nested too deeply" if isinstance(problem, RecursionError) else _where(problem)
        hint = "; NaN and Infinity are not JSON, a missing cell is null" if _NOT_JSON.search(body) else ""
        raise RequestRejected(f"the body is not JSON: {detail}{hint}") from None


def _where(problem: Exception) -> str:
    if isinstance(problem, UnicodeDecodeError):
        return f"byte {problem.start} is not UTF-8"
    return str(problem).removeprefix("JSON is malformed: ")


def dumps(content: Any) -> bytes:
    """JSON text; numpy arrays at their own width, not-finite numbers as null."""
    return orjson.dumps(content, option=_OPTIONS)


def answer(content: Any, status: int = 200) -> Response:
    """A JSON response."""
    return written(dumps(content), status=status)


def written(text: bytes, kind: str = JSON, status: int = 200) -> Response:
    """A response of that text."""
    return Response(text, status, content_type=kind)
