"""Request ids: the client's own where it is valid, a new one otherwise."""

from __future__ import annotations

import re
import uuid
from itertools import count
from wsgiref.types import WSGIEnvironment

REQUEST_ID = re.compile(r"^[A-Za-z0-9_.:-]{1,128}\Z")
"""A valid X-Request-ID. Other values are replaced, because the id is written to the log and to response headers."""


class RequestIds:
    """Makes the ids of one application: a random prefix and a number, 32 hexadecimal digits together.

    Each worker makes its own after the fork, so that two workers never share a prefix.
    """

    def __init__(self) -> None:
        self._prefix = uuid.uuid4().hex[:20]
        self._number = count(1)

    def of(self, environ: WSGIEnvironment) -> str:
        """The id of a request: a valid X-Request-ID header, or else a new id."""
        header = environ.get("HTTP_X_REQUEST_ID")
        if header is not None and REQUEST_ID.match(header):
            return str(header)
        return f"{self._prefix}{next(self._number):012x}"
