"""Conversion of V2 tensors to a `Table`.

Source: Open Inference Protocol, specification/protocol/inference_rest.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain
from types import NoneType
from typing import Any, TypedDict, cast

import msgspec
import numpy as np

from tableside.contracts.array_type import Array
from tableside.contracts.id_column import model_of, of_width
from tableside.contracts.schema import Column, Datatype, Input
from tableside.contracts.table import Table
from tableside.decoding import binary, content_types, row_ids
from tableside.decoding.cells import MAX_EXACT_INTEGER, WORDS
from tableside.decoding.inflate import CELL_BYTES, SETTING, TEXT_CELL_BYTES
from tableside.decoding.json_tables import from_columns, from_matrix, from_rows, names
from tableside.decoding.rules import STRICT, Cells, Rules, malformed
from tableside.errors import CellError, RequestRejected, TooLarge

NUMPY: dict[str, str] = {
    "BOOL": "bool", "INT8": "int8", "INT16": "int16", "INT32": "int32", "INT64": "int64", "UINT8": "uint8",
    "UINT16": "uint16", "UINT32": "uint32", "UINT64": "uint64", "FP16": "float16", "FP32": "float32", "FP64": "float64",
    "BYTES": "object",
}  # fmt: skip
"""The numpy dtype of each datatype of the protocol."""
_INTEGERS = frozenset(name for name in NUMPY if "INT" in name)
_FLOATS = frozenset(("FP16", "FP32", "FP64"))
ACCEPTED_DATATYPES: dict[str, frozenset[str]] = {
    "FP64": _INTEGERS | _FLOATS,
    "FP32": _INTEGERS | _FLOATS,
    "INT64": _INTEGERS | _FLOATS,
    "BOOL": frozenset(("BOOL",)) | _INTEGERS | _FLOATS,
    "BYTES": frozenset(("BYTES",)),
    "DATE": frozenset(("BYTES", "FP64")) | _INTEGERS,
    "ID": row_ids.DATATYPES,
}
"""The datatypes of tensors that a column takes, by the kind of the column."""
MAX_DEPTH = 8
"""The most dimensions of a tensor."""


class Tensor(msgspec.Struct):
    """One input tensor of an infer request.

    data: row-major JSON values, nested or flat. It is unset if the data follows the JSON as bytes, whose number is then
    in `parameters.binary_data_size`.
    """

    name: str
    shape: list[int]
    datatype: str
    data: Any = msgspec.UNSET
    parameters: dict[str, Any] | None = None


class TensorMetadata(TypedDict):
    """Name, datatype and shape of a tensor in the model metadata; a size of -1 is any number of rows."""

    name: str
    datatype: str
    shape: list[int]


def flatten(data: object, path: str) -> list[object]:
    """Return nested row-major data as one flat list; flat data is returned as it is, without a copy.

    Raises RequestRejected if `data` is not a list, is nested deeper than MAX_DEPTH, or has rows of unequal length.
    """
    if not isinstance(data, list):
        raise malformed(path, f"expected an array, got {WORDS.get(type(data), 'null')}")
    flat: list[Any] = data  # nested lists, until one level holds none
    for _ in range(MAX_DEPTH):
        types = set(map(type, flat))
        if list not in types:
            return flat
        if types != {list} or len(set(map(len, flat))) != 1:
            raise malformed(path, "rows of unequal length or depth")
        flat = list(chain.from_iterable(flat))
    raise malformed(path, f"nested deeper than {MAX_DEPTH} levels")


def one_column(data: object, path: str) -> list[object]:
    """Return a column's values from data of shape [rows] or [rows, 1].

    Raises RequestRejected for another shape: flattened, it would be read as more rows than the client sent.
    """
    cells = flatten(data, path)
    rows = cast("list[object]", data)
    is_deep = bool(cells) and isinstance(rows[0], list) and isinstance(rows[0][0], list)
    if len(cells) != len(rows) or is_deep:
        raise malformed(path, "expected one value a row: [rows] or [rows, 1]")
    return cells


def _elements(tensor: Tensor, raw: memoryview | None, path: str, columns: Sequence[Column]) -> Cells:
    """The tensor's elements as a flat list or array, as its content type says. columns: those that it holds."""
    cells = _as_sent(tensor, raw, path)
    if tensor.parameters and content_types.NAME in tensor.parameters:
        return content_types.decoded(cells, tensor.parameters, tensor.datatype, columns, path)
    return cells


