"""Requests with a plain head, read by memory of lines that gunicorn's rules found good.

Plain is what nearly every client sends: a whole head in what has arrived, each header once, none that changes how the
rest is read. Anything else, and with it all that is wrong, goes to gunicorn's parser as it came: what is refused, and
how, is decided there alone (docs/decisions/0005).
"""

from __future__ import annotations

from io import BytesIO
from typing import Any

from gunicorn import http
from gunicorn.http.body import Body, LengthReader
from gunicorn.http.message import DEFAULT_MAX_HEADERFIELD_SIZE, MAX_HEADERS, HeaderPolicy, Request
from gunicorn.http.parser import RequestParser

from app.concurrency.lines import Field, Fields, Target, Targets

MOST_DIGITS = 15


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
