"""The seam between serving and the libraries that predict."""

from __future__ import annotations

from typing import Any, Protocol

from app.contract.answers import Answer


class Runtime(Protocol):
    """A loaded artifact. Called from native threads, several at once."""

    platform: str
    """`<project>_<format>`, as the model metadata shows it."""

    def run(self, method: str, data: Any) -> Answer:
        """Answer `method` (`predict`, `transform`, ...) for a DataFrame, matrix or list of texts.

        An array of shape [rows] or [rows, width], or a list of those where the method answers one a target.
        """