def _as_sent(tensor: Tensor, raw: memoryview | None, path: str) -> Cells:
    """The tensor's elements as a flat list or array, checked against its shape and datatype."""
    if tensor.datatype not in NUMPY:
        raise malformed(f"{path}.datatype", f"unknown; expected one of {', '.join(NUMPY)}")
    product = math.prod(tensor.shape)
    if raw is not None:
        if tensor.data is not msgspec.UNSET:
            raise malformed(f"{path}.data", "given in JSON and as binary data; send only one of them")
        return binary.read(raw, tensor.datatype, product, path)
    if tensor.data is msgspec.UNSET:
        raise malformed(
            f"{path}.data", "missing; send it here, or as bytes after the JSON with 'parameters.binary_data_size'"
        )
    flat = flatten(tensor.data, f"{path}.data")
    if len(flat) != product:
        raise malformed(f"{path}.data", f"expected {product} elements for shape {tensor.shape}, got {len(flat)}")
    return _as_datatype(flat, tensor.datatype, path)


def _as_datatype(flat: list[object], datatype: str, path: str) -> Cells:
    """Round numbers to the tensor's own datatype: 0.1 in an FP32 tensor is the float32 next to 0.1."""
    types = set(map(type, flat))
    if not types or not types <= {int, float, NoneType}:
        return flat  # the conversion of the column names the cells of a wrong type
    if datatype in _FLOATS:
        return _narrowed(flat, datatype, path)
    if datatype in _INTEGERS:
        limits = np.iinfo(NUMPY[datatype])
        present = [value for value in cast("list[float | None]", flat) if value is not None]
        if float in types and not all(value == int(value) for value in present):
            raise malformed(f"{path}.data", f"a value has a fraction; {datatype} holds integers only")
        if present and (min(present) < limits.min or max(present) > limits.max):
            raise malformed(f"{path}.data", f"a value lies outside {datatype}")
    return flat


def _narrowed(flat: list[object], datatype: str, path: str) -> Cells:
    """Numbers at the width of the datatype, None as NaN. FP64 is left alone: an integer in it keeps all its digits."""
    if datatype == "FP64":
        return flat
    try:
        with np.errstate(over="ignore"):
            narrow: Array = np.array(flat, dtype=np.float64).astype(NUMPY[datatype])
    except OverflowError:
        narrow = np.array([np.inf])
    if np.isinf(narrow).any():
        raise malformed(f"{path}.data", f"a value lies outside {datatype}")
    return narrow


def _accepts(column: Column, datatype: str) -> bool:
    return datatype in ACCEPTED_DATATYPES[column.kind]


def _raw_parts(tensors: Sequence[Tensor], tail: memoryview) -> list[memoryview | None]:
    parts: list[memoryview | None] = []
    at = 0
    for size in binary.sizes([tensor.parameters for tensor in tensors], len(tail)):
        parts.append(None if size is None else tail[at : at + size])
        at += size or 0
    return parts


def from_tensors(
    tensors: Sequence[Tensor], schema: Input, rules: Rules = STRICT, tail: memoryview | None = None,
    limit_bytes: int = 2**31,
) -> Table:  # fmt: skip
    """Convert tensors to a table: one tensor of shape [rows] or [rows, 1] per column, matched by name, or one numeric
    matrix of shape [rows, columns].

    tail: the bytes after the JSON, if the request has binary data. limit_bytes: the memory that its cells may take.
    Raises TooLarge, or RequestRejected, whose paths name the tensor and its wrong shape, datatype or cell.
    """
    _check_shapes(tensors)
    raw = _raw_parts(tensors, tail or memoryview(b""))
    _check_raw(tensors, raw, limit_bytes)
    at = _matrix_at(tensors, schema)
    if at is not None:
        if len(tensors) == 1:
            return _from_matrix(tensors[0], raw[0], schema, rules, "inputs[0]")
        table = _from_matrix(tensors[at], raw[at], model_of(schema), rules, f"inputs[{at}]")
        cells = _column_cells(tensors[1 - at], raw[1 - at], schema.columns[0], f"inputs[{1 - at}]")
        return row_ids.attach(table, schema, cells, rules, f"inputs[{1 - at}].data")
    known = {column.name: column for column in schema.columns}
    columns: dict[str, Cells] = {}
    positions: dict[str, int] = {}
    errors: list[CellError] = []
    for at, tensor in enumerate(tensors):
        if tensor.name in positions and rules.duplicate == "ignore":
            continue
        try:
            if tensor.name in positions:
                raise malformed(f"inputs[{at}].name", "this column is given twice")
            if tensor.name not in known and rules.extra == "refuse":
                raise malformed(f"inputs[{at}].name", f"no such column; expected {names(schema)}")
            positions[tensor.name] = at
            columns[tensor.name] = _column_cells(tensor, raw[at], known.get(tensor.name), f"inputs[{at}]")
        except RequestRejected as refusal:
            errors += refusal.cells
    if errors:
        raise RequestRejected("the request is malformed", tuple(errors[: rules.most_errors]))
    return from_columns(
        columns, schema, rules.of_texts, lambda name, row: f"inputs[{positions.get(name, 0)}].data[{row}] ({name})"
    )


