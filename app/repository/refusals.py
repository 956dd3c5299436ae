"""The error of release commands that change nothing, because the change is not safe or not possible."""

from __future__ import annotations

from tableside.errors import TablesideError


class ReleaseRefused(TablesideError):
    """A version cannot be promoted, retired, deleted or copied. The text says why, and what to type instead."""
