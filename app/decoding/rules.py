"""How strictly a table is read: the rules from the settings and `model.toml`, and the collector of cell errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Literal, TypeAlias

from tableside.contracts.array_type import Array
from tableside.contracts.schema import Column
from tableside.errors import CellError, RequestRejected, TooManyRows

MissingPolicy = Literal["refuse", "fill"]
SurplusPolicy = Literal["refuse", "ignore"]
Cells: TypeAlias = Sequence[object] | Array
"""The values of one column: decoded JSON values, or a numpy array of shape [rows]."""


@dataclass(frozen=True)
class Rules:
    """What to do with tables that do not match the contract exactly, and how much to report.

    most_errors: the largest number of bad cells that one error response lists.
    show_values: whether the messages quote the bad values.
    missing: what to do when a whole column is absent: refuse the table, or fill the column with missing values
    (only if the column is nullable).
    extra, duplicate: whether to refuse or ignore an unknown column, or the repetition of a column.
    most_rows: the largest number of rows.
    missing_words: for a column, the words that stand for a missing cell where a format has none for text; columns that
    are not named have those of tableside.decoding.missing_words. has_missing_words: whether the format is such a one.
    strict_json: whether NaN and Infinity in JSON are refused.
    """

    most_errors: int = 20
    show_values: bool = False
    missing: MissingPolicy = "refuse"
    extra: SurplusPolicy = "refuse"
    duplicate: SurplusPolicy = "refuse"
    most_rows: int = 1_000_000
    missing_words: Mapping[str, frozenset[str]] = field(default_factory=dict)
    has_missing_words: bool = False
    strict_json: bool = False

    @cached_property
    def of_texts(self) -> Rules:
        """The same rules for CSV and the text tensors of V2, which have no missing cell for text."""
        return replace(self, has_missing_words=True)

    def check_rows(self, rows: int) -> None:
        """Raise TooManyRows if a request has more rows than `most_rows`."""
        if rows > self.most_rows:
            raise TooManyRows(rows, self.most_rows)


STRICT = Rules()
_MAX_QUOTED_CHARS = 40
_MAX_NAMED_COLUMNS = 3


@dataclass
class _Group:
    """The errors of one message: the place of the first, how many there are, and in which columns."""

    path: str
    count: int = 0
    columns: dict[str, None] = field(default_factory=dict)

    def describe(self, message: str) -> CellError:
        if self.count == 1:
            return CellError(self.path, message)
        names = ", ".join([*self.columns][:_MAX_NAMED_COLUMNS])
        more = f" and {len(self.columns) - _MAX_NAMED_COLUMNS} more" if len(self.columns) > _MAX_NAMED_COLUMNS else ""
        of = f" of {names}{more}" if names else ""
        return CellError(self.path, f"{message} ({self.count} cells{of}; this is the first)")


def describe(column: Column) -> str:
    """Return what a cell of this column may hold, for an error message: `a number or null`."""
    words = {
        "FP64": "a number",
        "FP32": "a number",
        "INT64": "an integer",
        "BOOL": "true, false, 1 or 0",
        "BYTES": "a string",
        "ID": "an id, as text or a number",
        "DATE": "a date as ISO 8601 text or in milliseconds since 1970",
    }
    text = words[column.kind]
    return f"{text} or null" if column.nullable else text


class Problems:
    """Collects the errors of one table.

    `found` holds the first `rules.most_errors` of them, `extra` counts the others. If there are others, the refusal
    lists the errors by message instead: a table whose 300 columns have one mistake in each row gets one sentence.
    `column` is the name of the column that is being converted. A collector without errors is false.
    """

    def __init__(self, rules: Rules = STRICT) -> None:
        self.rules = rules
        self.found: list[CellError] = []
        self.extra = 0
        self.column = ""
        self.anomalies: dict[tuple[str, str], int] = {}
        self._groups: dict[str, _Group] = {}

    def note(self, kind: str, cells: int) -> None:
        """Count cells of the column that are accepted although they are not as the model was trained."""
        key = (self.column, kind)
        self.anomalies[key] = self.anomalies.get(key, 0) + cells

    @property
    def count(self) -> int:
        """The number of all errors, including those that are counted only."""
        return len(self.found) + self.extra

    def add(self, path: str | Callable[[], str], message: str, *value: object) -> None:
        """Add one error. The value, if passed, is quoted when `rules.show_values` is set.

        path: the text, or a function that returns it. A function is called only for errors that are listed, because a
        table may have a hundred million bad cells.
        """
        is_listed = len(self.found) < self.rules.most_errors
        if is_listed or self._has_room_for(message):
            path = path if isinstance(path, str) else path()
            self._count(path, message, 1)
        else:
            self._count("", message, 1)
        if not is_listed:
            self.extra += 1
            return
        assert isinstance(path, str)
        if value and self.rules.show_values:
            message = f"{message}: {str(value[0])[:_MAX_QUOTED_CHARS]!r}"
        self.found.append(CellError(path, message))

    def add_rows(
        self, path_of: Callable[[int], str], rows: Sequence[int] | Array, message: str, values: Cells | None = None
    ) -> None:
        """Add one error with the same message for each row number in `rows`. That costs little however many they are.

        values: the whole column, indexed by row number, if values may be quoted.
        """
        room = max(1, self.rules.most_errors - len(self.found))
        for row in map(int, rows[:room]):
            self.add(partial(path_of, row), message, *(() if values is None else (values[row],)))
        if len(rows) > room:
            self._count("", message, len(rows) - room)
            self.extra += len(rows) - room

    def _has_room_for(self, message: str) -> bool:
        return message not in self._groups and len(self._groups) < self.rules.most_errors

    def _count(self, path: str, message: str, errors: int) -> None:
        if self._has_room_for(message):
            self._groups[message] = _Group(path)
        if (group := self._groups.get(message)) is not None:
            group.count += errors
            if self.column:
                group.columns[self.column] = None

    def __bool__(self) -> bool:
        return bool(self.found)

    def refusal(self, detail: str = "the input does not fit the model's contract") -> RequestRejected:
        """Return the exception that lists the collected errors."""
        if not self.extra:
            return RequestRejected(detail, tuple(self.found))
        grouped = tuple(group.describe(message) for message, group in self._groups.items())
        return RequestRejected(f"{detail}; {self.count} errors, those with one message listed as one", grouped)


def malformed(path: str, message: str) -> RequestRejected:
    """Return the exception for a request whose structure is wrong at one place."""
    return RequestRejected("the request is malformed", (CellError(path, message),))
