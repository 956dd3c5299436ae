"""Request and header lines that gunicorn's rules found good: clients repeat them, so they are read once.

A line that is not plain is None: what is to become of it is gunicorn's to say.
"""

from __future__ import annotations

from typing import Any, Generic, NamedTuple, TypeVar

from gunicorn import util
from gunicorn.http.errors import ParseException
from gunicorn.http.message import MAX_REQUEST_LINE, TOKEN_RE, Request
from gunicorn.http.message import RFC9110_5_5_INVALID_AND_DANGEROUS as BAD_IN_VALUE

T = TypeVar("T")
Field = tuple[str, str]
MOST_KEPT, MOST_KEPT_BYTES = 1024, 256

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
        if len(line) > min(self.cfg.limit_request_line, MAX_REQUEST_LINE) > 0:
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
