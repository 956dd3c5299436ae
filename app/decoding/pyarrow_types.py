"""The parts of pyarrow's classes that the decoders use, as protocols: pyarrow has no type annotations of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol, TypeAlias

from tableside.contracts.array_type import Array

ArrowType: TypeAlias = object
"""A pyarrow.DataType, which is only passed to the functions of pyarrow.types."""


class Field(Protocol):
    """A pyarrow.Field."""

    name: str
    type: ArrowType


class Schema(Protocol):
    """A pyarrow.Schema."""

    metadata: Mapping[bytes, bytes] | None

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Field]: ...

    def field(self, at: int, /) -> Field: ...

    def get_all_field_indices(self, name: str, /) -> list[int]: ...


class Values(Protocol):
    """A pyarrow.Array or a pyarrow.ChunkedArray."""

    type: ArrowType
    null_count: int

    def to_pylist(self) -> list[object]: ...

    def to_numpy(self) -> Array: ...


class RecordBatch(Protocol):
    """A pyarrow.RecordBatch."""

    num_rows: int
    nbytes: int

    def column(self, at: int, /) -> Values: ...


class TextTable(Protocol):
    """A pyarrow.Table whose columns are text."""

    num_rows: int

    def column(self, at: int, /) -> Values: ...

    def slice(self, offset: int, /) -> TextTable: ...


class InvalidRow(Protocol):
    """A pyarrow.csv.InvalidRow."""

    number: int
    actual_columns: int
