"""How strictly a table is read: the operator's words, from the settings and `model.toml`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy.typing as npt

from tableside.errors import CellError, RequestRejected

Array = npt.NDArray[Any]
MissingPolicy = Literal["refuse", "fill"]
SurplusPolicy = Literal["refuse", "ignore"]


@dataclass(frozen=True)
class Rules:
    """most_errors: how many bad cells one answer names. show_values: whether it quotes them.

    missing: a column the table does not have at all is refused, or filled with missing cells (where it takes those).
    extra, duplicate: a column the model does not know, or has already been given, is refused or ignored.
    """

    most_errors: int = 20
    show_values: bool = False
    missing: MissingPolicy = "refuse"
    extra: SurplusPolicy = "refuse"
    duplicate: SurplusPolicy = "refuse"


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

    def add(self, path: str | Callable[[], str], message: str, *value: object) -> None:
        """Note one bad place; its value is quoted only where the operator wants that.

        path: as text, or what makes it: a table may have a hundred million bad cells, of which twenty are shown.
        """
        if len(self.found) >= self.rules.most_errors:
            self.extra += 1
            return
        path = path if isinstance(path, str) else path()
        if value and self.rules.show_values:
            message = f"{message}: {str(value[0])[:_QUOTED]!r}"
        self.found.append(CellError(path, message))

    def add_rows(self, path_of: Callable[[int], str], rows: Array, message: str, values: Array | None = None) -> None:
        """Note one bad cell a row: the first as they are shown, the rest by their number."""
        room = max(0, self.rules.most_errors - len(self.found))
        for row in rows[:room].tolist():
            self.add(path_of(row), message, *(() if values is None else (values[row],)))
        self.extra += max(0, len(rows) - room)

    def __bool__(self) -> bool:
        return bool(self.found)

    def refusal(self, detail: str = "the input does not fit the model's contract") -> RequestRejected:
        """The error that names them all."""
        more = f"; {self.extra} more not shown" if self.extra else ""
        return RequestRejected(detail + more, tuple(self.found))


def malformed(path: str, message: str) -> RequestRejected:
    """One place where the request's shape itself is wrong."""
    return RequestRejected("the request is malformed", (CellError(path, message),))
