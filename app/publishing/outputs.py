"""Finds the outputs of a fitted estimator by calling each of its methods on the sample."""

from __future__ import annotations

from typing import Literal

import msgspec
import numpy as np
from sklearn.base import is_classifier, is_outlier_detector, is_regressor

from tableside.contract.answers import MethodAnswer
from tableside.contract.array_type import Array
from tableside.contract.schema import Datatype, Output, plain
from tableside.contract.table import EstimatorInput, Table
from tableside.errors import PublishFailed
from tableside.runtimes import failure_place
from tableside.runtimes.sklearn import METHODS, SklearnRuntime

_MAX_REASON_CHARS = 300
Kind = Literal["classifier", "regressor", "clusterer", "outlier_detector", "transformer", "other"]


def kind_of(estimator: object) -> Kind:
    """Return the kind of estimator, as the contract names it."""
    if hasattr(estimator, "__sklearn_tags__"):  # without them, scikit-learn's checks raise AttributeError
        if is_classifier(estimator):
            return "classifier"
        if is_regressor(estimator):
            return "regressor"
        if is_outlier_detector(estimator):
            return "outlier_detector"
    if hasattr(estimator, "predict"):
        is_clusterer = getattr(estimator, "_estimator_type", "") == "clusterer" or hasattr(estimator, "labels_")
        return "clusterer" if is_clusterer else "other"
    return "transformer" if hasattr(estimator, "transform") else "other"


def find(
    runtime: SklearnRuntime, data: EstimatorInput, table: Table | None = None
) -> tuple[tuple[Output, ...], dict[str, str]]:
    """Call each method of METHODS on `data`. Return the outputs in that order, and why a method was left out.

    A method is left out when it raises, gives another answer for the same rows, or an answer that the contract cannot
    describe. table: what `data` was made from, to find the columns at fault. Raises PublishFailed when that happens to
    `predict`, or when no method is left.
    """
    outputs: list[Output] = []
    left_out: dict[str, str] = {}
    for method in METHODS:
        if not hasattr(runtime.estimator, method):
            continue
        try:
            outputs += _of_method(runtime, method, data)
        except Exception as problem:
            if method == "predict":
                place = failure_place.find(problem, table) if table is not None else ""
                raise PublishFailed(
                    f"the estimator cannot predict its own sample: {type(problem).__name__}{place}: "
                    f"{' '.join(str(problem).split())[:_MAX_REASON_CHARS]}"
                ) from problem
            left_out[method] = f"{type(problem).__name__}: {problem}"
    if not outputs:
        reasons = "".join(f"; {method}: {reason}" for method, reason in left_out.items())
        raise PublishFailed(
            f"the estimator has nothing to serve: it needs one of the methods {', '.join(METHODS)}{reasons}"
        )
    return tuple(outputs), left_out


def _of_method(runtime: SklearnRuntime, method: str, data: EstimatorInput) -> list[Output]:
    answer, repeated = runtime.run(method, data), runtime.run(method, data)
    if not _same(answer, repeated):
        raise TypeError("the answer for the same rows changes from call to call, so golden rows could not be checked")
    classes = getattr(runtime.estimator, "classes_", None)
    if not isinstance(answer, list):
        return [_describe(method, answer, len(data), classes)]
    outputs = []
    for part, array in enumerate(answer):
        labels = classes[part] if isinstance(classes, list) and len(classes) == len(answer) else None
        described = _describe(method, array, len(data), labels)
        outputs.append(msgspec.structs.replace(described, name=f"{method}_{part}", method=method, part=part))
    return outputs


def _same(one: MethodAnswer, other: MethodAnswer) -> bool:
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(_same(a, b) for a, b in zip(one, other, strict=True))
    return np.array_equal(one, other, equal_nan=getattr(one, "dtype", np.dtype(object)).kind == "f")


def _describe(method: str, answer: Array, rows: int, classes: object) -> Output:
    if answer.ndim not in (1, 2):
        raise TypeError(f"the answer has {answer.ndim} dimensions, expected 1 or 2")
    if len(answer) != rows:
        raise TypeError(f"the answer has {len(answer)} rows for {rows} rows of input")
    width = 1 if answer.ndim == 1 else answer.shape[1]
    labels = None
    if method in ("predict_proba", "decision_function") and isinstance(classes, np.ndarray) and len(classes) == width:
        labels = tuple(plain(label) for label in classes)
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
