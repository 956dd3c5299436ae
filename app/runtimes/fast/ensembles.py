"""The fast backend of voting, stacking and calibrated ensembles: the fast backends of their members, put together.

The functions here do what scikit-learn does with the answers of the members, with the same calls of numpy. Two names
for it: with `ensemble_treelite` each member that can be is computed by treelite, with `ensemble` none is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import StackingClassifier, StackingRegressor, VotingClassifier, VotingRegressor

from tableside.contracts.array_type import Array
from tableside.runtimes.fast.numerics import Unsupported, is_exactly, require

ENSEMBLE, ENSEMBLE_TREELITE = "ensemble", "ensemble_treelite"

Compute = Callable[[Any], Array]
"""Computes one method from a Table, or from a matrix of shape [rows, columns]."""
Methods = dict[str, Compute]
MethodsOf = Callable[[Any], Methods]
"""Returns the methods of a fitted member as functions. Raises Unsupported."""

_VOTING = (VotingClassifier, VotingRegressor)
_STACKING = (StackingClassifier, StackingRegressor)
_SEPARATE_CALIBRATORS = ("sigmoid", "isotonic")
_ROUNDED_UP = 1.0 + 1e-5
"""Up to here scikit-learn takes a calibrated probability for 1."""


def is_ensemble(estimator: Any) -> bool:
    """Whether the estimator is of a class that this backend knows. A subclass does not count."""
    return is_exactly(estimator, *_VOTING, *_STACKING, CalibratedClassifierCV)


def methods(estimator: Any, member: MethodsOf, final: MethodsOf) -> Methods:
    """The ensemble's methods as functions of what its members take.

    member: for a member, which takes the same as the ensemble. final: for the final estimator of a stack, which takes a
    matrix. Raises Unsupported.
    """
    if is_exactly(estimator, CalibratedClassifierCV):
        return _calibrated(estimator, member)
    if is_exactly(estimator, *_STACKING):
        return _stacking(estimator, member, final)
    require(is_exactly(estimator, *_VOTING), f"{type(estimator).__name__} is no ensemble of several estimators")
    return _voting(estimator, [member(each) for each in estimator.estimators_])


def _chosen(found: Methods, name: str) -> Compute:
    require(name in found, f"a member without {name}")
    return found[name]


def _voting(estimator: Any, members: Sequence[Methods]) -> Methods:
    given = estimator.weights
    named = estimator.estimators
    weights = (
        None if given is None else [weight for (_, each), weight in zip(named, given, strict=True) if each != "drop"]
    )

    def averaged(name: str, axis: int) -> Compute:
        computes = [_chosen(each, name) for each in members]

        def average(data: Any) -> Array:
            answers = np.asarray([compute(data) for compute in computes])
            found: Array = np.average(answers.T if axis else answers, axis=axis, weights=weights)
            return found

        return average

    if is_exactly(estimator, VotingRegressor):
        return {"predict": averaged("predict", 1)}
    classes = estimator.classes_
    if estimator.voting == "soft":
        probabilities = averaged("predict_proba", 0)
        return {"predict": lambda data: classes[np.argmax(probabilities(data), axis=1)], "predict_proba": probabilities}
    votes = [_chosen(each, "predict") for each in members]

    def most(cast: Array) -> Any:
        return np.argmax(np.bincount(cast, weights=weights))

    def predict(data: Any) -> Array:
        cast = np.asarray([vote(data) for vote in votes]).T
        found: Array = classes[np.apply_along_axis(most, axis=1, arr=cast)]
        return found

    return {"predict": predict}


def _stacking(estimator: Any, member: MethodsOf, final: MethodsOf) -> Methods:
    require(not estimator.passthrough, "a stack that passes its input on")
    classes = getattr(estimator, "classes_", None)
    require(classes is None or isinstance(classes, np.ndarray), "a stack with several targets")
    two = classes is not None and len(classes) == 2
    pairs = list(zip(estimator.estimators_, estimator.stack_method_, strict=True))
    first = [(_chosen(member(each), name), two and name == "predict_proba") for each, name in pairs]
    last = final(estimator.final_estimator_)

    def columns(compute: Compute, drops_first: bool, data: Any) -> Array:
        answer = compute(data)
        if answer.ndim == 1:
            return answer.reshape(-1, 1)
        return answer[:, 1:] if drops_first else answer

    def after(compute: Compute) -> Compute:
        return lambda data: compute(np.hstack([columns(each, drops, data) for each, drops in first]))

    found = {name: after(compute) for name, compute in last.items() if hasattr(estimator, name)}
    if classes is not None:
        labels = after(_chosen(last, "predict"))
        found["predict"] = lambda data: classes[labels(data)]
    return found


def _calibrated(estimator: Any, member: MethodsOf) -> Methods:
    parts = [_calibrated_member(each, member) for each in estimator.calibrated_classifiers_]
    classes = estimator.classes_

    def probabilities(data: Any) -> Array:
        found = parts[0](data)
        for part in parts[1:]:
            found += part(data)
        found /= len(parts)
        return found

    return {"predict": lambda data: classes[np.argmax(probabilities(data), axis=1)], "predict_proba": probabilities}


def _calibrated_member(calibrated: Any, member: MethodsOf) -> Compute:
    require(calibrated.method in _SEPARATE_CALIBRATORS, f"the calibration {calibrated.method}")
    inner, classes = calibrated.estimator, calibrated.classes
    if not np.array_equal(inner.classes_, classes):
        raise Unsupported("a member that knows other classes")
    two, name = len(classes) == 2, "decision_function" if hasattr(inner, "decision_function") else "predict_proba"
    compute, calibrators = _chosen(member(inner), name), list(calibrated.calibrators)

    def scores(data: Any) -> Array:
        """One row of scores for each calibrator."""
        answer = compute(data)
        if two and answer.ndim == 2:
            answer = answer[:, 1]
        return answer.reshape(1, -1) if answer.ndim == 1 else answer.T

    def probabilities(data: Any) -> Array:
        by_class = scores(data)
        found = np.zeros((by_class.shape[1], len(classes)))
        for at, (row, calibrator) in enumerate(zip(by_class, calibrators, strict=True)):
            found[:, at + two] = calibrator.predict(row)
        if two:
            found[:, 0] = 1.0 - found[:, 1]
        else:
            total = np.sum(found, axis=1)[:, np.newaxis]
            found = np.divide(found, total, out=np.full_like(found, 1 / len(classes)), where=total != 0)
        found[(found > 1.0) & (found <= _ROUNDED_UP)] = 1.0
        return found

    return probabilities
