"""Send gunicorn's own errors as JSON, because clients parse every error body as this server's error object.

Such errors are a malformed request line, a header that is too long or an unknown transfer coding. The members of the
object are those of RFC 9457, and `error` for inference clients.
"""

from __future__ import annotations

import orjson
from gunicorn import util

from tableside.server.gunicorn_types import Client


def write_json_error(sock: Client, status_int: int, reason: str, mesg: str) -> None:
    """Send a response with this status and the error object. The caller closes the connection.

    The parameters have gunicorn's names. reason: the title of the status. mesg: what was wrong; it may be empty.
    """
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
    """Replace gunicorn's function that writes errors. There is no setting for it."""
    util.write_error = write_json_error
