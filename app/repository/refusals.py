"""The error of release commands that change nothing, because the change is not safe or not possible."""

from __future__ import annotations

from tableside.errors import PublishFailed, TablesideError


class ReleaseRefused(TablesideError):
    """A version cannot be promoted, retired, deleted or copied. The text says why, and what to type instead."""


class BreaksClients(PublishFailed):
    """A new version would take requests whose clients it breaks. The text lists what differs."""
