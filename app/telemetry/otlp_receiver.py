"""The receiver of spans, as one worker sees it: one kept connection, and what each answer means.

It uses the standard library's client, which waits cooperatively where gevent has patched sockets.
"""

from __future__ import annotations

import http.client
import ssl
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from tableside import __version__, private_files
from tableside.errors import SettingsError
from tableside.telemetry import otlp

RETRIABLE = frozenset((429, 502, 503, 504))
"""Statuses after which the same spans may be sent again, as OTLP says. All others are final."""
MAX_RETRY_AFTER_S = 60.0
_MAX_ANSWER_BYTES = 65536
_CONNECT_ERRORS = (OSError, http.client.HTTPException)


class Outcome(NamedTuple):
    """What came of sending spans once. problem: empty if they were taken. retry_after_s: what the receiver asks for."""

    problem: str = ""
    is_final: bool = True
    retry_after_s: float = 0.0
    rejected: otlp.Rejected = otlp.Rejected(0, "")


def read_headers(path: Path) -> dict[str, str]:
    """Read the file of `tracing.headers_file`: one `NAME: VALUE` a line; empty lines and lines with # are skipped.

    Raises SettingsError if it cannot be read, if others may read it, or for a line that is no header.
    """
    try:
        found = private_files.problem(path.stat(), path)
        lines = path.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError) as problem:
        raise SettingsError(f"tracing.headers_file: cannot read {path}: {type(problem).__name__}") from problem
    if found:
        raise SettingsError(f"tracing.headers_file: {path} {found}")
    headers = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, colon, value = line.partition(":")
        if not colon or not name.replace("-", "").replace("_", "").isalnum() or not value.strip().isprintable():
            raise SettingsError(f"tracing.headers_file: line {number} of {path} is not NAME: VALUE")
        headers[name] = value.strip()
    return headers


class Receiver:
    """Sends messages to one receiver of OTLP over HTTP. Only one thread may use it.

    endpoint: its base URL. headers: a file with further headers, read before each message, so that a new key in it
    counts at once; None for none. timeout_s: for connecting, and for each read and write.
    """

    def __init__(self, endpoint: str, headers: Path | None, timeout_s: float) -> None:
        parts = urlsplit(endpoint)
        self.name = f"{parts.scheme}://{parts.netloc}"
        """The receiver's address, for the log."""
        self._is_tls = parts.scheme == "https"
        self._host, self._port = str(parts.hostname), parts.port
        self._path = parts.path.rstrip("/") + otlp.PATH
        self._headers = headers
        self._timeout_s = timeout_s
        self._connection: http.client.HTTPConnection | None = None

    def send(self, message: bytes) -> Outcome:
        """Send one message. Never raises: a problem is in the outcome."""
        was_kept = self._connection is not None
        try:
            return self._send(message)
        except SettingsError as problem:
            return Outcome(str(problem), is_final=False)
        except _CONNECT_ERRORS as problem:
            self.close()
            if was_kept and not isinstance(problem, TimeoutError):  # the receiver had closed an idle connection
                return self.send(message)
            return Outcome(f"{type(problem).__name__}: {problem}", is_final=False)

    def _send(self, message: bytes) -> Outcome:
        headers = {"Content-Type": otlp.CONTENT_TYPE, "User-Agent": f"tableside/{__version__}"}
        if self._headers is not None:
            headers |= read_headers(self._headers)
        if self._connection is None:
            self._connection = self._open()
        self._connection.request("POST", self._path, message, headers)
        answer = self._connection.getresponse()
        body = answer.read(_MAX_ANSWER_BYTES)
        if answer.will_close or not answer.isclosed():
            self.close()
        return _outcome(answer.status, answer.getheader("Retry-After", ""), body)

    def _open(self) -> http.client.HTTPConnection:
        if self._is_tls:
            return http.client.HTTPSConnection(
                self._host, self._port, timeout=self._timeout_s, context=ssl.create_default_context()
            )
        return http.client.HTTPConnection(self._host, self._port, timeout=self._timeout_s)

    def close(self) -> None:
        """Close the connection; the next message opens another one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _outcome(status: int, after: str, body: bytes) -> Outcome:
    if 200 <= status < 300:
        return Outcome(rejected=otlp.rejected(body))
    wait_s = min(float(after), MAX_RETRY_AFTER_S) if after.isascii() and after.isdigit() else 0.0
    return Outcome(f"status {status}", status not in RETRIABLE, wait_s)
