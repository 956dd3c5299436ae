"""The errors of Tableside. They know nothing of HTTP: `tableside.web.error_replies` maps each class to a status."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


@dataclass(frozen=True)
class CellError:
    """One bad value in a request.

    path: where the value is, as the client would write it (`rows[3].age`, `inputs[0].shape`).
    message: what was expected there. It never contains the value itself.
    """

    path: str
    message: str


class TablesideError(Exception):
    """Base class of all errors of Tableside."""


@dataclass
class _Detailed:
    """Gives an error its text, `detail`. It is no error itself, so that it needs no status."""

    detail: str

    def __str__(self) -> str:
        return self.detail


@dataclass
class _ToRepeat(_Detailed):
    """The same for an error after which a client may try again, in `retry_after_s` seconds."""

    retry_after_s: int = 1


@dataclass
class RequestRejected(TablesideError):
    """The request does not match the model's contract. `cells` lists the bad values that were found.

    The text names the first bad value and the number of others. by_estimator: the estimator raised an exception, which
    is chained as the cause and belongs into the log.
    """

    detail: str
    cells: tuple[CellError, ...] = field(default=())
    by_estimator: bool = False

    def __str__(self) -> str:
        if not self.cells:
            return self.detail
        first = self.cells[0]
        more = f" (and {len(self.cells) - 1} more)" if len(self.cells) > 1 else ""
        return f"{self.detail}: {first.path}: {first.message}{more}"


@dataclass
class TooLarge(TablesideError):
    """The body is larger than a setting allows, as sent or after decompression.

    setting: the dotted name of that setting. limit_bytes: its value.
    """

    setting: str
    limit_bytes: int

    def __str__(self) -> str:
        return f"the body is larger than {self.setting} ({self.limit_bytes} bytes)"


@dataclass
class InflatesTooMuch(TooLarge):
    """The body takes more than `limit_bytes` once it is inflated or decoded, which is too much for its size."""

    def __str__(self) -> str:
        return (
            f"the body takes more than {self.limit_bytes} bytes once it is decoded, which is more than {self.setting} "
            "allows a body of its size"
        )


@dataclass
class TooManyRows(TablesideError):
    """The request has `rows` rows, or at least so many, and `server.max_rows` allows `most`."""

    rows: int
    most: int

    def __str__(self) -> str:
        return f"the request has {self.rows} rows or more; server.max_rows allows {self.most}. Send fewer rows at once"


@dataclass
class AnswerTooLarge(TablesideError):
    """The answer would take about `size_bytes`, and `server.max_answer_bytes` allows `limit_bytes`."""

    size_bytes: int
    limit_bytes: int

    def __str__(self) -> str:
        return (
            f"the answer would take about {self.size_bytes} bytes; server.max_answer_bytes allows {self.limit_bytes}. "
            "Send fewer rows at once, or ask for fewer outputs"
        )


@dataclass
class UnsupportedBody(_Detailed, TablesideError):
    """The Content-Type or Content-Encoding of the request is not supported."""


@dataclass
class NotAcceptable(TablesideError):
    """The client accepts none of the media types that the answer can have. offered: those."""

    offered: tuple[str, ...]

    def __str__(self) -> str:
        return f"the Accept header allows no type that this route can give; there are {', '.join(self.offered)}"


@dataclass
class ModelNotFound(_Detailed, TablesideError):
    """The repository has no such model, version or alias."""


@dataclass
class ModelNotReady(_ToRepeat, TablesideError):
    """The model exists but cannot answer now. `detail` contains its state and the reason."""


@dataclass
class Overloaded(_ToRepeat, TablesideError):
    """More requests are waiting than can be answered in time."""


@dataclass
class WaitedTooLong(_ToRepeat, TablesideError):
    """The request waited for a worker until its remaining time was too short. The server is the cause."""


@dataclass
class DeadlineExceeded(TablesideError):
    """The answer was not ready within the request's deadline of `deadline_s` seconds."""

    deadline_s: float

    def __str__(self) -> str:
        return f"no answer within the deadline of {self.deadline_s:g} s"


class ClientClosedRequest(TablesideError):
    """The client closed its connection before its prediction began, so no client reads this error."""

    def __str__(self) -> str:
        return "the client closed the connection"


