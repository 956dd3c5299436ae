"""A request as the prediction handlers see it: the WSGI environ, the application's parts, the trace and the body."""

from __future__ import annotations

import re
from contextlib import suppress
from io import BufferedIOBase
from typing import TypeVar
from wsgiref.types import WSGIEnvironment

import msgspec
from werkzeug.datastructures import MultiDict
from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge
from werkzeug.wrappers import Request

from tableside.decoding import inflate, json_place, json_size, json_words
from tableside.decoding.rules import malformed
from tableside.errors import RequestRejected
from tableside.process.worker_hand import Held
from tableside.server import broken_bodies
from tableside.serving.servable import Servable
from tableside.settings import Server
from tableside.telemetry.request_metrics import InFlight
from tableside.telemetry.request_trace import RequestTrace
from tableside.web import body_size
from tableside.web.extensions import Extensions

T = TypeVar("T")
_SMALL_DIGITS = 5
"""Bodies whose length has at most so many digits do not count among the bytes in hand: their number is limited."""
_NOT_JSON = re.compile(rb"[\[:,\s-](NaN|Infinity)\b")
_SYNTAX_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Body(msgspec.Struct, frozen=True):
    """A request body as received. encoding: its Content-Encoding. limits: the settings that bound it."""

    raw: bytes
    encoding: str
    limits: Server

    @property
    def limit_bytes(self) -> int:
        """How large the body may be once inflated, and its table."""
        return body_size.limit_bytes(len(self.raw), self.limits)

    @property
    def json_limit_bytes(self) -> int:
        """How much the body may count if it is JSON (`decoding.json_size`)."""
        return body_size.json_limit_bytes(len(self.raw), self.limits)

    @property
    def max_content_bytes(self) -> int:
        """The most bytes that `content` may return. A compressed body counts as its limit: its size is not known."""
        return self.limit_bytes if self.encoding else len(self.raw)

    def content(self) -> bytes:
        """The body, inflated. Raises TooLarge, UnsupportedBody or RequestRejected."""
        return inflate.inflate(self.raw, self.encoding, self.limit_bytes) if self.encoding else self.raw


class RequestContext(msgspec.Struct):
    """What a prediction handler is given.

    environ: the request (PEP 3333). extensions: the application's parts. trace: what is known of the request so far.
    in_flight: where the request is counted; None before the request is admitted and after it is answered.
    held_bytes: what its body counts among the bytes that the worker holds. raw: the body as received. held: where the
    request is recorded as in hand; None before it is admitted.
    """

    environ: WSGIEnvironment
    extensions: Extensions
    trace: RequestTrace
    in_flight: InFlight | None = None
    held_bytes: int = 0
    raw: bytes = b""
    held: Held | None = None

    def enter(self, in_flight: InFlight) -> None:
        """Count the request as in flight until `leave` is called."""
        in_flight.enter()
        self.in_flight = in_flight

    def leave(self) -> None:
        """Stop counting the request as in flight, and its body. Does nothing for a request that was not admitted."""
        if self.held is not None:
            self.held.end()
            self.held = None
        if self.held_bytes:
            self.extensions.bytes_in_hand.give_back(self.held_bytes)
            self.held_bytes = 0
        if self.in_flight is not None:
            self.in_flight.leave()
            self.in_flight = None

    def servable(self, spec: str, version: str | None = None) -> Servable:
        """The servable that answers this request: of a request that names no version, perhaps the model's canary.

        Waits and raises as `Extensions.servable` does.
        """
        extensions = self.extensions
        found, catalog = extensions.registry.answering(spec, version, extensions.settings.server.request_timeout_s)
        self.trace.generation = catalog.generation
        traffic = found.traffic
        if traffic is not None and version is None and spec == found.name:
            self.trace.watch = traffic
            value = self.environ.get(traffic.header, "") if traffic.header else ""
            found = traffic.pick(found, value, catalog)
        return found

    def header(self, key: str) -> str:
        """A header by its WSGI key (`HTTP_ACCEPT`, `CONTENT_TYPE`); empty when the request does not have it."""
        value: str = self.environ.get(key, "")
        return value

    def body(self) -> Body:
        """The whole body. Raises as `read_body` does, and Overloaded when the worker holds too many bytes of bodies.

        A large body counts from before it is read. A chunked one counts as the largest that is allowed.
        """
        limits, length = self.extensions.settings.server, self.environ.get("CONTENT_LENGTH") or ""
        if len(length) > _SMALL_DIGITS or (not length and "HTTP_TRANSFER_ENCODING" in self.environ):
            stated = int(length) if length.isdecimal() and len(length) < 20 else limits.max_body_bytes
            size = min(stated, limits.max_body_bytes)
            self.extensions.bytes_in_hand.take(size)
            self.held_bytes += size
        body = read_body(self.environ, limits)
        self.raw = body.raw
        return body

    def query(self) -> MultiDict[str, str]:
        """The parameters of the query string."""
        return Request(self.environ).args if self.environ.get("QUERY_STRING") else MultiDict()


