"""The errors of requests that have ended workers, and of their models."""

from __future__ import annotations

from dataclasses import dataclass

from tableside.errors import TablesideError


@dataclass
class WorkersLost(TablesideError):
    """This request has ended two workers, the second of them while it ran alone. It is quarantined from now on."""

    request_id: str

    def __str__(self) -> str:
        return (
            f"this request ({self.request_id}) has ended two workers and is not tried again; the server's log has the "
            "reason under its id"
        )


@dataclass
class RequestQuarantined(TablesideError):
    """The same request has ended two workers before. retry_after_s: when it will be tried again."""

    retry_after_s: int
    code: str = "quarantined"

    def __str__(self) -> str:
        return (
            "the same request has ended two workers and is quarantined (server.quarantine_s): it is not computed for "
            f"the next {self.retry_after_s} s. The server's log has the reason"
        )


@dataclass
class ModelQuarantined(TablesideError):
    """Several requests of the model have ended workers. retry_after_s: when the model will answer again."""

    name: str
    retry_after_s: int
    code: str = "model_quarantined"

    def __str__(self) -> str:
        return (
            f"model {self.name} is stopped because several of its requests have each ended two workers; it answers "
            f"again in {self.retry_after_s} s, or after `tableside reload`"
        )
