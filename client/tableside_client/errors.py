"""Exceptions of the client. Those for an answer carry the server's error object as attributes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class BadPlace:
    """One invalid place in a request.

    path: where it is, such as `instances[3].age`. message: what the server expected there.
    """

    path: str
    message: str


class TablesideError(Exception):
    """Base class of every error that the client raises for a request it has sent."""


class Unreachable(TablesideError):
    """The server did not answer: connection refused, connection lost, or timeout. `__cause__` is the OSError."""


class AnswerFailed(TablesideError):
    """The server answered with an error status.

    status: the HTTP status. detail: the server's explanation. errors: the invalid places of a 400.
    request_id: the id under which the server logged the request (`tableside logs --request-id`).
    retry_after_s: how long to wait before a retry, None if the server sent no Retry-After. body: the error object.
    """

    def __init__(
        self, status: int, body: Mapping[str, object], request_id: str = "", retry_after_s: float | None = None
    ):
        self.status = status
        self.body = dict(body)
        self.detail = str(body.get("detail") or body.get("error") or "the answer has no explanation")
        errors = body.get("errors")
        self.errors = tuple(_place(entry) for entry in errors) if isinstance(errors, list) else ()
        self.request_id = request_id or str(body.get("instance", ""))
        self.retry_after_s = retry_after_s
        super().__init__(f"{status}: {self.detail}" + (f" (request {self.request_id})" if self.request_id else ""))


class RequestFailed(AnswerFailed):
    """400 to 499 except 429: the request is wrong and fails again if it is repeated unchanged."""


class Unavailable(AnswerFailed):
    """429, 502, 503 or 504: the server cannot answer now. The same request may succeed later."""


class ServerFailed(AnswerFailed):
    """Any other status, such as 500: a fault of the server or of the model."""


def _place(entry: object) -> BadPlace:
    fields = entry if isinstance(entry, dict) else {}
    return BadPlace(str(fields.get("path", "")), str(fields.get("message", "")))


def error_for(status: int, body: Mapping[str, object], request_id: str, retry_after_s: float | None) -> AnswerFailed:
    """Return the exception for an answer with this status."""
    if status in (429, 502, 503, 504):
        return Unavailable(status, body, request_id, retry_after_s)
    error_class = RequestFailed if 400 <= status < 500 else ServerFailed
    return error_class(status, body, request_id, retry_after_s)
