"""Finds out whether an estimator that does not know its column names takes a DataFrame or an array.

Estimators of scikit-learn that were fitted on a DataFrame have `feature_names_in_`, and those that were not take an
array as well. A step of the trainer's own may do neither: it may select columns by name without recording them.
"""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
from sklearn.preprocessing import FunctionTransformer

from tableside.contracts.answers import MethodAnswer
from tableside.contracts.conversion import parts
from tableside.contracts.table import EstimatorInput
from tableside.errors import PublishFailed
from tableside.publishing.sample import Form
from tableside.runtimes.sklearn import SklearnRuntime

_ROWS = 20


def choose(
    runtime: SklearnRuntime, original: pd.DataFrame, aligned: pd.DataFrame, form: Form
) -> tuple[pd.DataFrame, Form]:  # fmt: skip
    """Return the frame and the form of input with which the estimator answers.

    original: the sample. aligned, form: what `sample.align` made of it; returned as they are unless `form` is `matrix`,
    the sample has column names, and a step that is not scikit-learn's answers only if it is given these names.
    Raises PublishFailed for an estimator that answers both and answers them differently.
    """
    has_names = all(isinstance(name, str) for name in original.columns)
    if form != "matrix" or not has_names or not _has_own_steps(runtime.estimator):
        return aligned, form
    by_name = _answer(runtime, original.iloc[:_ROWS])
    if by_name is None:
        return aligned, form
    by_position = _answer(runtime, np.ascontiguousarray(aligned.iloc[:_ROWS].to_numpy()))
    if by_position is None:
        return original, "frame"
    if not _agree(by_name, by_position):
        raise PublishFailed(
            "the estimator answers a DataFrame otherwise than an array of the same numbers, and it does not say on "
            "which it was fitted. If on a DataFrame, set self.feature_names_in_ = X.columns.to_numpy() in the fit of "
            "its first step, and train it again"
        )
    return aligned, form


def _has_own_steps(estimator: object) -> bool:
    return any(
        isinstance(part, FunctionTransformer) or not type(part).__module__.startswith("sklearn.")
        for part in parts(estimator)
    )


def _answer(runtime: SklearnRuntime, data: EstimatorInput) -> MethodAnswer | None:
    """The answer of the estimator's first method; None where it raises."""
    method = next(iter(runtime.facts["methods"]), None)
    if method is None:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # scikit-learn warns of names that an estimator was not fitted with
            return runtime.run(method, data)
    except Exception:  # noqa: BLE001 - the estimator may raise anything for input that it does not take
        return None


def _agree(one: MethodAnswer, other: MethodAnswer) -> bool:
    if isinstance(one, list) or isinstance(other, list):
        both = isinstance(one, list) and isinstance(other, list) and len(one) == len(other)
        return both and all(_agree(a, b) for a, b in zip(one, other, strict=True))
    if one.dtype.kind == "f" and other.dtype.kind == "f" and one.shape == other.shape:
        return bool(np.allclose(one, other, rtol=1e-9, equal_nan=True))
    return np.array_equal(one, other)
