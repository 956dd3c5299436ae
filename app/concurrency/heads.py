"""Requests with a plain head, read by memory of lines that gunicorn's rules found good.

Plain is what nearly every client sends: a whole head in what has arrived, each header once, none that changes how the
rest is read. Anything else, and with it all that is wrong, goes to gunicorn's parser as it came: what is refused, and
how, is decided there alone (docs/decisions/0005).
"""

from __future__ import annotations

from io import BytesIO
from typing import Any, Generic, NamedTuple, TypeVar

from gunicorn import http, util
from gunicorn.http.body import Body, LengthReader
from gunicorn.http.errors import ParseException
from gunicorn.http.message import DEFAULT_MAX_HEADERFIELD_SIZE, MAX_HEADERS, TOKEN_RE, HeaderPolicy, Request
from gunicorn.http.message import RFC9110_5_5_INVALID_AND_DANGEROUS as BAD_IN_VALUE
from gunicorn.http.parser import RequestParser

T = TypeVar("T")
Field = tuple[str, str]
MOST_KEPT, MOST_KEPT_BYTES = 1024, 256
MOST_DIGITS = 15

CHANGING_THE_REST = {"TRANSFER-ENCODING", "EXPECT"}
NEVER_KEPT = {"X-REQUEST-ID", "X-REQUEST-START", "TRACEPARENT", "AUTHORIZATION", "PROXY-AUTHORIZATION", "COOKIE"}
"""Other in each request, or nobody else's business."""


class Kept(dict[bytes, T | None], Generic[T]):
    """What a line was read as. Lines are the clients' choice: when too many are kept, all are forgotten."""

    def __missing__(self, line: bytes) -> T | None:
        found, is_kept = self.read(line)
        if is_kept and len(line) <= MOST_KEPT_BYTES:
            if len(self) >= MOST_KEPT:
                self.clear()
            self[line] = found
        return found

    def read(self, line: bytes) -> tuple[T | None, bool]:
        """What the line says, None if it is not plain; and whether to remember that."""
        raise NotImplementedError


class Target(NamedTuple):
    """A request line."""

    attributes: dict[str, Any]
    """As gunicorn's request has them: method, uri, path, query, fragment, version."""
    environ: dict[str, str]
    closes: bool
    """Whether the connection ends after the answer, unless a Connection header says more."""


class Targets(Kept[Target]):
    """Request lines, read by gunicorn's own method."""

    def __init__(self, cfg: Any) -> None:
        super().__init__()
        self.cfg = cfg

    def read(self, line: bytes) -> tuple[Target | None, bool]:
        """See Kept."""
        asked = object.__new__(Request)
        asked.cfg, asked.must_close, asked.headers = self.cfg, False, []
        if len(line) > self.cfg.limit_request_line > 0:
            return None, False
        try:
            asked.parse_request_line(line)
        except ParseException:
            return None, False
        names = ("method", "uri", "path", "query", "fragment", "version")
        environ = {
            "REQUEST_METHOD": asked.method,
            "QUERY_STRING": asked.query,
            "RAW_URI": asked.uri,
            "SERVER_PROTOCOL": f"HTTP/{asked.version[0]}.{asked.version[1]}",
            "PATH_INFO": util.unquote_to_wsgi_str(asked.path),
            "SCRIPT_NAME": "",
        }
        return Target({name: getattr(asked, name) for name in names}, environ, asked.should_close()), True


class Fields(Kept[Field]):
    """Header lines as (NAME, value), by gunicorn's own patterns."""

    def read(self, line: bytes) -> tuple[Field | None, bool]:
        """See Kept. A name with an underscore is for gunicorn: who may send it depends on the peer."""
        name, colon, value = line.decode("latin-1").partition(":")
        if not colon or "_" in name or not TOKEN_RE.fullmatch(name) or BAD_IN_VALUE.search(value):
            return None, False
        name = name.upper()
        if name in CHANGING_THE_REST:
            return None, False
        return (name, value.strip(" \t")), name not in NEVER_KEPT


