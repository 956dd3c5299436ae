"""The id column: beside the model's columns a request may have one more, whose cells come back with the answers.

The operator names it (`[columns] id` in model.toml). To every reader it is a column like the others, at the first
position, so that no body format can overlook it. The table of a request then holds the model's columns only, and the
ids beside them: the model is never given them.
"""

from __future__ import annotations

from functools import cached_property

import msgspec

from tableside.contracts.array_type import Array
from tableside.contracts.schema import Column, Datatype, Input, Kind, Output

DATATYPES: dict[str, Datatype] = {"O": "BYTES", "i": "INT64", "f": "FP64"}
"""The datatype of ids in an answer, by the kind of their array."""
MAX_LOGGED = 10
"""How many ids of a request stand in its access line."""


class IdColumn(Column, frozen=True):
    """The id column. A cell is text or a number."""

    @property
    def kind(self) -> Kind:
        """ID: the only column of this kind."""
        return "ID"


class InputWithId(Input, frozen=True, dict=True):
    """The columns that a request may have: the id column, and those of the model.

    model: the table that the model is given.
    """

    model: Input

    @cached_property
    def id(self) -> str:
        """The name of the id column."""
        return self.columns[0].name


class RowIds(msgspec.Struct, frozen=True):
    """The ids of a request. name: of the column. cells: of shape [rows]; None is an id that is missing."""

    name: str
    cells: Array

    @property
    def output(self) -> Output:
        """The ids as one more output of the answer, so that no answer format can overlook them."""
        datatype = "FP32" if self.cells.dtype == "float32" else DATATYPES[self.cells.dtype.kind]
        return Output(self.name, datatype, 1, flat=True)

    @property
    def size_bytes(self) -> int:
        """The length of the ids as JSON, or a little more."""
        if self.cells.dtype.kind != "O":
            return 20 * len(self.cells)
        return sum(4 * len(cell) + 4 for cell in self.cells.tolist() if cell is not None)

    def first(self) -> list[str]:
        """The first ids as text, for the log."""
        return [str(cell) for cell in self.cells[:MAX_LOGGED].tolist()]


def with_id(model: Input, name: str) -> InputWithId:
    """Return the columns that a request may have, if the operator names an id column."""
    column = IdColumn(name, "BYTES", "object", nullable=True)
    return InputWithId(model.form, (column, *model.columns), model)


def model_of(schema: Input) -> Input:
    """Return the table that the model is given."""
    return schema.model if isinstance(schema, InputWithId) else schema


def of_width(schema: Input, width: int) -> Input:
    """Return the columns of rows by position that have so many cells: without ids if they are the model's alone."""
    model = model_of(schema)
    return model if width == len(model.columns) else schema


def conflict(model: Input, outputs: tuple[Output, ...], name: str) -> str:
    """Return why a column of that name cannot be the id column of a model; an empty text if it can."""
    if name in model.names:
        return f"columns.id in model.toml names {name!r}, which is a column of the model; ids do not come back"
    if any(output.name == name for output in outputs):
        return f"columns.id in model.toml names {name!r}, which is an output of the model; ids do not come back"
    return ""
