"""CatBoost's symmetric trees in numpy: every level of a tree asks one question of all rows.

The answers to a tree's questions are the bits of its leaf's number. The trees are read from the JSON format that
CatBoost documents. All trees are followed at once, which is fast for few rows.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.special import expit

from tableside.contracts.array_type import Array
from tableside.runtimes.fast.numerics import EstimatorRequired, Method, require, to_float32

_MAX_LEAVES = 1 << 20
"""Larger models are left to CatBoost: JSON of many megabytes takes long to read at each load."""
_MAX_CELLS = 1 << 20
_LEVELS = 16


class _Trees:
    """levels: 8 or 16 questions for each tree; unused ones compare with infinity, which no cell exceeds."""

    def __init__(self, model: Any) -> None:
        require("oblivious_trees" in model, "trees that are not symmetric")
        features, trees = model["features_info"]["float_features"], model["oblivious_trees"]
        require(all(split["split_type"] == "FloatFeature" for tree in trees for split in tree["splits"]), "categories")
        deepest = max(len(tree["splits"]) for tree in trees)
        require(deepest <= _LEVELS, "deep trees")
        levels = 8 if deepest <= 8 else _LEVELS
        scale, bias = model["scale_and_bias"]
        self.bias, self.width, self.columns = np.atleast_1d(np.array(bias, dtype=np.float64)), 0, len(features)
        require(scale == 1, "a scale")
        self.feature = np.zeros((len(trees), levels), dtype=np.intp)
        self.border = np.full((len(trees), levels), np.inf, dtype=np.float32)
        flat_index = {each["feature_index"]: each["flat_feature_index"] for each in features}
        for at, tree in enumerate(trees):
            for level, split in enumerate(tree["splits"]):
                self.feature[at, level] = flat_index[split["float_feature_index"]]
                self.border[at, level] = split["border"]
        self.width = len(self.bias)
        leaves = [np.array(tree["leaf_values"], dtype=np.float64).reshape(-1, self.width) for tree in trees]
        self.starts = np.cumsum([0, *map(len, leaves[:-1])])[:, None]
        self.values = np.concatenate(leaves)
        treatments = {each["nan_value_treatment"] for each in features}
        require(treatments <= {"AsIs", "AsFalse", "AsTrue"}, "another treatment of missing cells")
        self.above = np.zeros(len(features), dtype=bool)
        for each in features:
            self.above[each["flat_feature_index"]] = each["nan_value_treatment"] == "AsTrue"
        self.has_above, self.packed = bool(self.above.any()), np.dtype(f"<u{levels // 8}")

    def raw(self, matrix: Array) -> Array:
        """The sums of leaf values, shape [rows, width], in the order of the trees."""
        if matrix.shape[1] != self.columns or len(matrix) * self.feature.size > _MAX_CELLS:
            raise EstimatorRequired
        cells = to_float32(matrix)
        if self.has_above:
            cells = np.where(np.isnan(cells) & self.above, np.float32(np.inf), cells)
        bits = np.packbits(cells[:, self.feature] > self.border, axis=2, bitorder="little")
        leaf = bits.view(self.packed)[:, :, 0].T + self.starts
        total: Array = np.add.accumulate(self.values[leaf], axis=0)[-1]
        total += self.bias
        return total


def methods(estimator: Any, check_cells: Callable[[Array], None]) -> dict[str, Method]:
    """The estimator's methods as functions of a matrix of numbers. Raises Unsupported.

    check_cells: raises EstimatorRequired for rows that CatBoost has to compute.
    """
    require(not estimator.get_cat_feature_indices(), "categorical features")
    require(int(np.sum(estimator.get_tree_leaf_counts())) <= _MAX_LEAVES, "a model of many leaves")
    trees = _Trees(_as_json(estimator))

    def raw(matrix: Array) -> Array:
        check_cells(matrix)
        return trees.raw(matrix)

    classes = getattr(estimator, "classes_", None)
    if classes is None or not len(classes):
        return {"predict": (lambda matrix: raw(matrix)[:, 0]) if trees.width == 1 else raw}
    if trees.width > 1:
        return {"predict": lambda matrix: classes[raw(matrix).argmax(axis=1)][:, None]}

    def probabilities(matrix: Array) -> Array:
        second = expit(raw(matrix)[:, 0])
        found: Array = np.stack([1 - second, second], axis=1)
        return found

    return {
        "predict": lambda matrix: classes[(raw(matrix)[:, 0] > 0).astype(np.intp)],
        "predict_proba": probabilities,
    }


def _as_json(estimator: Any) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "model.json")
        estimator.save_model(path, format="json")
        with open(path, encoding="utf-8") as file:
            return json.load(file)
