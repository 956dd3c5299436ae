"""Answer gunicorn's own errors in JSON, because clients parse every error body as the one error object of this server.

Such errors are a malformed request line, a header that is too long, an unknown transfer coding and the like.
"""

from __future__ import annotations

import orjson
from gunicorn import util

from tableside.server.gunicorn_types import Client


def write_json_error(sock: Client, status_int: int, reason: str, mesg: str) -> None:
    """Send the error object with this status to the client. The connection is closed by the caller."""
    detail = f"{reason}: {mesg}" if mesg else reason
    body = orjson.dumps(
        {"error": detail, "type": "about:blank", "title": reason, "status": status_int, "detail": detail}
    )
    head = (
        f"HTTP/1.1 {status_int} {reason}\r\nConnection: close\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    util.write_nonblock(sock, head.encode("latin-1") + body)


def install() -> None:
    """Let gunicorn write its errors with `write_json_error`. It has no setting for that."""
    util.write_error = write_json_error
