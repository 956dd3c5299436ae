"""What can go wrong, with the server's error object as attributes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class BadPlace:
    """One bad place in a request: where, and what was expected there."""

    path: str
    message: str


class TablesideError(Exception):
    """Base of every error of this client."""


class Unreachable(TablesideError):
    """No answer: refused, cut off or too late. The cause is chained."""


class AnswerFailed(TablesideError):
    """The server answered with an error.

    status: the HTTP status. detail: its words. errors: the bad places of a 400. request_id: what to look for in the
    server's log. retry_after_s: how long the server asks to wait, None if it does not say. body: the error object.
    """

    def __init__(self, status: int, body: Mapping[str, Any], request_id: str = "", retry_after_s: float | None = None):
        self.status = status
        self.body = dict(body)
        self.detail = str(body.get("detail") or body.get("error") or "no reason given")
        found = body.get("errors")
        self.errors = tuple(_place(each) for each in found) if isinstance(found, list) else ()
        self.request_id = request_id or str(body.get("instance", ""))
        self.retry_after_s = retry_after_s
        super().__init__(f"{status}: {self.detail}" + (f" (request {self.request_id})" if self.request_id else ""))


class RequestFailed(AnswerFailed):
    """4xx: what was asked cannot be answered, now or later."""


class Unavailable(AnswerFailed):
    """429, 502, 503 or 504: another time the same request may be answered."""


class ServerFailed(AnswerFailed):
    """500 and the like: a fault of the server or its model."""


def _place(found: object) -> BadPlace:
    entry = found if isinstance(found, dict) else {}
    return BadPlace(str(entry.get("path", "")), str(entry.get("message", "")))


def failed(status: int, body: Mapping[str, Any], request_id: str, retry_after_s: float | None) -> AnswerFailed:
    """The error of that status."""
    if status in (429, 502, 503, 504):
        return Unavailable(status, body, request_id, retry_after_s)
    kind = RequestFailed if 400 <= status < 500 else ServerFailed
    return kind(status, body, request_id, retry_after_s)
