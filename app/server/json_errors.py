"""Send gunicorn's own errors as JSON, because clients parse every error body as this server's error object.

Such errors are a malformed request line, a header that is too long or an unknown transfer coding. The members of the
object are those of RFC 9457, and `error` for inference clients.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable

import orjson
from gunicorn import util

from tableside.server import head_limits
from tableside.server.gunicorn_types import Client, Settings

WriteError = Callable[[Client, int, str, str], None]


def writer(limits: Settings, behind_nginx: bool = False) -> WriteError:
    """Return a function that sends a response with a status and the error object. The caller closes the connection.

    Its parameters are those of gunicorn's function: the connection, the status, its title, and what was wrong, which
    may be empty. limits: gunicorn's settings; the errors name those of this server that they come from.
    """
    hints = {status: f" ({hint})" for status, hint in head_limits.hints(limits, behind_nginx).items()}

    def write(sock: Client, status_int: int, reason: str, mesg: str) -> None:
        detail = (f"{reason}: {mesg}" if mesg else reason) + hints.get(status_int, "")
        # The head could not be read, or only in part, so that the request has no id of its own.
        request_id = uuid.uuid4().hex
        body = orjson.dumps({
            "error": detail, "type": "about:blank", "title": reason, "status": status_int, "detail": detail,
            "instance": request_id,
        })  # fmt: skip
        head = (
            f"HTTP/1.1 {status_int} {reason}\r\nConnection: close\r\nContent-Type: application/json\r\n"
            f"X-Request-ID: {request_id}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        util.write_nonblock(sock, head.encode("latin-1") + body)

    return write


def install(limits: Settings) -> None:
    """Replace gunicorn's function that writes errors. There is no setting for it."""
    util.write_error = writer(limits, head_limits.is_behind_nginx())