@dataclass
class InferenceFailed(_Detailed, TablesideError):
    """A prediction raised an exception, which is chained as the cause: it is logged and never sent.

    detail: the class of the exception, and where it was raised.
    """


class NotFinite(TablesideError):
    """The model answered NaN or infinity, and the setting `predict.not_finite` is 'error'."""

    def __str__(self) -> str:
        return (
            "the model answered a number that is not finite. "
            "Set predict.not_finite to 'null' to get null in place of such numbers"
        )


@dataclass
class Unauthorized(TablesideError):
    """The request has no valid key. scope: what the route needs. problem: `missing`, `wrong` or `expired`."""

    scope: str = "admin"
    problem: str = "missing"

    def __str__(self) -> str:
        state = {"missing": "is missing", "expired": "has expired"}.get(self.problem, "is wrong")
        source = f"a key that the operator made with `tableside keys add NAME --scope {self.scope}`"
        if self.scope == "admin":
            source = "the key from the file admin.key in the run folder"
        return f"the {self.scope} key {state}. Send 'Authorization: Bearer KEY', with {source}"


@dataclass
class WrongScope(TablesideError):
    """The key is valid, but for other routes. scope: its own. needed: the one that the route needs."""

    scope: str
    needed: str

    def __str__(self) -> str:
        return f"this key has the scope {self.scope}; this path needs one with the scope {self.needed}"


class WrongHost(TablesideError):
    """The Host header names a host that this server does not have. The name is not quoted: it is the client's."""

    def __str__(self) -> str:
        return (
            "the Host header names a host that this server does not answer for. Call it by its address, or add the "
            "name to server.allowed_hosts"
        )


class CrossSite(TablesideError):
    """A page of another site sent the request to the control plane."""

    def __str__(self) -> str:
        return (
            "a page of another site sent this request (headers Origin, Sec-Fetch-Site), and the control plane takes "
            "only those of its own pages and of programs. Use a program such as curl or `tableside`"
        )


class FailureKind(StrEnum):
    """The class of a problem with a version. It is a fixed set, because a metric has it as a label."""

    NONE = ""
    """The version has no problem."""
    DAMAGED = "damaged"
    """The artifact was changed after publish, or cannot be read."""
    ENVIRONMENT = "environment"
    """The libraries installed here differ from those of publish."""
    GOLDEN = "golden"
    """The answers to the golden rows differ from those of publish, or there are none."""
    UNTRUSTED = "untrusted"
    """The artifact contains types that neither the reviewed lists nor the settings trust."""
    CONSENT = "consent"
    """The version brings own code or a pickle to which nobody has consented on this host."""
    SIGNATURE = "signature"
    """`repository.trusted_keys` asks for a signature, and the version has none that holds."""
    CRASHED = "crashed"
    """The process of the preflight crashed while it loaded the version."""
    TIMEOUT = "timeout"
    """The version did not load within `repository.load_timeout_s`."""
    MEMORY = "memory"
    """The version does not fit into the memory that is free, or that a setting allows."""
    CONTRACT = "contract"
    """contract.json or model.toml cannot be read, or contradicts itself."""
    QUARANTINED = "quarantined"
    """Requests of the model have ended workers, and it is stopped for a time."""
    OTHER = "other"
    """None of the other classes."""


class ContractBroken(TablesideError):
    """A version cannot be served, because it does not keep its contract. `failure_kind` is the class of the problem."""

    def __init__(self, detail: str, failure_kind: FailureKind = FailureKind.CONTRACT) -> None:
        super().__init__(detail)
        self.failure_kind = failure_kind


class PublishFailed(TablesideError):
    """An estimator or its sample cannot be published. The text says what to change."""


class EnvironmentFailed(TablesideError):
    """An environment for model processes cannot be made, or does not work. The text says what to change."""


class KeysFailed(TablesideError):
    """A keys file or the file of a signing key cannot be used, or not be made. The text says what to change."""


class SettingsError(TablesideError):
    """A setting is unknown, malformed or out of range. The text names the setting."""


class StackError(TablesideError):
    """The stack cannot start, or cannot be reached. The text gives the reason in one line."""
