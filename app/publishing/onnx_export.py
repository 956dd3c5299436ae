"""Converts estimators to ONNX graphs with skl2onnx, at publish and where it is installed.

The contract holds the SHA-256 of the graph, and every load checks it.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import numpy as np

from tableside.contracts.conversion import parts
from tableside.contracts.schema import Input
from tableside.runtimes.fast.numerics import LibraryMissing, Unsupported, require
from tableside.runtimes.onnx import NUMBERS

LIBRARY = "skl2onnx"
MATRIX = "table"
"""The name of the input of a graph that takes all columns as one matrix."""
_MAX_REASON_CHARS = 160
MAX_TREE_NODES = 400_000
_NODE_S = 25e-6
"""Seconds in which skl2onnx converts one node of a tree, as measured. Its time grows with their number."""
MAX_CONVERSION_S = 60.0
"""A conversion that takes longer is given up."""


class TensorType(Protocol):
    """The constructor of a tensor type of skl2onnx; a dimension of None is open."""

    def __call__(self, shape: list[int | None]) -> object: ...


def convert(estimator: object, schema: Input, single: bool) -> list[bytes]:
    """Return the ONNX graphs of an estimator, the one in double precision first.

    single: also convert in single precision, which is all that skl2onnx offers for some estimators.
    Raises LibraryMissing without skl2onnx, and Unsupported with the converter's error when no graph can be made.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            from skl2onnx import to_onnx
            from skl2onnx.common import data_types as types
        except (ImportError, OSError) as absent:
            raise LibraryMissing(LIBRARY) from absent
    nodes = _tree_nodes(estimator)
    require(
        nodes <= MAX_TREE_NODES,
        f"{nodes} tree nodes, which take skl2onnx more than {MAX_TREE_NODES * _NODE_S:.0f} s to convert",
    )
    require(not _splits_at_infinity(estimator), "a tree with a split at infinity, on which skl2onnx never ends")
    graphs: list[bytes] = []
    first_error = ""
    for number in (types.DoubleTensorType, types.FloatTensorType)[: 2 if single else 1]:
        inputs = _inputs(estimator, schema, number, types.StringTensorType)
        try:
            graphs.append(run_with_timeout(partial(_graph, to_onnx, estimator, inputs)))
        except Exception as problem:  # noqa: BLE001 - skl2onnx documents no base class of its errors
            first_error = first_error or f"{type(problem).__name__}: {' '.join(str(problem).split())}"
    if not graphs:
        raise Unsupported(f"skl2onnx cannot convert it: {first_error[:_MAX_REASON_CHARS]}")
    return graphs


def _graph(to_onnx: Callable[..., Any], estimator: object, inputs: list[tuple[str, object]]) -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model = to_onnx(estimator, initial_types=inputs, options={"zipmap": False})
        except NameError:  # skl2onnx raises it for an estimator without the option zipmap
            model = to_onnx(estimator, initial_types=inputs)
    content: bytes = model.SerializeToString()
    return content


def run_with_timeout(make: Callable[[], bytes]) -> bytes:
    """Return what `make` returns, or raise what it raises.

    Raises TimeoutError after MAX_CONVERSION_S. A thread cannot be stopped, so `make` then goes on in a daemon thread,
    which ends with the process.
    """
    result: list[bytes | Exception] = []

    def work() -> None:
        try:
            result.append(make())
        except Exception as problem:  # noqa: BLE001 - raised again below, in the caller's thread
            result.append(problem)

    thread = threading.Thread(target=work, name="skl2onnx", daemon=True)
    thread.start()
    thread.join(MAX_CONVERSION_S)
    if not result:
        raise TimeoutError(f"the conversion did not end within {MAX_CONVERSION_S:g} s")
    if isinstance(result[0], Exception):
        raise result[0]
    return result[0]


def _tree_nodes(estimator: object) -> int:
    trees = (getattr(part, "tree_", None) for part in parts(estimator))
    return sum(int(getattr(tree, "node_count", 0)) for tree in trees if tree is not None)


def _splits_at_infinity(estimator: object) -> bool:
    """Whether a tree separates missing values from all others, as trees fitted on missing values may do."""
    splits = (part.tree_.threshold for part in parts(estimator) if hasattr(getattr(part, "tree_", None), "threshold"))
    return any(bool(np.isinf(split).any()) for split in splits)


def _inputs(estimator: object, schema: Input, number: TensorType, text: TensorType) -> list[tuple[str, object]]:
    """Return the inputs of the graph: one matrix, or one for each column before a ColumnTransformer."""
    require(schema.form != "texts", "a list of texts as input")
    for column in schema.columns:
        fits = column.dtype in NUMBERS or (column.kind == "BYTES" and schema.form == "frame")
        require(fits, f"a column of dtype {column.dtype}")
    if not _chooses_columns(estimator):
        require(
            all(column.datatype != "BYTES" for column in schema.columns), "a text column outside a ColumnTransformer"
        )
        return [(MATRIX, number([None, len(schema.columns)]))]
    return [(column.name, (text if column.datatype == "BYTES" else number)([None, 1])) for column in schema.columns]


def _chooses_columns(estimator: object) -> bool:
    """Whether the first step is a ColumnTransformer."""
    first: Any = estimator
    while True:
        first = getattr(first, "best_estimator_", first)
        steps = getattr(first, "steps", None)
        if not steps:
            return hasattr(first, "transformers_")
        first = steps[0][1]
