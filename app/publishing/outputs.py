"""Finds the outputs of a fitted estimator by calling each of its methods on the sample."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from tableside.contracts import failure_place
from tableside.contracts.answers import MethodAnswer
from tableside.contracts.array_type import Array
from tableside.contracts.schema import Datatype, Output, plain
from tableside.contracts.table import EstimatorInput, Table
from tableside.errors import PublishFailed
from tableside.runtimes.base import DescribedRuntime
from tableside_contract import cells
from tableside_contract.facts import METHODS

_MAX_REASON_CHARS = 300


def find(
    runtime: DescribedRuntime, data: EstimatorInput, table: Table | None = None
) -> tuple[tuple[Output, ...], dict[str, str]]:
    """Call each method of METHODS on `data`. Return the outputs in that order, and why a method was left out.

    A method is left out when it raises, gives another answer for the same rows, or an answer that the contract cannot
    describe. table: what `data` was made from, to find the columns at fault. Raises PublishFailed when that happens to
    `predict`, or when no method is left.
    """
    outputs: list[Output] = []
    left_out: dict[str, str] = {}
    for method in METHODS:
        if method not in runtime.facts["methods"]:
            continue
        try:
            outputs += _of_method(runtime, method, data)
        except Exception as problem:
            if method == "predict":
                place = failure_place.find(problem, table) if table is not None else ""
                raise PublishFailed(
                    f"the estimator cannot predict its own sample: {failure_place.class_of(problem)}{place}: "
                    f"{' '.join(str(problem).split())[:_MAX_REASON_CHARS]}"
                ) from problem
            left_out[method] = f"{type(problem).__name__}: {problem}"
    if not outputs:
        reasons = "".join(f"; {method}: {reason}" for method, reason in left_out.items())
        raise PublishFailed(
            f"the estimator has nothing to serve: it needs one of the methods {', '.join(METHODS)}{reasons}"
        )
    return tuple(outputs), left_out


def _of_method(runtime: DescribedRuntime, method: str, data: EstimatorInput) -> list[Output]:
    answer, repeated = runtime.run(method, data), runtime.run(method, data)
    if not _same(answer, repeated):
        raise TypeError("the answer for the same rows changes from call to call, so golden rows could not be checked")
    if not isinstance(answer, list):
        return [_describe(method, answer, len(data), runtime.facts["classes"])]
    by_target = runtime.facts["classes_by_target"] or []
    outputs = []
    for part, array in enumerate(answer):
        labels = by_target[part] if len(by_target) == len(answer) else None
        described = _describe(method, array, len(data), labels)
        outputs.append(msgspec.structs.replace(described, name=f"{method}_{part}", method=method, part=part))
    return outputs


def _same(one: MethodAnswer, other: MethodAnswer) -> bool:
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(_same(a, b) for a, b in zip(one, other, strict=True))
    return np.array_equal(one, other, equal_nan=getattr(one, "dtype", np.dtype(object)).kind == "f")


def _describe(method: str, answer: Array, rows: int, classes: Sequence[cells.Cell] | None) -> Output:
    if answer.ndim not in (1, 2):
        raise TypeError(f"the answer has {answer.ndim} dimensions, expected 1 or 2")
    if len(answer) != rows:
        raise TypeError(f"the answer has {len(answer)} rows for {rows} rows of input")
    width = 1 if answer.ndim == 1 else answer.shape[1]
    labels = None
    if method in ("predict_proba", "decision_function") and classes is not None and len(classes) == width:
        labels = tuple(plain(cells.from_json(label)) for label in classes)
    return Output(method, datatype_of(answer), width, answer.ndim == 1, labels)


def datatype_of(array: Array) -> Datatype:
    """Return the protocol's datatype for an answer's dtype. Raises TypeError when there is none."""
    names: dict[str, Datatype] = {"b": "BOOL", "i": "INT64", "u": "INT64", "U": "BYTES"}
    if array.dtype.kind == "f":
        return "FP32" if array.dtype == np.float32 else "FP64"
    if array.dtype.kind == "O":
        kinds = {type(plain(value)) for value in array.reshape(-1)}
        if kinds <= {str}:
            return "BYTES"
        if kinds <= {bool}:
            return "BOOL"
        if kinds <= {int}:
            return "INT64"
        raise TypeError("the answer mixes values of several types")
    if array.dtype.kind not in names:
        raise TypeError(f"the answer has the dtype {array.dtype}, which no protocol can send")
    return names[array.dtype.kind]
