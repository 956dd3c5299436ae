"""The ONNX backend: runs the graph that publish converted from an estimator, with ONNX Runtime.

A session is created in the process that runs it, because it does not survive a fork. It runs on the calling thread,
because the worker processes share the cores already.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tableside.contracts.array_type import Array
from tableside.contracts.schema import Input, Output
from tableside.contracts.table import Table
from tableside.runtimes.fast.backend import FastRuntime, TableMethod
from tableside.runtimes.fast.numerics import EstimatorRequired, LibraryMissing, Unsupported, require
from tableside.runtimes.sklearn import SklearnRuntime

ONNX = "onnx"
LIBRARY = "onnxruntime"
NUMBERS = ("float64", "float32", "int64", "int32", "int16", "int8", "uint32", "uint16", "uint8", "bool")
"""Column dtypes that the backend passes to a graph as numbers."""
_PLACES = {"predict": 0, "predict_proba": 1, "transform": 0}
"""The position of each method's answer among a graph's results."""
_DTYPES: Mapping[str, Any] = {"tensor(double)": np.float64, "tensor(float)": np.float32}
_SILENT = 4

Feed = Callable[[Table], dict[str, Array]]


def build(
    original: SklearnRuntime, schema: Input, outputs: Sequence[Output], content: bytes, row: Table
) -> FastRuntime:
    """Put the graph of a fitted estimator in front of it.

    content: the bytes of `model.onnx`. row: a table of one golden row; the estimator predicts it, which shows the
    dtypes of the answers.

    Raises LibraryMissing without ONNX Runtime, Unsupported for a graph that does not fit the schema.
    """
    session = open_session(content)
    feed = _feed(schema, session)
    results = [result.name for result in session.get_outputs()]
    methods: dict[str, TableMethod] = {}
    for output in answerable(outputs, len(results)):
        dtype = np.asarray(original.run(output.source, row.to_input())).dtype
        floats = dtype.kind == "f" and output.name == "predict" and hasattr(original.estimator, "classes_")
        require(not floats, "labels that are floats")
        methods[output.source] = _method_of(session, feed, results[_PLACES[output.name]], dtype, output)
    require(bool(methods), "no output that a graph can compute")
    return FastRuntime(original, methods)


def answerable(outputs: Sequence[Output], results: int) -> list[Output]:
    """The outputs that a graph with this number of results can compute."""
    names = {output.name for output in outputs}
    return [
        output
        for output in outputs
        if output.part is None
        and _PLACES.get(output.name, results) < results
        and (output.name != "transform" or "predict" not in names)
    ]


def open_session(content: bytes) -> Any:
    """Open a session of a graph. Raises LibraryMissing without ONNX Runtime, Unsupported where that refuses it."""
    try:
        import onnxruntime
    except (ImportError, OSError) as absent:
        raise LibraryMissing(LIBRARY) from absent
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = _SILENT
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as refused:  # ONNX Runtime's exceptions have no common base class
        raise Unsupported(f"ONNX Runtime: {' '.join(str(refused).split())[:200]}") from refused


def _method_of(session: Any, feed: Feed, result: str, dtype: Any, output: Output) -> TableMethod:
    def answer(table: Table) -> Array:
        cells = feed(table)
        try:
            result_array = session.run([result], cells)[0]
        except Exception as refused:  # the estimator decides whether the row is valid
            raise EstimatorRequired from refused
        shape = (table.rows,) if output.flat else (table.rows, output.width)
        found: Array = np.asarray(result_array).astype(dtype, copy=False).reshape(shape)
        return found

    return answer


def _feed(schema: Input, session: Any) -> Feed:
    """A function from a table to the session's inputs: one matrix of all columns, or one input for each column."""
    wanted = session.get_inputs()
    every = [column.name for column in schema.columns]
    if len(wanted) == 1 and wanted[0].shape[-1] == len(every):
        name, gather = wanted[0].name, _numbers(schema, every, wanted[0].type)
        return lambda table: {name: gather(table)}
    known = {column.name: column for column in schema.columns}
    gathers: dict[str, Callable[[Table], Array]] = {}
    for each in wanted:
        require(each.name in known, f"an input {each.name!r} that is no column")
        texts = known[each.name].kind == "BYTES"
        gathers[each.name] = _texts(each.name) if texts else _numbers(schema, [each.name], each.type)
    return lambda table: {name: gather(table) for name, gather in gathers.items()}


def _numbers(schema: Input, names: Sequence[str], kind: str) -> Callable[[Table], Array]:
    known = {column.name: column for column in schema.columns}
    every = list(known)
    for name in names:
        require(known[name].dtype in NUMBERS, f"a column of dtype {known[name].dtype} among the numbers")
    require(kind in _DTYPES, f"an input of {kind}")
    place_of = {name: at for at, name in enumerate(every)}
    dtype, places = _DTYPES[kind], [place_of[name] for name in names]
    may_miss = np.array([known[name].nullable for name in names])
    whole = list(names) == every

    def gather(table: Table) -> Array:
        with np.errstate(over="ignore"):
            if table.arrays is None:
                assert table.matrix is not None
                found = np.ascontiguousarray(table.matrix if whole else table.matrix[:, places], dtype=dtype)
            else:
                found = np.empty((table.rows, len(names)), dtype=dtype)
                for at, name in enumerate(names):
                    found[:, at] = table.arrays[name]
        return _check_comparable(found, may_miss)

    return gather


def _check_comparable(matrix: Array, may_miss: Array) -> Array:
    """Return the matrix if the equivalence check covered such cells.

    Raises EstimatorRequired for an infinity, and for a missing value in a column that takes none.
    """
    if not math.isfinite(matrix.sum(dtype=np.float64)):
        missing_cells = np.isnan(matrix)
        if np.isinf(matrix).any() or (missing_cells & ~may_miss).any():
            raise EstimatorRequired
    return matrix


def _texts(name: str) -> Callable[[Table], Array]:
    def gather(table: Table) -> Array:
        assert table.arrays is not None
        cells = table.arrays[name].tolist()
        if not all(type(cell) is str for cell in cells):
            raise EstimatorRequired
        return np.array(cells, dtype=object).reshape(-1, 1)

    return gather
