"""The error of a change that not every worker could make."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from tableside.errors import FailureKind, TablesideError

LISTED = 10
"""How many workers a sentence names."""


class WorkerReason(NamedTuple):
    """What a worker has against a change. pid: its process id."""

    pid: int
    reason: str

    def __str__(self) -> str:
        return f"worker {self.pid}: {self.reason}"


@dataclass
class SwitchRefused(TablesideError):
    """A worker could not make a change, so none has.

    reasons: what each of these workers has against it. versions: those that cannot be served, by name and number, with
    the kind and the sentence of the reason.
    """

    detail: str
    reasons: tuple[WorkerReason, ...] = field(default=())
    versions: dict[tuple[str, int], tuple[FailureKind, str]] = field(default_factory=dict)

    def __str__(self) -> str:
        pids: dict[str, list[int]] = {}
        for each in self.reasons:
            pids.setdefault(each.reason, []).append(each.pid)
        said = [f"worker {', '.join(map(str, who[:LISTED]))}: {why}" for why, who in pids.items()]
        return ": ".join([self.detail, "; ".join(said)]) if said else self.detail
