"""How strictly a table is read: the rules from the settings and `model.toml`, and the collector of cell errors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from tableside.contract.array_type import Array
from tableside.errors import CellError, RequestRejected

MissingPolicy = Literal["refuse", "fill"]
SurplusPolicy = Literal["refuse", "ignore"]


@dataclass(frozen=True)
class Rules:
    """What to do with tables that do not match the contract exactly, and how much to report.

    most_errors: the largest number of bad cells that one error response lists.
    show_values: whether the messages quote the bad values.
    missing: what to do when a whole column is absent: refuse the table, or fill the column with missing values
    (only if the column is nullable).
    extra, duplicate: whether to refuse or ignore an unknown column, or the repetition of a column.
    """

    most_errors: int = 20
    show_values: bool = False
    missing: MissingPolicy = "refuse"
    extra: SurplusPolicy = "refuse"
    duplicate: SurplusPolicy = "refuse"


STRICT = Rules()
_MAX_QUOTED_CHARS = 40


class Problems:
    """Collects the errors of one table.

    `found` holds the first `rules.most_errors` of them, `extra` counts the others. A collector without errors is false.
    """

    def __init__(self, rules: Rules = STRICT) -> None:
        self.rules = rules
        self.found: list[CellError] = []
        self.extra = 0

    @property
    def count(self) -> int:
        """The number of all errors, including those that are counted only."""
        return len(self.found) + self.extra

    def add(self, path: str | Callable[[], str], message: str, *value: object) -> None:
        """Add one error. The value, if passed, is quoted when `rules.show_values` is set.

        path: the text, or a function that returns it. A function is called only for errors that are listed, because a
        table may have a hundred million bad cells.
        """
        if len(self.found) >= self.rules.most_errors:
            self.extra += 1
            return
        path = path if isinstance(path, str) else path()
        if value and self.rules.show_values:
            message = f"{message}: {str(value[0])[:_MAX_QUOTED_CHARS]!r}"
        self.found.append(CellError(path, message))

    def add_rows(self, path_of: Callable[[int], str], rows: Array, message: str, values: Array | None = None) -> None:
        """Add one error with the same message for each row number in `rows`.

        values: the whole column, indexed by row number, if values may be quoted.
        """
        room = max(0, self.rules.most_errors - len(self.found))
        for row in rows[:room].tolist():
            self.add(path_of(row), message, *(() if values is None else (values[row],)))
        self.extra += max(0, len(rows) - room)

    def __bool__(self) -> bool:
        return bool(self.found)

    def refusal(self, detail: str = "the input does not fit the model's contract") -> RequestRejected:
        """Return the exception that lists the collected errors."""
        more = f"; {self.extra} more not shown" if self.extra else ""
        return RequestRejected(detail + more, tuple(self.found))


def malformed(path: str, message: str) -> RequestRejected:
    """Return the exception for a request whose structure is wrong at one place."""
    return RequestRejected("the request is malformed", (CellError(path, message),))