def _check_raw(tensors: Sequence[Tensor], raw: Sequence[memoryview | None], limit_bytes: int) -> None:
    """Raise TooLarge if the cells of the raw tensors take more than `limit_bytes`: a byte may become eight."""
    total = 0
    for tensor, part in zip(tensors, raw, strict=True):
        is_text = tensor.datatype == "BYTES"  # each text has four bytes for its length
        if part is not None:
            cells = min(math.prod(tensor.shape), len(part) // 4 if is_text else len(part))
            total += cells * (TEXT_CELL_BYTES if is_text else CELL_BYTES)
    if total > limit_bytes:
        raise TooLarge(SETTING, limit_bytes)


def _column_cells(tensor: Tensor, raw: memoryview | None, column: Column | None, path: str) -> Cells:
    if len(tensor.shape) not in (1, 2) or (len(tensor.shape) == 2 and tensor.shape[1] != 1):
        raise malformed(f"{path}.shape", f"expected [rows] or [rows, 1] for one column, got {tensor.shape}")
    cells = _elements(tensor, raw, path, () if column is None else (column,))
    if column is not None and not _accepts(column, tensor.datatype):
        raise malformed(f"{path}.datatype", f"column {column.name} takes {column.datatype}, got {tensor.datatype}")
    return cells


def _check_shapes(tensors: Sequence[Tensor]) -> None:
    for at, tensor in enumerate(tensors):
        if len(tensor.shape) > MAX_DEPTH:
            raise malformed(f"inputs[{at}].shape", f"more than {MAX_DEPTH} dimensions")
        for axis, size in enumerate(tensor.shape):
            if not 0 <= size <= MAX_EXACT_INTEGER:
                raise malformed(f"inputs[{at}].shape[{axis}]", "expected a size of at least 0, and at most 2^53")


def _matrix_at(tensors: Sequence[Tensor], schema: Input) -> int | None:
    """Return which tensor is the matrix of all columns: the only one, or the only one beside the ids."""
    others = [at for at, tensor in enumerate(tensors) if len(tensors) == 1 or not row_ids.is_id(schema, tensor.name)]
    is_matrix = len(others) == 1 and len(tensors) <= 2 and _is_matrix(tensors[others[0]], schema)
    return others[0] if is_matrix else None


def _is_matrix(tensor: Tensor, schema: Input) -> bool:
    named = tensor.name in schema.names
    return len(tensor.shape) == 2 and not (named and tensor.shape[1] == 1 and len(schema.columns) > 1)


def _from_matrix(tensor: Tensor, raw: memoryview | None, schema: Input, rules: Rules, path: str) -> Table:
    schema = of_width(schema, tensor.shape[1])
    width = len(schema.columns)
    if tensor.shape[1] != width:
        raise malformed(f"{path}.shape", f"expected [rows, {width}] ({names(schema)}), got {tensor.shape}")
    if tensor.datatype in NUMPY and not all(tensor.datatype in ACCEPTED_DATATYPES[each] for each in schema.kinds):
        column = next(column for column in schema.columns if not _accepts(column, tensor.datatype))
        raise malformed(f"{path}.datatype", f"column {column.name} takes {column.datatype}, got {tensor.datatype}")
    cells = _elements(tensor, raw, path, schema.columns)
    if isinstance(cells, np.ndarray):
        return from_matrix(cells.reshape(-1, width), schema, rules.of_texts, f"{path}.data")
    rows = [cells[at : at + width] for at in range(0, len(cells), width)] if width else []
    return from_rows(rows, schema, rules.of_texts, f"{path}.data")


def metadata(name: str, datatype: Datatype, width: int) -> TensorMetadata:
    """Return a tensor's entry in the model metadata, with shape [-1, width]."""
    return {"name": name, "datatype": datatype, "shape": [-1, width]}


def inputs(schema: Input) -> list[TensorMetadata]:
    """Return the inputs of the model metadata: one per column, or one matrix if the model was trained on an array."""
    columns = schema.columns
    if schema.form == "matrix":
        return [metadata("input-0", columns[0].datatype if columns else "FP64", len(columns))]
    return [metadata(column.name, column.datatype, 1) for column in columns]
