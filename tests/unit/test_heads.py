"""A request read by memory is the request gunicorn reads; what gunicorn refuses is refused in the same words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from gunicorn import http
from gunicorn.config import Config
from gunicorn.http import wsgi
from hypothesis import given
from hypothesis import strategies as st

from app.concurrency import environs, heads, lines

POST = b"POST /v1/models/iris:predict?x=%20y#z HTTP/1.1\r\nHost: a.example:81\r\nContent-Type: application/json\r\n"
GET = b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n"
PLAIN = {
    "with a body": POST + b"Content-Length: 4\r\n\r\nbody",
    "an empty body": POST + b"Content-Length: 0\r\n\r\n",
    "no body": GET,
    "no headers": b"GET / HTTP/1.1\r\n\r\n",
    "head": b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n",
    "pipelined": POST + b"Content-Length: 4\r\n\r\nbody" + GET + POST + b"Content-Length: 2\r\n\r\n\r\n" + GET,
    "zeros before the length": POST + b"Content-Length: 004\r\n\r\nbody",
    "spaces": b"GET / HTTP/1.1\r\nHost:\t a \t\r\nX-Empty:\r\nX-Blank:  \r\n\r\n",
    "obs-text": b"GET / HTTP/1.1\r\nX: caf\xc3\xa9 \xff\r\n\r\n",
    "escapes in the path": b"GET /caf%C3%A9/%2f%0a//b?a=1&b HTTP/1.1\r\nHost: a\r\n\r\n",
    "two slashes": b"GET //a/b HTTP/1.1\r\nHost: a\r\n\r\n",
    "absolute": b"GET http://b:80/x HTTP/1.1\r\nHost: a\r\n\r\n",
    "asterisk": b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    "closing": b"GET / HTTP/1.1\r\nConnection: Close\r\n\r\n" + GET,
    "staying": b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" + GET,
    "an old version": b"GET / HTTP/1.0\r\nHost: a\r\n\r\n" + GET,
    "connect": b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n" + GET,
    "by https": b"GET / HTTP/1.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-For: 1.2.3.4\r\nHost: a\r\n\r\n",
    "by http": b"GET / HTTP/1.1\r\nX-Forwarded-Ssl: off\r\nHost: a\r\n\r\n",
    "nearly too many fields": b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: y\r\n" % at for at in range(10)) + b"\r\n",
    "an upgrade": b"GET / HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n",
}  # fmt: skip
OTHER = {
    "nothing": b"",
    "a line before": b"\r\n" + GET,
    "two lines before": b"\r\n\r\n" + GET,
    "chunked": POST + b"Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n" + GET,
    "chunked and a length": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
    "an unknown coding": POST + b"Transfer-Encoding: br\r\nContent-Length: 4\r\n\r\nbody",
    "a bad chunk": POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n" + GET,
    "two lengths": POST + b"Content-Length: 4\r\nContent-Length: 4\r\n\r\nbody" + GET,
    "a list of lengths": POST + b"Content-Length: 4, 4\r\n\r\nbody",
    "a signed length": POST + b"Content-Length: +4\r\n\r\nbody",
    "a negative length": POST + b"Content-Length: -4\r\n\r\nbody",
    "a length of other digits": POST + b"Content-Length: \xb2\r\n\r\nbody",
    "an empty length": POST + b"Content-Length:\r\n\r\nbody",
    "a huge length": POST + b"Content-Length: 12345678901234567890\r\n\r\nbody",
    "a body cut off": POST + b"Content-Length: 400\r\n\r\nbody",
    "two hosts": b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
    "two types": POST + b"Content-Type: text/plain\r\n\r\n",
    "repeated": b"GET / HTTP/1.1\r\nAccept: a\r\naccept: b\r\nHost: a\r\n\r\n",
    "folded": b"GET / HTTP/1.1\r\nX: a\r\n b\r\n\r\n",
    "folded at once": b"GET / HTTP/1.1\r\n X: a\r\n\r\n",
    "a space before the colon": b"GET / HTTP/1.1\r\nX : a\r\n\r\n",
    "no colon": b"GET / HTTP/1.1\r\nX\r\n\r\n",
    "no name": b"GET / HTTP/1.1\r\n: a\r\n\r\n",
    "a bad name": b"GET / HTTP/1.1\r\nX(y): a\r\n\r\n",
    "a name of other letters": b"GET / HTTP/1.1\r\n\xdf: a\r\n\r\n",
    "an underscore": b"GET / HTTP/1.1\r\nX_Y: a\r\nHost: a\r\n\r\n",
    "a script name": b"GET /a/b HTTP/1.1\r\nScript_Name: /a\r\nHost: a\r\n\r\n",
    "a script name elsewhere": b"GET /a/b HTTP/1.1\r\nSCRIPT_NAME: /c\r\nHost: a\r\n\r\n",
    "a carriage return in a value": b"GET / HTTP/1.1\r\nX: a\rb\r\n\r\n",
    "a line feed in a value": b"GET / HTTP/1.1\r\nX: a\nContent-Length: 5\r\n\r\n",
    "a null in a value": b"GET / HTTP/1.1\r\nX: a\0b\r\n\r\n",
    "bare line feeds": b"GET / HTTP/1.1\nHost: a\n\n",
    "too many fields": b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: y\r\n" % at for at in range(11)) + b"\r\n",
    "too long a field": b"GET / HTTP/1.1\r\nX: " + b"y" * 300 + b"\r\n\r\n",
    "fields longer together than one may be":
        b"GET / HTTP/1.1\r\nX: " + b"y" * 150 + b"\r\nZ: " + b"y" * 150 + b"\r\n\r\n",
    "too long a line": b"GET /" + b"y" * 120 + b" HTTP/1.1\r\n\r\n",
    "a small method": b"get / HTTP/1.1\r\n\r\n",
    "a bad method": b"G<T / HTTP/1.1\r\n\r\n",
    "no version": b"GET /\r\n\r\n",
    "a bad version": b"GET / HTTP/1.x\r\n\r\n",
    "version 2": b"GET / HTTP/2.0\r\n\r\n",
    "a space in the path": b"GET /a b HTTP/1.1\r\n\r\n",
    "a control in the path": b"GET /a\x7f HTTP/1.1\r\n\r\n",
    "no path": b"GET  HTTP/1.1\r\n\r\n",
    "a bad address": b"GET http://[b/ HTTP/1.1\r\n\r\n",
    "an expectation": POST + b"Content-Length: 4\r\nExpect: 100-continue\r\n\r\nbody" + GET,
    "a bad expectation": POST + b"Expect: more\r\n\r\n",
    "two schemes": b"GET / HTTP/1.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Ssl: off\r\n\r\n",
    "a head cut off": POST[:-5],
    "what follows is no request": POST + b"Content-Length: 2\r\n\r\nbody" + GET,
}  # fmt: skip
PLAIN_AT_FIRST = ("a body cut off", "what follows is no request")
PEERS: tuple[Any, ...] = ("", ("127.0.0.1", 9), ("192.0.2.1", 9))
LISTENERS: tuple[Any, ...] = (("127.0.0.1", 80), "/run/socket", "a:80")
READS = (None, 0, 1)
"""What the application reads of each body: all, nothing, one byte."""


def settings(**given: Any) -> Config:
    cfg = Config()
    small = {"limit_request_fields": 10, "limit_request_field_size": 200, "limit_request_line": 100}
    for name, value in {**small, **given}.items():
        cfg.set(name, value)
    return cfg


class Silent:
    """A connection nothing leaves by."""

    def send(self, content: bytes) -> int:
        return len(content)


def environ_of(create: Any, request: Any, cfg: Config, peer: Any, listener: Any) -> Any:
    try:
        response, environ = create(request, Silent(), peer, listener, cfg)
    except Exception as problem:
        return type(problem), str(problem)
    assert response.req is request
    assert environ.pop("wsgi.input") is request.body
    assert callable(environ.pop("wsgi.early_hints"))
    for same in ("wsgi.errors", "gunicorn.socket"):
        environ.pop(same)
    return environ


def all_said(parser: Any, create: Any, cfg: Config, peer: Any, reads: int | None) -> list[Any]:
    """What is known of each request on a connection, and how that ended."""
    said: list[Any] = []
    try:
        for request in parser:
            names = ("method", "uri", "path", "query", "fragment", "version", "headers", "scheme", "remote_addr",
                     "proxy_protocol_info", "req_number", "_expected_100_continue")  # fmt: skip
            said.append([getattr(request, name) for name in names])
            said.append(request.should_close())
            said += [environ_of(create, request, cfg, peer, listener) for listener in LISTENERS]
            if reads != 0:
                said.append(request.body.read(reads))
    except Exception as problem:
        said += [type(problem), str(problem)]
    return said


def compare(memory: heads.Memory, pieces: Iterable[bytes], peer: Any, reads: int | None = None) -> None:
    cfg, pieces = memory.cfg, list(pieces)
    wanted = all_said(http.RequestParser(cfg, pieces, peer), wsgi.create, cfg, peer, reads)
    for _ in ("not yet known", "known"):
        assert all_said(memory.parser(pieces, peer), environs.create, cfg, peer, reads) == wanted


def cuts(raw: bytes) -> Iterable[list[bytes]]:
    """Whole, and in two pieces, and byte by byte."""
    yield [raw]
    yield from ([raw[:at], raw[at:]] for at in range(1, len(raw), 7))
    yield [raw[at : at + 1] for at in range(len(raw))]


@pytest.mark.parametrize("raw", (PLAIN | OTHER).values(), ids=(PLAIN | OTHER).keys())
def test_read_as_gunicorn_reads(raw: bytes) -> None:
    """The same requests, environs, bodies, rests and refusals, however it arrives and whatever is read of its body."""
    memory = heads.Memory(settings())
    for peer in PEERS:
        for pieces in cuts(raw):
            compare(memory, pieces, peer)
        for reads in READS:
            compare(memory, [raw], peer, reads)


@pytest.mark.parametrize(
    "given", [
        {"limit_request_fields": 0, "limit_request_field_size": 0, "limit_request_line": 0},
        {"header_map": "dangerous"}, {"header_map": "refuse"}, {"strip_header_spaces": True},
        {"permit_obsolete_folding": True}, {"permit_unconventional_http_method": True},
        {"permit_unconventional_http_version": True}, {"casefold_http_method": True},
        {"forwarded_allow_ips": "*"}, {"forwarder_headers": "X_Y,SCRIPT_NAME"},
        {"secure_scheme_headers": {"HOST": "a"}},
    ], ids=str,
)  # fmt: skip
def test_settings_that_change_what_is_good(given: dict[str, Any]) -> None:
    """Also with gunicorn's other settings, which change what it takes."""
    memory = heads.Memory(settings(**given))
    for raw in (PLAIN | OTHER).values():
        for peer in PEERS:
            compare(memory, [raw], peer)


