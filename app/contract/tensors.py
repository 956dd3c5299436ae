"""V2 tensors (Open Inference Protocol, inference_rest.md) to a `Table`, and answers back to tensors."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import msgspec
import numpy as np

from app.contract.cells import WORDS, Array
from app.contract.decode import DEFAULT_LIMIT, _names, from_columns, from_rows
from app.contract.schema import Column, Datatype, Input, Output
from app.contract.table import Table
from app.errors import CellError, RequestRejected

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
    """One input tensor of an infer request; `data` is row-major, nested or flat."""

    name: str
    shape: list[int]
    datatype: str
    data: Any
    parameters: dict[str, Any] | None = None


def _reject(path: str, message: str) -> RequestRejected:
    return RequestRejected("the request is malformed", (CellError(path, message),))


def flatten(data: Any, path: str) -> list[Any]:
    """Nested or flat row-major data as one flat list. Ragged nesting is refused later, by the element count."""
    if not isinstance(data, list):
        raise _reject(path, f"expected an array, got {WORDS.get(type(data), 'null')}")
    flat: list[Any] = data
    for _ in range(MAX_DEPTH):
        kinds = set(map(type, flat))
        if list not in kinds:
            return flat
        if kinds != {list} or len(set(map(len, flat))) != 1:
            raise _reject(path, "rows of unequal length or depth")
        flat = list(chain.from_iterable(flat))
    raise _reject(path, f"nested deeper than {MAX_DEPTH} levels")


def _cells(tensor: Tensor, path: str) -> list[Any]:
    """The tensor's elements, checked against its shape and datatype."""
    if tensor.datatype not in NUMPY:
        raise _reject(f"{path}.datatype", f"unknown; expected one of {', '.join(NUMPY)}")
    product = 1
    for at, size in enumerate(tensor.shape):
        if size < 0:
            raise _reject(f"{path}.shape[{at}]", "expected a size of at least 0")
        product *= size
    flat = flatten(tensor.data, f"{path}.data")
    if len(flat) != product:
        raise _reject(f"{path}.data", f"expected {product} elements for shape {tensor.shape}, got {len(flat)}")
    return _as_datatype(flat, tensor.datatype, path)


def _as_datatype(flat: list[Any], datatype: str, path: str) -> list[Any]:
    """The elements as the tensor's own datatype holds them (an FP32 0.1 is float32's 0.1)."""
    kinds = set(map(type, flat))
    if datatype in ("FP32", "FP16") and kinds <= {int, float}:
        return _narrowed(flat, datatype, path)
    if datatype in _INTEGERS and kinds and kinds <= {int, float}:
        limits = np.iinfo(NUMPY[datatype])
        if float in kinds and not all(value == int(value) for value in flat):
            raise _reject(f"{path}.data", f"a value has a fraction, which {datatype} does not hold")
        if min(flat) < limits.min or max(flat) > limits.max:
            raise _reject(f"{path}.data", f"a value lies outside {datatype}")
    return flat


def _narrowed(flat: list[Any], datatype: str, path: str) -> list[Any]:
    try:
        with np.errstate(over="ignore"):
            narrow = np.array(flat, dtype=np.float64).astype(NUMPY[datatype]).astype(np.float64)
    except OverflowError:
        narrow = np.array([np.inf])
    if not np.isfinite(narrow).all():
        raise _reject(f"{path}.data", f"a value lies outside {datatype}")
    held: list[Any] = narrow.tolist()
    return held


def _fits(column: Column, datatype: str) -> bool:
    return datatype in FITS[column.datatype]


def from_tensors(tensors: Sequence[Tensor], schema: Input, limit: int = DEFAULT_LIMIT) -> Table:
    """Tensors to a table: one [N] or [N, 1] tensor a column, by name, or one numeric [N, columns] matrix.

    Raises RequestRejected naming the tensor, its shape, datatype or cell.
    """
    if len(tensors) == 1 and _is_matrix(tensors[0], schema):
        return _from_matrix(tensors[0], schema, limit)
    known = {column.name: column for column in schema.columns}
    columns: dict[str, list[Any]] = {}
    at_of: dict[str, int] = {}
    for at, tensor in enumerate(tensors):
        path = f"inputs[{at}]"
        if tensor.name in columns:
            raise _reject(f"{path}.name", "this column is given twice")
        if tensor.name not in known:
            raise _reject(f"{path}.name", f"no such column; expected {_names(schema)}")
        if len(tensor.shape) not in (1, 2) or (len(tensor.shape) == 2 and tensor.shape[1] != 1):
            raise _reject(f"{path}.shape", f"expected [rows] or [rows, 1] for one column, got {tensor.shape}")
        cells = _cells(tensor, path)
        if not _fits(known[tensor.name], tensor.datatype):
            wanted = known[tensor.name].datatype
            raise _reject(f"{path}.datatype", f"column {tensor.name} takes {wanted}, got {tensor.datatype}")
        columns[tensor.name] = cells
        at_of[tensor.name] = at
    return from_columns(columns, schema, limit, lambda name, row: f"inputs[{at_of.get(name, 0)}].data[{row}] ({name})")


def _is_matrix(tensor: Tensor, schema: Input) -> bool:
    named = any(column.name == tensor.name for column in schema.columns)
    return len(tensor.shape) == 2 and not (named and tensor.shape[1] == 1 and len(schema.columns) > 1)


def _from_matrix(tensor: Tensor, schema: Input, limit: int) -> Table:
    width = len(schema.columns)
    if tensor.shape[1] != width:
        raise _reject("inputs[0].shape", f"expected [rows, {width}] ({_names(schema)}), got {tensor.shape}")
    for column in schema.columns:
        if tensor.datatype in NUMPY and not _fits(column, tensor.datatype):
            raise _reject("inputs[0].datatype", f"column {column.name} takes {column.datatype}, got {tensor.datatype}")
    flat = _cells(tensor, "inputs[0]")
    rows = [flat[at : at + width] for at in range(0, len(flat), width)] if width else []
    return from_rows(rows, schema, limit, "inputs[0].data")


def metadata(name: str, datatype: Datatype, width: int) -> dict[str, Any]:
    """A tensor's entry in the model metadata; -1 is the number of rows."""
    return {"name": name, "datatype": datatype, "shape": [-1, width]}


def to_tensor(output: Output, array: Array) -> dict[str, Any]:
    """An answer as a V2 output: shape [rows, width], data flat."""
    rows = array.shape[0]
    return {"name": output.name, "datatype": output.datatype, "shape": [rows, output.width], "data": flat_json(array)}


def flat_json(array: Array) -> Any:
    """What orjson can write of an array, flat and row-major; text and objects as a list."""
    flat = np.ascontiguousarray(array).reshape(-1)
    return flat.tolist() if flat.dtype.kind in "OUSM" else flat