def read_body(environ: WSGIEnvironment, limits: Server) -> Body:
    """Read the whole body, without inflating it.

    Raises werkzeug's RequestEntityTooLarge above `server.max_body_bytes`, ClientDisconnected when the connection ends
    before the body does, and RequestRejected for chunks that are not valid HTTP.
    """
    encoding = environ.get("HTTP_CONTENT_ENCODING", "").strip().lower()
    return Body(_raw_body(environ, limits), "" if encoding == "identity" else encoding, limits)


def _raw_body(environ: WSGIEnvironment, limits: Server) -> bytes:
    length, stream = environ.get("CONTENT_LENGTH", ""), environ["wsgi.input"]
    if length.isdecimal() and length.isascii() and len(length) < 20:
        size = int(length)
        if size <= limits.max_body_bytes:
            return _read(stream, size, at_least=size)
    elif environ.get("wsgi.input_terminated"):
        # werkzeug would cut such a body at the limit and report no error: rows would be missing from the answer.
        raw = _read(stream, limits.max_body_bytes + 1)
        if len(raw) > limits.max_body_bytes:
            raise RequestEntityTooLarge
        return raw
    request = Request(environ)  # has an empty body without a length, and rejects a length over the limit
    request.max_content_length = limits.max_body_bytes
    return request.get_data(cache=False)


def _read(stream: BufferedIOBase, size: int, at_least: int = 0) -> bytes:
    try:
        raw = stream.read(size)
    except OSError as problem:  # gunicorn's error for a chunked body that ends within a chunk
        raise ClientDisconnected from problem
    except broken_bodies.BROKEN as problem:
        raise RequestRejected(broken_bodies.describe(problem)) from None
    if len(raw) < at_least:
        raise ClientDisconnected
    return raw


def parse_json(
    body: bytes, kind: type[T], limit_bytes: int | None = None, narrow: type[T] | None = None, is_strict: bool = True
) -> T:
    """Decode JSON into `kind`, whatever the Content-Type is. A byte order mark before it is skipped.

    limit_bytes: how much the text may count (`decoding.json_size`); None means no limit. narrow: a subclass of
    `kind` with narrower field types, which is tried first because it decodes faster. is_strict: whether NaN and
    Infinity are refused; otherwise NaN is null. Raises RequestRejected, which names the place of a member that does not
    fit, or TooLarge.
    """
    if not body:
        raise RequestRejected("the body is empty; send a JSON object, with a Content-Length or chunked")
    if limit_bytes is not None:
        json_size.check(body, limit_bytes)
    try:
        return _decoded(body, kind, narrow)
    except _SYNTAX_ERRORS as problem:
        text = body.removeprefix(json_words.BOM)
        changed = text if is_strict else json_words.as_json(text)
        if changed is not body:
            with suppress(*_SYNTAX_ERRORS):
                return _decoded(changed, kind, narrow)
        raise RequestRejected(f"the body is not valid JSON: {_syntax_error(text, problem, is_strict)}") from None


def _decoded(text: bytes, kind: type[T], narrow: type[T] | None) -> T:
    """Decode the text. Raises RequestRejected for a member that does not fit, and one of _SYNTAX_ERRORS."""
    if narrow is not None:
        try:  # `suppress` would be three calls for each request
            return msgspec.json.decode(text, type=narrow)
        except _SYNTAX_ERRORS:
            pass
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.ValidationError as problem:
        message, _, place = str(problem).partition(" - at ")
        raise malformed(place.strip("`").removeprefix("$").removeprefix(".") or "body", message) from None


def _syntax_error(text: bytes, problem: Exception, is_strict: bool) -> str:
    """Return what is wrong with the text and where, apart from words that are no JSON and are read nevertheless."""
    if isinstance(problem, RecursionError):
        return "nested too deeply"
    hint = ". JSON has no NaN and no Infinity; send null for a missing cell" if _NOT_JSON.search(text) else ""
    found = json_place.describe(text if is_strict else json_words.of_same_length(text))
    return f"{found or problem}{hint if is_strict else ''}"
