"""V2 tensors (Open Inference Protocol, inference_rest.md) to a `Table`, and answers back to tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain
from typing import Any

import msgspec
import numpy as np

from tableside.contract.array_type import Array
from tableside.contract.schema import Column, Datatype, Input, Output
from tableside.contract.table import Table
from tableside.decoding import binary
from tableside.decoding.cells import EXACT, NONE, WORDS
from tableside.decoding.json_tables import Cells, from_columns, from_matrix, from_rows, names
from tableside.decoding.rules import STRICT, Rules, malformed
from tableside.errors import CellError, RequestRejected

NUMPY: dict[str, str] = {
    "BOOL": "bool", "INT8": "int8", "INT16": "int16", "INT32": "int32", "INT64": "int64", "UINT8": "uint8",
    "UINT16": "uint16", "UINT32": "uint32", "UINT64": "uint64", "FP16": "float16", "FP32": "float32", "FP64": "float64",
    "BYTES": "object",
}  # fmt: skip
_INTEGERS = frozenset(name for name in NUMPY if "INT" in name)
_FLOATS = frozenset(("FP16", "FP32", "FP64"))
FITS: dict[str, frozenset[str]] = {
    "FP64": _INTEGERS | _FLOATS,
    "FP32": _INTEGERS | _FLOATS,
    "INT64": _INTEGERS | _FLOATS,
    "BOOL": frozenset(("BOOL",)),
    "BYTES": frozenset(("BYTES",)),
}
MAX_DEPTH = 8


class Tensor(msgspec.Struct):
    """One input tensor of an infer request; `data` is row-major, nested or flat, or stands behind the JSON as bytes."""

    name: str
    shape: list[int]
    datatype: str
    data: Any = msgspec.UNSET
    parameters: dict[str, Any] | None = None


def flatten(data: Any, path: str) -> list[Any]:
    """Nested or flat row-major data as one flat list. Ragged nesting is refused."""
    if not isinstance(data, list):
        raise malformed(path, f"expected an array, got {WORDS.get(type(data), 'null')}")
    flat: list[Any] = data
    for _ in range(MAX_DEPTH):
        kinds = set(map(type, flat))
        if list not in kinds:
            return flat
        if kinds != {list} or len(set(map(len, flat))) != 1:
            raise malformed(path, "rows of unequal length or depth")
        flat = list(chain.from_iterable(flat))
    raise malformed(path, f"nested deeper than {MAX_DEPTH} levels")


def one_column(data: Any, path: str) -> list[Any]:
    """A column's cells, given as [rows] or [rows, 1]; another shape is refused, not read as more rows."""
    cells = flatten(data, path)
    if len(cells) != len(data) or (cells and isinstance(data[0], list) and isinstance(data[0][0], list)):
        raise malformed(path, "expected one value a row: [rows] or [rows, 1]")
    return cells


def _elements(tensor: Tensor, raw: memoryview | None, path: str) -> Cells:
    """The tensor's elements, flat, checked against its shape and datatype."""
    if tensor.datatype not in NUMPY:
        raise malformed(f"{path}.datatype", f"unknown; expected one of {', '.join(NUMPY)}")
    product = math.prod(tensor.shape)
    if raw is not None:
        if tensor.data is not msgspec.UNSET:
            raise malformed(f"{path}.data", "given in JSON and as binary data; expected one of them")
        return binary.read(raw, tensor.datatype, product, path)
    if tensor.data is msgspec.UNSET:
        raise malformed(f"{path}.data", "missing, and no binary_data_size says that it follows the JSON")
    flat = flatten(tensor.data, f"{path}.data")
    if len(flat) != product:
        raise malformed(f"{path}.data", f"expected {product} elements for shape {tensor.shape}, got {len(flat)}")
    return _as_datatype(flat, tensor.datatype, path)


def _as_datatype(flat: list[Any], datatype: str, path: str) -> Cells:
    """The elements as the tensor's own datatype holds them: an FP32 0.1 is float32's 0.1."""
    kinds = set(map(type, flat))
    if datatype in _FLOATS and kinds and kinds <= {int, float, NONE}:
        return _narrowed(flat, datatype, path)
    if datatype in _INTEGERS and kinds and kinds <= {int, float, NONE}:
        limits = np.iinfo(NUMPY[datatype])
        present = [value for value in flat if value is not None]
        if float in kinds and not all(value == int(value) for value in present):
            raise malformed(f"{path}.data", f"a value has a fraction, which {datatype} does not hold")
        if present and (min(present) < limits.min or max(present) > limits.max):
            raise malformed(f"{path}.data", f"a value lies outside {datatype}")
    return flat


def _narrowed(flat: list[Any], datatype: str, path: str) -> Cells:
    """Numbers at the width of the datatype, None as NaN; FP64 as it is, so that an integer keeps all its digits."""
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


def _fits(column: Column, datatype: str) -> bool:
    return datatype in FITS[column.datatype]


def _raw_parts(tensors: Sequence[Tensor], tail: memoryview) -> list[memoryview | None]:
    parts: list[memoryview | None] = []
    at = 0
    for size in binary.sizes([tensor.parameters for tensor in tensors], len(tail)):
        parts.append(None if size is None else tail[at : at + size])
        at += size or 0
    return parts


