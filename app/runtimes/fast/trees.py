"""Two fast backends for trees, forests and boosting, on scikit-learn's own fitted nodes.

`tree_walk` follows all trees for all rows at once in numpy; it is fast for few rows. `sklearn_trees` calls the compiled
code of each fitted tree; it is fast for many rows. Publish measures both and chooses by the number of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from sklearn import dummy, ensemble, tree
from sklearn.ensemble._gradient_boosting import predict_stages

from tableside.contracts.array_type import Array
from tableside.runtimes.fast.numerics import (
    Method,
    Unsupported,
    check_finite,
    fits_float32,
    is_exactly,
    pair,
    require,
    to_float32,
)

TREES = (tree.DecisionTreeClassifier, tree.DecisionTreeRegressor, tree.ExtraTreeClassifier, tree.ExtraTreeRegressor)
FORESTS = (
    ensemble.RandomForestClassifier, ensemble.RandomForestRegressor, ensemble.ExtraTreesClassifier,
    ensemble.ExtraTreesRegressor,
)  # fmt: skip
GRADIENT = (ensemble.GradientBoostingClassifier, ensemble.GradientBoostingRegressor)
HISTOGRAM = (ensemble.HistGradientBoostingClassifier, ensemble.HistGradientBoostingRegressor)
_WALK_CELLS = 1 << 14
"""Rows times trees up to which all trees are walked at once; beyond, compiled code is faster and fits the caches."""
_MISSING_CODE = 256
"""Column of `Nodes.goes_left` for a missing category."""


def _no_sets() -> Array:
    return np.zeros(0, dtype=np.intp)


@dataclass(frozen=True)
class Nodes:
    """The nodes of several trees, one array for each property, with one entry for each node.

    Both children of a leaf are the leaf itself. values has shape [nodes, outputs].
    sets: empty, or for each node a row of `goes_left`; 0 stands for a node that compares with its threshold.
    goes_left: for each category, a number below 256, whether it goes left; column 256 is for NaN.
    """

    roots: Array
    feature: Array
    threshold: Array
    left: Array
    right: Array
    missing_left: Array
    values: Array
    depth: int
    has_missing: bool
    sets: Array = field(default_factory=_no_sets)
    goes_left: Array = field(default_factory=_no_sets)

    def leaves(self, matrix: Array) -> Array:
        """The node number of the leaf that each row reaches in each tree, shape [trees, rows]."""
        rows = np.arange(len(matrix))
        at = np.repeat(self.roots[:, None], len(matrix), axis=1)
        for _ in range(self.depth):
            cells = matrix[rows, self.feature[at]]
            goes_left = cells <= self.threshold[at]
            if self.has_missing:
                goes_left |= np.isnan(cells) & self.missing_left[at]
            if len(self.sets):
                goes_left = self._by_category(cells, at, goes_left)
            at = np.where(goes_left, self.left[at], self.right[at])
        return at

    def _by_category(self, cells: Array, at: Array, by_threshold: Array) -> Array:
        rows = self.sets[at]
        categories = np.where(rows > 0, cells, np.nan)  # cells of other columns may have any size
        codes = np.where(np.isnan(categories), _MISSING_CODE, categories).astype(np.intp)
        found: Array = np.where(rows > 0, self.goes_left[rows, codes], by_threshold)
        return found


def _gather(trees: Sequence[tuple[Any, Any, Any, Any, Any, Any, int]], has_missing: bool, dtype: Any) -> Nodes:
    """Join (feature, threshold, left, right, missing_left, values, depth) of each tree; a leaf has left = -1."""
    roots, columns, start, depth = [], [], 0, 0
    for feature, threshold, left, right, missing_left, values, deep in trees:
        own = np.arange(len(left))
        leaf = left < 0
        columns.append(
            (
                np.where(leaf, 0, feature), np.where(leaf, np.inf, threshold).astype(dtype),
                np.where(leaf, own, left) + start, np.where(leaf, own, right) + start, missing_left, values,
            )
        )  # fmt: skip
        roots.append(start)
        start += len(left)
        depth = max(depth, deep)
    joined = [np.concatenate(parts) for parts in zip(*columns, strict=True)]
    feature, threshold, left, right, missing_left, values = joined
    place = np.intp
    return Nodes(
        np.array(roots, dtype=place), feature.astype(place), threshold, left.astype(place), right.astype(place),
        missing_left.astype(bool), values, depth, has_missing,
    )  # fmt: skip


def _of_trees(fitted: Sequence[Any], values: Callable[[Any], Array]) -> Nodes:
    """The nodes of `sklearn.tree` trees, which compare a float32 cell with a double threshold."""
    parts = []
    for each in fitted:
        nodes = each.tree_
        missing_left = np.asarray(nodes.missing_go_to_left).astype(bool)
        parts.append(
            (
                nodes.feature, nodes.threshold, nodes.children_left, nodes.children_right, missing_left, values(each),
                nodes.max_depth,
            )
        )  # fmt: skip
    return _gather(parts, has_missing=True, dtype=np.float64)


def methods(estimator: Any, backend: str, least_rows: int = 1) -> dict[str, Method]:
    """The estimator's methods as functions of a matrix. backend: tree_walk or sklearn_trees. Raises Unsupported.

    least_rows: the smallest number of rows in a call. Fewer rows are answered alike, but not walked.
    """
    if is_exactly(estimator, *TREES, *FORESTS):
        return _forest(estimator, backend, least_rows)
    if is_exactly(estimator, *GRADIENT):
        require(backend == "sklearn_trees", "tree_walk for gradient boosting")
        return _gradient(estimator)
    if is_exactly(estimator, *HISTOGRAM):
        return _histogram(estimator, backend, least_rows)
    raise Unsupported(f"no fast backend for {type(estimator).__name__}")


def _forest(estimator: Any, backend: str, least_rows: int) -> dict[str, Method]:
    require(estimator.n_outputs_ == 1, "several targets")
    single = is_exactly(estimator, *TREES)
    fitted = [estimator] if single else list(estimator.estimators_)
    width = len(estimator.classes_) if hasattr(estimator, "classes_") else 1
    has_missing = takes_missing(fitted[0])
    nodes = None
    if backend == "tree_walk" and least_rows * len(fitted) * width <= _WALK_CELLS:
        nodes = _of_trees(fitted, lambda each: np.ascontiguousarray(each.tree_.value[:, 0, :width]))

    def summed(matrix: Array) -> Array:
        cells = as_cells(matrix, has_missing)
        if nodes is not None and len(cells) * len(fitted) * width <= _WALK_CELLS:
            found = nodes.values[nodes.leaves(cells)]
            total: Array = np.add.accumulate(found, axis=0)[-1] if len(fitted) > 1 else found[0]
        else:
            total = np.zeros((len(cells), width))
            for each in fitted:
                total += each.tree_.predict(cells).reshape(len(cells), -1)[:, :width]
        if not single:
            total /= len(fitted)
        return total

    return of_sums(estimator, summed)


def of_sums(estimator: Any, summed: Method) -> dict[str, Method]:
    """Methods of a tree or forest from `summed`, which computes the mean of the leaves' values for each row."""
    if not hasattr(estimator, "classes_"):
        return {"predict": lambda matrix: summed(matrix)[:, 0]}
    classes = estimator.classes_
    return {"predict_proba": summed, "predict": lambda matrix: classes.take(summed(matrix).argmax(axis=1), axis=0)}


