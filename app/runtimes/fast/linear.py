"""The fast backend of linear models: one matrix product."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn import linear_model as lm
from sklearn import svm

from tableside.contracts.array_type import Array
from tableside.runtimes.fast.numerics import Method, Unsupported, check_finite, is_exactly, pair, softmax

_CLASSIFIERS = (
    lm.LogisticRegression, lm.LogisticRegressionCV, lm.RidgeClassifier, lm.RidgeClassifierCV, lm.SGDClassifier,
    lm.Perceptron, lm.PassiveAggressiveClassifier, svm.LinearSVC,
)  # fmt: skip
_PROBABLE = (lm.LogisticRegression, lm.LogisticRegressionCV)
_REGRESSORS = (
    lm.LinearRegression, lm.Ridge, lm.RidgeCV, lm.Lasso, lm.LassoCV, lm.LassoLars, lm.LassoLarsCV, lm.LassoLarsIC,
    lm.Lars, lm.LarsCV, lm.ElasticNet, lm.ElasticNetCV, lm.BayesianRidge, lm.ARDRegression, lm.HuberRegressor,
    lm.OrthogonalMatchingPursuit, lm.OrthogonalMatchingPursuitCV, lm.TheilSenRegressor, lm.SGDRegressor,
    lm.QuantileRegressor, svm.LinearSVR,
)  # fmt: skip
_SMALL = 100_000


def methods(estimator: Any, sparse: bool) -> dict[str, Method]:
    """The estimator's methods as functions of a float64 matrix of shape [rows, columns]. Raises Unsupported.

    sparse: whether scikit-learn would multiply the rows as a sparse matrix, which adds in another order.
    """
    if is_exactly(estimator, *_REGRESSORS):
        return {"predict": _product(estimator.coef_, estimator.intercept_, sparse)}
    if is_exactly(estimator, *_CLASSIFIERS):
        return _classifier(estimator, sparse)
    raise Unsupported(f"no fast backend for {type(estimator).__name__}")


def _product(coef: Any, intercept: Any, sparse: bool) -> Method:
    """The function that computes scores. `dot` calls the same BLAS routines as scikit-learn's `@`, in half the time."""
    transposed = coef.T
    offset = np.reshape(intercept, (1, -1) if coef.ndim == 2 else -1)

    def dense(matrix: Array) -> Array:
        found: Array = check_finite(matrix).dot(transposed)
        found += offset
        return found

    def ordered(matrix: Array) -> Array:
        found: Array = _as_sparse(check_finite(matrix), transposed) + intercept
        return found

    return ordered if sparse else dense


def _as_sparse(matrix: Array, transposed: Array) -> Array:
    """The product, added in the order of scipy's sparse rows: from the left, one column after the other."""
    coef = transposed.reshape(len(transposed), -1)
    if matrix.size * coef.shape[1] <= _SMALL:
        terms = matrix[:, :, None] * coef[None]
        found: Array = np.add.accumulate(terms, axis=1)[:, -1]
    else:
        found = np.zeros((len(matrix), coef.shape[1]))
        for at, row in enumerate(coef):
            found += matrix[:, at, None] * row
    return found.reshape(-1) if transposed.ndim == 1 else found


def _classifier(estimator: Any, sparse: bool) -> dict[str, Method]:
    product = _product(estimator.coef_, estimator.intercept_, sparse)
    classes, binary = estimator.classes_, estimator.coef_.shape[0] == 1

    def decision(matrix: Array) -> Array:
        scores = product(matrix)
        return scores.reshape(-1) if binary else scores

    def predict(matrix: Array) -> Array:
        scores = decision(matrix)
        found: Array
        if binary and len(scores) == 1:
            at = int(scores.item() > 0)
            found = classes[at : at + 1].copy()
            return found
        places = (scores > 0).astype(np.intp) if binary else scores.argmax(axis=1)
        found = classes[places]
        return found

    found: dict[str, Method] = {"predict": predict, "decision_function": decision}
    if is_exactly(estimator, *_PROBABLE):
        found["predict_proba"] = (
            (lambda matrix: pair(decision(matrix))) if binary else (lambda matrix: softmax(decision(matrix)))
        )
    return found