def from_tensors(
    tensors: Sequence[Tensor], schema: Input, rules: Rules = STRICT, tail: memoryview | None = None
) -> Table:
    """Tensors to a table: one [N] or [N, 1] tensor a column, by name, or one numeric [N, columns] matrix.

    tail: the bytes behind the JSON, when the request has binary data. Raises RequestRejected naming the tensor, its
    shape, datatype or cell.
    """
    _check_shapes(tensors)
    raw = _raw_parts(tensors, tail or memoryview(b""))
    if len(tensors) == 1 and _is_matrix(tensors[0], schema):
        return _from_matrix(tensors[0], raw[0], schema, rules)
    known = {column.name: column for column in schema.columns}
    columns: dict[str, Cells] = {}
    at_of: dict[str, int] = {}
    wrong: list[CellError] = []
    for at, tensor in enumerate(tensors):
        if tensor.name in at_of and rules.duplicate == "ignore":
            continue
        try:
            if tensor.name in at_of:
                raise malformed(f"inputs[{at}].name", "this column is given twice")
            if tensor.name not in known and rules.extra == "refuse":
                raise malformed(f"inputs[{at}].name", f"no such column; expected {names(schema)}")
            at_of[tensor.name] = at
            columns[tensor.name] = _column_cells(tensor, raw[at], known.get(tensor.name), f"inputs[{at}]")
        except RequestRejected as refusal:
            wrong += refusal.cells
    if wrong:
        raise RequestRejected("the request is malformed", tuple(wrong[: rules.most_errors]))
    return from_columns(columns, schema, rules, lambda name, row: f"inputs[{at_of.get(name, 0)}].data[{row}] ({name})")


def _column_cells(tensor: Tensor, raw: memoryview | None, column: Column | None, path: str) -> Cells:
    if len(tensor.shape) not in (1, 2) or (len(tensor.shape) == 2 and tensor.shape[1] != 1):
        raise malformed(f"{path}.shape", f"expected [rows] or [rows, 1] for one column, got {tensor.shape}")
    cells = _elements(tensor, raw, path)
    if column is not None and not _fits(column, tensor.datatype):
        raise malformed(f"{path}.datatype", f"column {column.name} takes {column.datatype}, got {tensor.datatype}")
    return cells


def _check_shapes(tensors: Sequence[Tensor]) -> None:
    for at, tensor in enumerate(tensors):
        if len(tensor.shape) > MAX_DEPTH:
            raise malformed(f"inputs[{at}].shape", f"more than {MAX_DEPTH} dimensions")
        for place, size in enumerate(tensor.shape):
            if not 0 <= size <= EXACT:
                raise malformed(f"inputs[{at}].shape[{place}]", "expected a size of at least 0, and at most 2^53")


def _is_matrix(tensor: Tensor, schema: Input) -> bool:
    named = tensor.name in schema.names
    return len(tensor.shape) == 2 and not (named and tensor.shape[1] == 1 and len(schema.columns) > 1)


def _from_matrix(tensor: Tensor, raw: memoryview | None, schema: Input, rules: Rules) -> Table:
    width = len(schema.columns)
    if tensor.shape[1] != width:
        raise malformed("inputs[0].shape", f"expected [rows, {width}] ({names(schema)}), got {tensor.shape}")
    if tensor.datatype in NUMPY and not all(tensor.datatype in FITS[each] for each in schema.datatypes):
        column = next(column for column in schema.columns if not _fits(column, tensor.datatype))
        raise malformed("inputs[0].datatype", f"column {column.name} takes {column.datatype}, got {tensor.datatype}")
    cells = _elements(tensor, raw, "inputs[0]")
    if isinstance(cells, np.ndarray):
        return from_matrix(cells.reshape(-1, width), schema, rules, "inputs[0].data")
    rows = [cells[at : at + width] for at in range(0, len(cells), width)] if width else []
    return from_rows(rows, schema, rules, "inputs[0].data")


def metadata(name: str, datatype: Datatype, width: int) -> dict[str, Any]:
    """A tensor's entry in the model metadata; -1 is the number of rows."""
    return {"name": name, "datatype": datatype, "shape": [-1, width]}


def inputs(schema: Input) -> list[dict[str, Any]]:
    """The model metadata's inputs: one a column; a model without named columns of its own has one matrix."""
    columns = schema.columns
    if schema.form == "matrix":
        return [metadata("input-0", columns[0].datatype if columns else "FP64", len(columns))]
    return [metadata(column.name, column.datatype, 1) for column in columns]


def describe(output: Output, array: Array) -> dict[str, Any]:
    """An answer's head as a V2 output: shape [rows, width]."""
    return {"name": output.name, "datatype": output.datatype, "shape": [array.shape[0], output.width]}


def to_tensor(output: Output, array: Array) -> dict[str, Any]:
    """An answer as a V2 output, its data flat."""
    return {**describe(output, array), "data": _writable(array.reshape(-1))}


def rows_json(output: Output, array: Array) -> Any:
    """An answer row by row, as V1 and MLflow have it: scalars where the estimator itself answers one value a row."""
    return _writable(array.reshape(-1) if output.flat else array)


def _writable(array: Array) -> Any:
    """What orjson can write of an array; text and objects as lists."""
    return array.tolist() if array.dtype.kind in "OUSM" else np.ascontiguousarray(array)
