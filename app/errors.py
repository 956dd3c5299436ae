"""What can go wrong, as data. Nothing here knows HTTP; `tableside.web.errors` maps each class to a status."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


@dataclass(frozen=True)
class CellError:
    """One bad place in a request.

    path: where, as the client would write it (`rows[3].age`, `inputs[0].shape`).
    message: what was expected there. Never holds the value itself.
    """

    path: str
    message: str


class TablesideError(Exception):
    """Base of every error that may reach a client; its text is safe to show."""


@dataclass
class RequestRejected(TablesideError):
    """The request does not fit the contract. `cells` names each bad place that was found."""

    detail: str
    cells: tuple[CellError, ...] = field(default=())

    def __str__(self) -> str:
        if not self.cells:
            return self.detail
        first = self.cells[0]
        more = f" (and {len(self.cells) - 1} more)" if len(self.cells) > 1 else ""
        return f"{self.detail}: {first.path}: {first.message}{more}"


@dataclass
class TooLarge(TablesideError):
    """More bytes than a setting allows, as sent or once inflated."""

    setting: str
    limit_bytes: int

    def __str__(self) -> str:
        return f"the body is larger than {self.setting} ({self.limit_bytes} bytes)"


@dataclass
class UnsupportedBody(TablesideError):
    """A Content-Type or Content-Encoding that is not read here."""

    detail: str

    def __str__(self) -> str:
        return self.detail


@dataclass
class ModelNotFound(TablesideError):
    """No such model, version or alias in the repository."""

    detail: str

    def __str__(self) -> str:
        return self.detail


@dataclass
class ModelNotReady(TablesideError):
    """The model exists but cannot answer now; `detail` holds its state and reason."""

    detail: str
    retry_after_s: int = 1

    def __str__(self) -> str:
        return self.detail


@dataclass
class Overloaded(TablesideError):
    """More work is waiting than can be answered in time."""

    detail: str
    retry_after_s: int = 1

    def __str__(self) -> str:
        return self.detail


@dataclass
class DeadlineExceeded(TablesideError):
    """The answer was not there within the request's deadline."""

    deadline_s: float

    def __str__(self) -> str:
        return f"no answer within the deadline of {self.deadline_s:g} s"


class ClientClosedRequest(TablesideError):
    """The client closed its connection before its request was begun. Nobody reads this."""

    def __str__(self) -> str:
        return "the client closed the connection"


class InferenceFailed(TablesideError):
    """The estimator raised. Its own text is chained for the log and never sent."""

    def __str__(self) -> str:
        return "the model failed on this request; the log has the cause under this request id"


class NotFinite(TablesideError):
    """The model answered NaN or infinity, and the operator wants an error rather than null."""

    def __str__(self) -> str:
        return "the model answered a number that is not finite (predict.not_finite is 'error')"


@dataclass
class Unauthorized(TablesideError):
    """No key, or not the right one."""

    given: bool = False

    def __str__(self) -> str:
        if self.given:
            return "this is not the admin key: send 'Authorization: Bearer KEY' (admin.key in the run folder holds it)"
        return "this needs the admin key: send 'Authorization: Bearer KEY' (admin.key in the run folder holds it)"


class FailureKind(StrEnum):
    """The class of what is wrong with a version: few words, so that one may be a metric's label."""

    NONE = ""
    DAMAGED = "damaged"
    """The artifact's bytes are not those of publish, or cannot be read."""
    ENVIRONMENT = "environment"
    """Libraries here are not those of publish."""
    GOLDEN = "golden"
    """The golden rows are answered differently, or not at all."""
    UNTRUSTED = "untrusted"
    """The artifact holds types on no list."""
    CRASHED = "crashed"
    """It ended the interpreter that tried it."""
    TIMEOUT = "timeout"
    """It did not load within `repository.load_timeout_s`."""
    CONTRACT = "contract"
    """contract.json or model.toml cannot be read, or says what cannot be."""
    OTHER = "other"


class ContractBroken(TablesideError):
    """A version cannot be served: damaged, changed, or its golden rows answer differently. `failure_kind` is the
    class.
    """

    def __init__(self, detail: str, failure_kind: FailureKind = FailureKind.CONTRACT) -> None:
        super().__init__(detail)
        self.failure_kind = failure_kind


class PublishFailed(TablesideError):
    """An estimator or its sample cannot be published; the text says what to change."""


class SettingsError(TablesideError):
    """A setting is unknown, malformed or out of range; the text names it."""


class StackError(TablesideError):
    """The stack cannot start or be reached here; one line that says why."""
