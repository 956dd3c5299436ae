"""The seam between serving and the libraries that predict."""

from __future__ import annotations

from typing import Any, Protocol

from app.contract.cells import Array


class Runtime(Protocol):
    """A loaded artifact. Called from native threads, several at once."""

    platform: str
    """`<project>_<format>`, as the model metadata shows it."""

    def run(self, method: str, data: Any) -> Array:
        """Answer `method` (`predict`, `transform`, ...) for a DataFrame or matrix; shape [rows] or [rows, width]."""
