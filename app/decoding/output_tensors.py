"""Conversion of output arrays to V2 tensors, and to the rows of V1 and MLflow."""

from __future__ import annotations

from typing import Any

import numpy as np

from tableside.contracts.array_type import Array
from tableside.contracts.schema import Output


def describe(output: Output, array: Array) -> dict[str, Any]:
    """Return an output tensor of shape [rows, width] without its data."""
    return {"name": output.name, "datatype": output.datatype, "shape": [array.shape[0], output.width]}


def to_tensor(output: Output, array: Array) -> dict[str, Any]:
    """Return an output tensor with its data as a flat array, which orjson can write."""
    return {**describe(output, array), "data": _serializable(array.reshape(-1))}


def rows_json(output: Output, array: Array) -> list[object] | Array:
    """Return an output in the row format of V1 and MLflow, as something that orjson can write.

    A row is a scalar if the estimator returns one value per row, and an array otherwise.
    """
    return _serializable(array.reshape(-1) if output.flat else array)


def _serializable(array: Array) -> list[object] | Array:
    """Return what orjson can write: a contiguous array of numbers, or a list for text, objects and dates."""
    return array.tolist() if array.dtype.kind in "OUSM" else np.ascontiguousarray(array)