class Memory:
    """A worker's."""

    def __init__(self, cfg: Any) -> None:
        self.cfg = cfg
        self.targets, self.fields = Targets(cfg), Fields()
        self.most_fields = cfg.limit_request_fields if 0 < cfg.limit_request_fields <= MAX_HEADERS else MAX_HEADERS
        self.most_bytes = cfg.limit_request_field_size
        if self.most_bytes <= 0:
            self.most_bytes = DEFAULT_MAX_HEADERFIELD_SIZE
        self.scheme = "https" if cfg.is_ssl else "http"

    def parser(self, client: Any, address: Any) -> Any:
        """For one connection; gunicorn's where it does not begin with a request, or speaks something else."""
        if self.cfg.protocol != "http" or self.cfg.proxy_protocol != "off":
            return http.get_parser(self.cfg, client, address)
        return Parser(self, client, address)


class PlainRequest(Request):
    """gunicorn's request, read in another way."""

    must_close = False
    proxy_protocol_info = None
    trailers: tuple[()] = ()
    _expected_100_continue = False

    def __init__(self, parser: Parser, target: Target, fields: list[Field], by_name: dict[str, str]) -> None:
        self.__dict__.update(target.attributes)
        self.cfg, self.unreader, self.req_number = parser.cfg, parser.unreader, parser.req_count
        self.peer_addr = self.remote_addr = parser.source_addr
        self.headers, self.by_name, self.target = fields, by_name, target
        self.scheme = parser.memory.scheme
        self._closes = super().should_close() if "CONNECTION" in by_name else target.closes

    def should_close(self) -> bool:
        """As gunicorn's, which reads the headers at each of four calls."""
        return self.must_close or self._closes


class Parser(RequestParser):
    """The requests of one connection."""

    mesg: Any
    req_count: int

    def __init__(self, memory: Memory, client: Any, address: Any) -> None:
        super().__init__(memory.cfg, client, address)
        self.memory = memory
        peer = HeaderPolicy()
        peer.cfg, peer.peer_addr = memory.cfg, address
        self._secure: dict[str, str] = peer._peer_trusted_for_forwarded()[0]

    def __next__(self) -> Any:
        """The next request. Raises StopIteration at the end, and what gunicorn raises for a bad one."""
        if self.mesg and self.mesg.should_close():
            raise StopIteration
        if self.mesg and type(self.mesg.body) is not BytesIO and not self.finish_body():
            raise StopIteration
        self.req_count += 1
        arrived = self.unreader.read()
        if not arrived:
            raise StopIteration
        self.mesg = self._plain(arrived)
        if self.mesg is None:
            self.unreader.unread(arrived)
            self.mesg = self.mesg_class(self.cfg, self.unreader, self.source_addr, self.req_count)
        return self.mesg

    def _plain(self, arrived: bytes) -> PlainRequest | None:
        """The request at the beginning of what has arrived, if it is plain. No field is longer than a head that is
        shorter than the longest field.
        """
        end = arrived.find(b"\r\n\r\n")
        if not 0 < end <= self.memory.most_bytes:
            return None
        line, *lines = arrived[:end].split(b"\r\n")
        target = self.memory.targets[line]
        known = self.memory.fields
        fields = [field for line in lines if (field := known[line])]
        by_name = dict(fields)
        if target is None or len(by_name) < len(lines) or len(lines) > self.memory.most_fields:
            return None
        length = by_name.get("CONTENT-LENGTH", "0")
        if not (length.isascii() and length.isdecimal() and len(length) <= MOST_DIGITS):
            return None
        schemes = [by_name[name] == secure for name, secure in self._secure.items() if name in by_name]
        if len(schemes) > 1:
            return None
        request = PlainRequest(self, target, fields, by_name)
        if schemes:
            request.scheme = "https" if schemes[0] else "http"
        request.body = self._body(arrived, end + 4, int(length))
        return request

    def _body(self, arrived: bytes, begins: int, length: int) -> Any:
        """Whole, if it has arrived; what follows it stays for the next request."""
        ends = begins + length
        if len(arrived) > ends:
            self.unreader.unread(arrived[ends:])
        elif len(arrived) < ends:
            self.unreader.unread(arrived[begins:])
            return Body(LengthReader(self.unreader, length))
        return BytesIO(arrived[begins:ends])
