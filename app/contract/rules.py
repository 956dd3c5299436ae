"""How strictly a table is read: the operator's words, from the settings and `model.toml`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from app.errors import CellError, RequestRejected

Missing = Literal["refuse", "fill"]
Surplus = Literal["refuse", "ignore"]


@dataclass(frozen=True)
class Rules:
    """most_errors: how many bad cells one answer names. show_values: whether it quotes them.

    missing: a column the table does not have at all is refused, or filled with missing cells (where it takes those).
    extra, duplicate: a column the model does not know, or has already been given, is refused or ignored.
    """

    most_errors: int = 20
    show_values: bool = False
    missing: Missing = "refuse"
    extra: Surplus = "refuse"
    duplicate: Surplus = "refuse"


STRICT = Rules()
_QUOTED = 40


class Problems:
    """Collects bad places up to a limit; `extra` counts the rest."""

    def __init__(self, rules: Rules = STRICT) -> None:
        self.rules = rules
        self.found: list[CellError] = []
        self.extra = 0

    @property
    def count(self) -> int:
        """All that was noted, shown or not."""
        return len(self.found) + self.extra

    def add(self, path: str, message: str, *value: object) -> None:
        """Note one bad place; its value is quoted only where the operator wants that."""
        if len(self.found) >= self.rules.most_errors:
            self.extra += 1
            return
        if value and self.rules.show_values:
            message = f"{message}: {str(value[0])[:_QUOTED]!r}"
        self.found.append(CellError(path, message))

    def __bool__(self) -> bool:
        return bool(self.found)

    def refusal(self, detail: str = "the input does not fit the model's contract") -> RequestRejected:
        """The error that names them all."""
        more = f"; {self.extra} more not shown" if self.extra else ""
        return RequestRejected(detail + more, tuple(self.found))


def malformed(path: str, message: str) -> RequestRejected:
    """One place where the request's shape itself is wrong."""
    return RequestRejected("the request is malformed", (CellError(path, message),))