def takes_missing(fitted: Any) -> bool:
    """Whether a fitted tree has a branch for missing values."""
    return bool(getattr(fitted.tree_, "missing_go_to_left", np.zeros(0)).any())


def as_cells(matrix: Array, has_missing: bool) -> Array:
    """The matrix in float32, as a forest's trees take it.

    Raises EstimatorRequired for an infinity, and for a missing value unless `has_missing`.
    """
    if fits_float32(matrix):
        return np.ascontiguousarray(matrix, dtype=np.float32)
    cells = to_float32(matrix)
    if not has_missing:
        check_finite(cells)
    elif np.isinf(cells).any():
        check_finite(np.array([np.inf]))
    return cells


def _gradient(estimator: Any) -> dict[str, Method]:
    plain = is_exactly(estimator.init_, dummy.DummyClassifier, dummy.DummyRegressor) or estimator.init_ == "zero"
    require(plain, "an initial estimator")
    first = estimator._raw_predict_init(np.zeros((1, estimator.n_features_in_), dtype=np.float32))

    def raw(matrix: Array) -> Array:
        cells = as_cells(matrix, has_missing=False)
        found = np.repeat(first, len(cells), axis=0)
        predict_stages(estimator.estimators_, cells, estimator.learning_rate, found)
        return found

    return boosted(estimator, raw, zero_is_second=True)


