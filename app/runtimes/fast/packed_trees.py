"""The shared-memory backend: forests whose nodes are arrays in a file that all workers of a host map.

A tree of scikit-learn copies its nodes when it is built, so it cannot use mapped memory. The compiled predictor of
scikit-learn's histogram boosting reads its nodes from an array without a copy, and compares as trees do: with a double
threshold, and with a side for NaN. The nodes are therefore converted to that predictor's record type; the value of a
leaf's record is the row of its class values in another array.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.ensemble._hist_gradient_boosting._predictor import _predict_from_raw_data
from sklearn.ensemble._hist_gradient_boosting.common import PREDICTOR_RECORD_DTYPE
from sklearn.pipeline import Pipeline
from sklearn.tree._tree import Tree

from tableside.contracts.array_type import Array
from tableside.runtimes.fast.numerics import Method, Unsupported, is_exactly, require
from tableside.runtimes.fast.trees import FORESTS, TREES, as_cells, of_sums

SHARED_MEMORY = "shared_memory"
_OF_TRAINING = ("oob_decision_function_", "oob_prediction_")


@dataclass(frozen=True)
class PackedTrees:
    """The nodes of all trees of a forest.

    records: one record for each node, tree after tree. starts: the first record of each tree, then the number of
    records. values: shape [leaves, width]; a leaf's record holds its row in `values`, or the value itself where the
    width is 1.
    """

    records: Array
    starts: Array
    values: Array


def last_of(estimator: Any) -> Any:
    """The last step of a pipeline; the estimator itself if it is not a pipeline."""
    return estimator.steps[-1][1] if is_exactly(estimator, Pipeline) else estimator


def pack(estimator: Any) -> PackedTrees:
    """Convert the nodes of a tree or forest. Raises Unsupported for other estimators and for several targets."""
    require(is_exactly(estimator, *TREES, *FORESTS), f"no fast backend for {type(estimator).__name__}")
    require(estimator.n_outputs_ == 1, "several targets")
    fitted, width = _fitted(estimator), _width(estimator)
    starts = np.cumsum([0, *(each.tree_.node_count for each in fitted)])
    records = np.zeros(starts[-1], PREDICTOR_RECORD_DTYPE)
    values, leaves = [], 0
    for start, stop, each in zip(starts, starts[1:], fitted, strict=False):
        own = each.tree_.value[:, 0, :width]
        if width == 1:
            _write(records[start:stop], each.tree_, own[:, 0])
            continue
        leaf = each.tree_.children_left < 0
        _write(records[start:stop], each.tree_, np.cumsum(leaf) - 1 + leaves)
        values.append(own[leaf])
        leaves += len(values[-1])
    return PackedTrees(records, starts.astype(np.int64), np.concatenate(values) if values else np.zeros((1, 1)))


def _write(records: Array, tree: Any, leaf_values: Array) -> None:
    leaf = tree.children_left < 0
    records["is_leaf"] = leaf
    records["feature_idx"] = np.where(leaf, 0, tree.feature)
    records["num_threshold"] = tree.threshold
    records["left"] = np.where(leaf, 0, tree.children_left)
    records["right"] = np.where(leaf, 0, tree.children_right)
    records["missing_go_to_left"] = tree.missing_go_to_left
    records["value"] = np.where(leaf, leaf_values, 0)


def _fitted(estimator: Any) -> Sequence[Any]:
    return [estimator] if is_exactly(estimator, *TREES) else list(estimator.estimators_)


def _width(estimator: Any) -> int:
    return len(estimator.classes_) if hasattr(estimator, "classes_") else 1


def methods(estimator: Any, packed: PackedTrees) -> dict[str, Method]:
    """The estimator's methods as functions of a matrix of shape [rows, columns].

    estimator: the fitted one, or its stub. Raises Unsupported for records of another scikit-learn.
    """
    require(packed.records.dtype == PREDICTOR_RECORD_DTYPE, "nodes of another release of scikit-learn")
    single, width, records, values = is_exactly(estimator, *TREES), _width(estimator), packed.records, packed.values
    trees = [records[start:stop] for start, stop in zip(packed.starts, packed.starts[1:], strict=False)]
    takes_missing = bool(_fitted(estimator)[0]._support_missing_values(np.zeros((1, 1))))
    no_sets, no_places = np.zeros((0, 8), np.uint32), np.zeros(estimator.n_features_in_, np.uint32)

    def summed(matrix: Array) -> Array:
        wide = as_cells(matrix, takes_missing).astype(np.float64)
        total, found = np.zeros((len(wide), width)), np.empty(len(wide))
        for nodes in trees:
            _predict_from_raw_data(nodes, wide, no_sets, no_sets, no_places, 1, found)
            total += found[:, None] if width == 1 else values[found.astype(np.intp)]
        if not single:
            total /= len(trees)
        return total

    return of_sums(estimator, summed)


def stub_of(estimator: Any) -> Any:
    """A copy of the estimator with one tree of one leaf. It refuses the input that the estimator refuses.

    Its answers have no meaning. Raises Unsupported for an estimator that is not a tree or forest.
    """
    if is_exactly(estimator, Pipeline):
        stub = copy.copy(estimator)
        name, last = estimator.steps[-1]
        stub.steps = [*estimator.steps[:-1], (name, stub_of(last))]
        return stub
    if is_exactly(estimator, *TREES):
        stub = copy.copy(estimator)
        stub.tree_ = _stump(estimator.tree_)
        return stub
    if not is_exactly(estimator, *FORESTS):
        raise Unsupported(f"no fast backend for {type(estimator).__name__}")
    stub = copy.copy(estimator)
    stub.estimators_ = [stub_of(estimator.estimators_[0])]
    for name in _OF_TRAINING:
        vars(stub).pop(name, None)
    return stub


def _stump(tree: Any) -> Any:
    state = tree.__getstate__()
    nodes = state["nodes"][:1].copy()
    nodes["left_child"] = nodes["right_child"] = -1
    stump = Tree(tree.n_features, np.asarray(tree.n_classes, dtype=np.intp), tree.n_outputs)
    stump.__setstate__({**state, "max_depth": 0, "node_count": 1, "nodes": nodes, "values": state["values"][:1].copy()})
    return stump
