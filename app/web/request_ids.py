"""The id of each request: the client's, where it is one, else a new one."""

from __future__ import annotations

import re
import uuid
from itertools import count
from typing import Any

REQUEST_ID = re.compile(r"^[A-Za-z0-9_.:-]{1,128}\Z")


class RequestIds:
    """Ids of one application: its own random prefix, and a number. Made after the fork, so no two workers share one."""

    def __init__(self) -> None:
        self._prefix = uuid.uuid4().hex[:20]
        self._number = count(1)

    def of(self, environ: dict[str, Any]) -> str:
        """The id of a request (PEP 3333)."""
        given = environ.get("HTTP_X_REQUEST_ID")
        if given is not None and REQUEST_ID.match(given):
            return str(given)
        return f"{self._prefix}{next(self._number):012x}"