LINES = st.sampled_from(
    sorted({line for raw in (PLAIN | OTHER).values() for line in raw.split(b"\r\n\r\n")[0].split(b"\r\n")})
)


@given(given_lines=st.lists(LINES, min_size=1, max_size=5), body=st.binary(max_size=8), at=st.integers(0, 200))
def test_lines_in_any_order(given_lines: list[bytes], body: bytes, at: int) -> None:
    """Good and bad lines that follow each other by chance."""
    raw = b"\r\n".join([b"POST / HTTP/1.1", *given_lines]) + b"\r\n\r\n" + body + GET
    compare(heads.Memory(settings()), [raw[:at] or raw, raw[at:]] if raw[:at] else [raw], ("127.0.0.1", 9))


def test_who_is_read_by_memory() -> None:
    """All that is plain, and nothing else; and a whole body is there at once."""
    memory = heads.Memory(settings())
    for name, raw in (PLAIN | OTHER).items():
        try:
            first = next(memory.parser([raw], "")) if raw else None
        except Exception:
            first = None
        assert (type(first) is heads.PlainRequest) == (name in PLAIN or name in PLAIN_AT_FIRST), name


def test_what_is_kept_is_bounded() -> None:
    """Lines that clients make up push each other out; long ones, ids and secrets are not kept at all."""
    fields = lines.Fields()
    for at in range(3 * lines.MOST_KEPT):
        assert fields[b"X-Mine: %d" % at] == ("X-MINE", str(at))
        assert len(fields) <= lines.MOST_KEPT
    for line in (b"X-Long: " + b"y" * 300, b"Authorization: Bearer x", b"Cookie: a", b"X-Request-ID: 1", b"bad"):
        fields[line]
        assert line not in fields
    keys = environs._Keys()
    assert {len(keys) for at in range(3 * lines.MOST_KEPT) if keys[f"X-{at}"]} <= set(range(lines.MOST_KEPT + 1))


def test_other_protocols_are_gunicorn_s() -> None:
    """A connection that begins with the PROXY protocol, or speaks uwsgi's, is not read here at all."""
    for other in ({"proxy_protocol": "v1"}, {"protocol": "uwsgi"}):
        assert not isinstance(heads.Memory(settings(**other)).parser([GET], ("127.0.0.1", 9)), heads.Parser)
