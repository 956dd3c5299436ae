"""A request as the prediction routes see it: plain WSGI, and its body."""

from __future__ import annotations

import re
from typing import Any, Protocol, TypeVar

import msgspec
from werkzeug.datastructures import MultiDict
from werkzeug.exceptions import ClientDisconnected
from werkzeug.wrappers import Request

from tableside.decoding import inflate
from tableside.decoding.rules import malformed
from tableside.errors import RequestRejected
from tableside.settings import Server
from tableside.telemetry.request_trace import RequestTrace
from tableside.web.extensions import Extensions

T = TypeVar("T")


_NOT_JSON = re.compile(rb"[\[:,\s-](NaN|Infinity)\b")


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


def read_body(environ: dict[str, Any], limits: Server) -> Body:
    """The whole body. Raises werkzeug's RequestEntityTooLarge over the limit, ClientDisconnected when it is cut."""
    encoding = environ.get("HTTP_CONTENT_ENCODING", "")
    if encoding:
        encoding = encoding.strip().lower()
        encoding = "" if encoding == "identity" else encoding
    return Body(_raw_body(environ, limits), encoding, limits.max_inflated_bytes)


def _raw_body(environ: dict[str, Any], limits: Server) -> bytes:
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


def parse_json(body: bytes, kind: type[T], limit_bytes: int | None = None, narrow: type[T] | None = None) -> T:
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


Environ = dict[str, Any]


class InFlight(Protocol):
    """The gauge of one model's requests in flight."""

    def inc(self, amount: float = 1) -> None:
        """Add `amount`."""


class RequestContext(msgspec.Struct):
    """environ: the request (PEP 3333). extensions: what was wired in the factory. trace: what is known of the request.

    in_flight: where the request counts as in flight; None before it is admitted and after it is answered.
    """

    environ: Environ
    extensions: Extensions
    trace: RequestTrace
    in_flight: InFlight | None = None

    def enter(self, gauge: InFlight) -> None:
        """Count the request as in flight until `leave`."""
        gauge.inc()
        self.in_flight = gauge

    def leave(self) -> None:
        """The request is answered, or has failed."""
        if self.in_flight is not None:
            self.in_flight.inc(-1)
            self.in_flight = None

    def header(self, key: str) -> str:
        """A header by its WSGI key (`HTTP_ACCEPT`, `CONTENT_TYPE`); empty when it was not sent."""
        value: str = self.environ.get(key, "")
        return value

    def body(self) -> Body:
        """The whole body. Raises werkzeug's RequestEntityTooLarge over the limit, ClientDisconnected when it is cut."""
        return read_body(self.environ, self.extensions.settings.server)

    def query(self) -> MultiDict[str, str]:
        """The parameters of the address."""
        return Request(self.environ).args if self.environ.get("QUERY_STRING") else MultiDict()
