"""The deadline of a request, and how long the request waited before this worker read it."""

from __future__ import annotations

import re
import time
from wsgiref.types import WSGIEnvironment

from tableside.errors import RequestRejected
from tableside.settings import Server
from tableside.web import peer

HEADER = "X-Request-Timeout-Ms"
"""Request header: how long the client waits for its answer, in milliseconds."""
START = "X-Request-Start"
"""Request header that nginx sets to the time at which it had received the whole request.

The time that a request waits in the kernel's accept queue is not visible to a worker; this header makes it count.
"""
SENDS_FILES = ";files"
"""What nginx adds to X-Request-Start if it sends answer files: an older configuration, which serves on while code is
replaced, does not. A header of its own would cost each request 2 us.
"""
_START_VALUE = re.compile(r"^t=([0-9]{1,12}\.[0-9]{3})\Z")
_MILLISECONDS = re.compile(r"^[0-9]{1,9}\Z")


def age_s(environ: WSGIEnvironment, server: Server) -> float:
    """Seconds since nginx had received the request; 0 when the request has no start time.

    A request that nginx received longer ago than it waits for an answer cannot be here: the clock has been set, and the
    start time is ignored. The header counts on Unix sockets only, which nginx alone connects to: over TCP any client
    could send it.
    """
    header = environ.get("HTTP_X_REQUEST_START")
    if header is None or not peer.is_nginx(environ):
        return 0.0
    match = _START_VALUE.match(header.removesuffix(SENDS_FILES))
    age = time.time() - float(match[1]) if match else 0.0
    return age if 0.0 < age <= server.proxy_read_timeout_s else 0.0


def at_s(environ: WSGIEnvironment, started_s: float, budget_s: float) -> float:
    """The deadline, in seconds of the monotonic clock: `started_s` plus the smaller of two budgets.

    budget_s: the operator's budget; the client's is in the X-Request-Timeout-Ms header. Raises RequestRejected when
    the header is not a whole number of milliseconds, from 1 to 999999999.
    """
    header = environ.get("HTTP_X_REQUEST_TIMEOUT_MS")
    if header is not None:
        if not _MILLISECONDS.match(header) or int(header) == 0:
            raise RequestRejected(f"{HEADER}: expected a whole number of milliseconds, from 1 to 999999999")
        budget_s = min(budget_s, int(header) / 1000)
    return started_s + budget_s