def _histogram(estimator: Any, backend: str, least_rows: int) -> dict[str, Method]:
    """Histogram boosting. The matrix is encoded already where there are categorical features."""
    width = estimator.n_trees_per_iteration_
    baseline = estimator._baseline_prediction
    predictors = estimator._predictors
    bitsets, index = estimator._bin_mapper.make_known_categories_bitsets()
    rounds, nodes = len(predictors), None
    if backend == "tree_walk" and least_rows * rounds * width <= _WALK_CELLS:
        nodes = _of_predictors([each[k] for k in range(width) for each in predictors])

    def raw(matrix: Array) -> Array:
        cells = np.ascontiguousarray(matrix, dtype=np.float64)
        if nodes is not None and len(cells) * rounds * width <= _WALK_CELLS:
            found = nodes.values[nodes.leaves(cells)].reshape(width, rounds, len(cells))
            start = np.broadcast_to(baseline.reshape(width, 1, 1), (width, 1, len(cells)))
            total = np.add.accumulate(np.concatenate([start, found], axis=1), axis=1)[:, -1]
            return np.asfortranarray(total.T)
        summed = np.zeros((len(cells), width), dtype=baseline.dtype, order="F")
        summed += baseline
        for each in predictors:
            for k, predictor in enumerate(each):
                summed[:, k] += predictor.predict(cells, bitsets, index, 1)
        return summed

    return boosted(estimator, raw, zero_is_second=False)


def _of_predictors(predictors: Sequence[Any]) -> Nodes:
    parts = []
    for each in predictors:
        nodes = each.nodes
        leaf = nodes["is_leaf"].astype(bool)
        left = np.where(leaf, -1, nodes["left"].astype(np.intp))
        parts.append(
            (
                nodes["feature_idx"].astype(np.intp), nodes["num_threshold"], left, nodes["right"].astype(np.intp),
                nodes["missing_go_to_left"].astype(bool), nodes["value"], int(nodes["depth"].max()),
            )
        )  # fmt: skip
    found = _gather(parts, has_missing=True, dtype=np.float64)
    sets, goes_left = _category_sets(predictors)
    return replace(found, sets=sets, goes_left=goes_left) if len(goes_left) > 1 else found


def _category_sets(predictors: Sequence[Any]) -> tuple[Array, Array]:
    """`sets` and `goes_left` of Nodes. Every code is a known category: the encoder makes others missing."""
    sets, rows, used = [], [np.zeros((1, _MISSING_CODE + 1), dtype=bool)], 1
    for each in predictors:
        nodes, bitsets = each.nodes, np.ascontiguousarray(each.raw_left_cat_bitsets, dtype="<u4")
        is_set = nodes["is_categorical"].astype(bool) & ~nodes["is_leaf"].astype(bool)
        own = np.zeros((len(bitsets), _MISSING_CODE + 1), dtype=bool)
        own[:, :_MISSING_CODE] = np.unpackbits(bitsets.view(np.uint8), axis=1, bitorder="little")
        places = nodes["bitset_idx"].astype(np.intp)
        own[places[is_set], _MISSING_CODE] = nodes["missing_go_to_left"][is_set]
        sets.append(np.where(is_set, places + used, 0))
        rows.append(own)
        used += len(own)
    return np.concatenate(sets), np.concatenate(rows)


def boosted(estimator: Any, raw: Method, zero_is_second: bool) -> dict[str, Method]:
    """Methods of a boosting estimator from its raw scores, shape [rows, 1 or classes].

    zero_is_second: whether a score of exactly 0 means the second of two classes.
    """
    if not hasattr(estimator, "classes_"):
        loss = estimator._loss
        return {"predict": lambda matrix: loss.link.inverse(raw(matrix).ravel())}
    classes = estimator.classes_

    def decision(matrix: Array) -> Array:
        scores = raw(matrix)
        return scores.ravel() if scores.shape[1] == 1 else scores

    def predict(matrix: Array) -> Array:
        scores = decision(matrix)
        if scores.ndim == 1:
            places = (scores >= 0 if zero_is_second else scores > 0).astype(int)
        else:
            places = scores.argmax(axis=1)
        found: Array = classes[places]
        return found

    def probabilities(matrix: Array) -> Array:
        scores = raw(matrix)
        found: Array = pair(scores[:, 0]) if scores.shape[1] == 1 else estimator._loss.predict_proba(scores)
        return found

    return {"predict": predict, "decision_function": decision, "predict_proba": probabilities}
