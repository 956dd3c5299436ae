"""Estimators as ONNX graphs: converted at publish, where skl2onnx is installed, and held to their hash at load."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from tableside.contract.schema import Input
from tableside.runtimes.fast.numerics import LibraryMissing, Unsupported, require
from tableside.runtimes.onnx import NUMBERS
from tableside.runtimes.sklearn import parts

LIBRARY = "skl2onnx"
MATRIX = "table"
"""The name of the one input of a graph that takes all columns as a matrix."""
_SHOWN = 160
LONGEST_S = 60.0
"""What one conversion may take."""


def convert(estimator: Any, schema: Input, single: bool) -> list[bytes]:
    """The estimator's graphs: in double precision, then, where `single` allows it, in single: some have only that.

    Raises Missing without skl2onnx, Unsupported with what it says where no graph can be made.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            from skl2onnx import to_onnx
            from skl2onnx.common import data_types as types
        except (ImportError, OSError) as absent:
            raise LibraryMissing(LIBRARY) from absent
    require(not _splits_at_infinity(estimator), "a split at infinity, with which skl2onnx never ends")
    found: list[bytes] = []
    first_refusal = ""
    for number in (types.DoubleTensorType, types.FloatTensorType)[: 2 if single else 1]:
        inputs = _inputs(estimator, schema, number, types.StringTensorType)
        try:
            found.append(in_time(partial(_graph, to_onnx, estimator, inputs)))
        except Exception as refused:  # noqa: BLE001 - a converter may raise anything, and does
            first_refusal = first_refusal or f"{type(refused).__name__}: {' '.join(str(refused).split())}"
    if not found:
        raise Unsupported(f"skl2onnx: {first_refusal[:_SHOWN]}")
    return found


def _graph(to_onnx: Any, estimator: Any, inputs: list[tuple[str, Any]]) -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model = to_onnx(estimator, initial_types=inputs, options={"zipmap": False})
        except NameError:  # the estimator has no such option
            model = to_onnx(estimator, initial_types=inputs)
    content: bytes = model.SerializeToString()
    return content


def in_time(make: Callable[[], bytes]) -> bytes:
    """What `make` gives. Raises TimeoutError when that takes too long; it then goes on in a thread of nobody's."""
    made: list[bytes | Exception] = []

    def work() -> None:
        try:
            made.append(make())
        except Exception as refused:  # noqa: BLE001 - raised again by whoever waits
            made.append(refused)

    thread = threading.Thread(target=work, name="skl2onnx", daemon=True)
    thread.start()
    thread.join(LONGEST_S)
    if not made:
        raise TimeoutError(f"not done within {LONGEST_S:g} s")
    if isinstance(made[0], Exception):
        raise made[0]
    return made[0]


def _splits_at_infinity(estimator: Any) -> bool:
    """Whether a tree in it parts missing cells from all others, as those trained with missing values do."""
    splits = (each.tree_.threshold for each in parts(estimator) if hasattr(getattr(each, "tree_", None), "threshold"))
    return any(bool(np.isinf(split).any()) for split in splits)


def _inputs(estimator: Any, schema: Input, number: Any, text: Any) -> list[tuple[str, Any]]:
    """One matrix, or where columns are chosen by name an input for each."""
    require(schema.form != "texts", "texts")
    for column in schema.columns:
        fits = column.dtype in NUMBERS or (column.datatype == "BYTES" and schema.form == "frame")
        require(fits, f"a column of dtype {column.dtype}")
    if not _chooses_columns(estimator):
        require(all(column.datatype != "BYTES" for column in schema.columns), "text outside a ColumnTransformer")
        return [(MATRIX, number([None, len(schema.columns)]))]
    return [(column.name, (text if column.datatype == "BYTES" else number)([None, 1])) for column in schema.columns]


def _chooses_columns(estimator: Any) -> bool:
    """Whether its first step is a ColumnTransformer."""
    first = estimator
    while True:
        first = getattr(first, "best_estimator_", first)
        steps = getattr(first, "steps", None)
        if not steps:
            return hasattr(first, "transformers_")
        first = steps[0][1]
