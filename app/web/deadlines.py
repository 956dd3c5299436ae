"""When a request's answer must be there, and whether anybody still waits for it."""

from __future__ import annotations

import re
import socket
import time
from typing import Any

from tableside.errors import RequestRejected

HEADER = "X-Request-Timeout-Ms"
START = "X-Request-Start"
"""nginx's clock when it had the whole request: what it has waited in the kernel's queue counts."""
_START = re.compile(r"^t=([0-9]{1,12}\.[0-9]{3})\Z")
_MILLISECONDS = re.compile(r"^[0-9]{1,9}\Z")


def age_s(environ: dict[str, Any]) -> float:
    """How long the request has waited since nginx had it, in seconds. A header that came by TCP is not nginx's."""
    given = environ.get("HTTP_X_REQUEST_START")
    if given is None or getattr(environ.get("gunicorn.socket"), "family", None) != socket.AF_UNIX:
        return 0.0
    found = _START.match(given)
    age = time.time() - float(found[1]) if found else 0.0
    return age if 0.0 < age < 3600.0 else 0.0


def at_s(environ: dict[str, Any], started_s: float, budget_s: float) -> float:
    """The deadline on the monotonic clock: the operator's `budget_s`, or the client's where that is earlier.

    Raises RequestRejected for a header that is no whole number of milliseconds from 1.
    """
    given = environ.get("HTTP_X_REQUEST_TIMEOUT_MS")
    if given is not None:
        if not _MILLISECONDS.match(given) or int(given) == 0:
            raise RequestRejected(f"{HEADER} must be a whole number of milliseconds, from 1")
        budget_s = min(budget_s, int(given) / 1000)
    return started_s + budget_s
