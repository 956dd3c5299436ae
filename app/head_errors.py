"""The error of a request whose line or headers are larger than a setting allows, where the application sees them."""

from __future__ import annotations

from dataclasses import dataclass

from tableside.errors import TablesideError


@dataclass
class UrlTooLong(TablesideError):
    """The URL of the request is longer than `server.max_url_bytes`."""

    limit_bytes: int

    def __str__(self) -> str:
        return f"the URL is longer than server.max_url_bytes ({self.limit_bytes} bytes)"
