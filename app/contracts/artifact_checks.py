"""Checks of a loaded estimator that scikit-learn's compiled code and text vectorizers do not do themselves.

A skops file holds no code, but whoever can write one chooses its arrays and parameters. The compiled code of trees,
neighbours and support vector machines follows the numbers in fitted arrays without a check: a child beyond the end
of a tree's nodes ends the process at a row of the sender's choice. A text vectorizer with `input="filename"` opens the
files that a request names.

This file also runs in model processes, as tableside.contracts.conversion does: Python 3.8, no import of Tableside.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Iterator

import numpy as np

if TYPE_CHECKING or __package__:
    from tableside.contracts.array_type import Array
    from tableside.contracts.object_graph import class_path, contents, objects
else:
    from object_graph import class_path, contents, objects

_CONTENT = "content"
"""The only `input` of a text vectorizer that takes the text itself."""
_TREE_PREDICTOR = "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"
_SPLINES = ("scipy.interpolate._bsplines.BSpline", "scipy.interpolate._bsplines._BSpline")
"""From scipy 1.18, the first one keeps the second one, which has the arrays."""


def problem(estimator: object) -> str:
    """Return which part of the estimator would read files or memory that are not its own; empty if none would."""
    for part in objects(estimator):
        reason = _reason(part)
        if reason:
            return f"{class_path(part)} {reason}"
    return ""


def reads_files(part: object) -> str:
    """Return why a text vectorizer would read files; empty for other objects."""
    is_vectorizer = class_path(part).startswith("sklearn.feature_extraction.text.")
    given = getattr(part, "input", _CONTENT) if is_vectorizer else _CONTENT
    if given == _CONTENT:
        return ""
    return f"has input={given!r}: it would open files that requests name. Read the texts yourself, with input='content'"


def _reason(part: Any) -> str:
    found = reads_files(part)
    if found:
        return found
    kind, state = class_path(part), vars(part)
    features = state.get("n_features_in_")
    if kind == _TREE_PREDICTOR:
        return _boosting_tree(part)
    if kind.startswith("sklearn.svm.") and "_n_support" in state:
        return next(_support_vector_problems(state), "")
    if kind.startswith("sklearn.ensemble._hist_gradient_boosting.gradient_boosting."):
        return _boosting_features(part, features)
    for name, value in state.items():
        reason = _compiled(value, features) or next(
            filter(None, (_compiled(each, None) for each in contents(value))), ""
        )
        if reason:
            return f"has a damaged {name}: {reason}"
    return ""


def _boosting_features(boosting: object, features: int) -> str:
    for tree in objects(boosting):
        if class_path(tree) == _TREE_PREDICTOR:
            nodes = tree.nodes  # type: ignore[attr-defined]
            chosen = nodes["feature_idx"][nodes["is_leaf"] == 0]
            if len(chosen) and int(chosen.max()) >= features:
                return "has a tree that splits on a feature that it does not have"
    return ""


def _compiled(value: Any, features: int | None) -> str:
    kind = class_path(value)
    if kind.startswith("scipy.sparse."):
        return _sparse(value)
    if kind in _SPLINES:
        return _spline(value)
    if kind == "sklearn.tree._tree.Tree":
        return _tree(value, features)
    if kind.startswith(("sklearn.neighbors._kd_tree.", "sklearn.neighbors._ball_tree.")):
        return _neighbours(value)
    return ""


def _sparse(matrix: Any) -> str:
    if not hasattr(matrix, "check_format"):
        return ""
    try:
        matrix.check_format(full_check=True)
    except ValueError as problem:
        return str(problem)
    return ""


def _spline(spline: Any) -> str:
    """What is wrong with a spline. Its knots and coefficients are read by the degree, which counts both of them."""
    degree, knots = int(spline.k), len(spline.t)
    if degree < 0 or knots < 2 * degree + 2:
        return "it lacks knots"
    return "" if len(spline.c) >= knots - degree - 1 else "it lacks coefficients"


def _tree(tree: Any, features: int | None) -> str:
    left, right = tree.children_left, tree.children_right
    if features is not None and tree.n_features != features:
        return f"it has {tree.n_features} features and the estimator has {features}"
    if len(tree.value) != len(left):
        return "it has another number of values than of nodes"
    return _nodes(left, right, left == -1, tree.feature, tree.n_features)


def _boosting_tree(predictor: Any) -> str:
    nodes = predictor.nodes
    if nodes.dtype.names is None or not {"left", "right", "is_leaf", "feature_idx"} <= set(nodes.dtype.names):
        return "has nodes of another kind"
    categorical = nodes[(nodes["is_leaf"] == 0) & (nodes["is_categorical"] != 0)]
    bitsets = min(len(predictor.binned_left_cat_bitsets), len(predictor.raw_left_cat_bitsets))
    if len(categorical) and int(categorical["bitset_idx"].max()) >= bitsets:
        return "has a node whose categories are missing"
    return _nodes(nodes["left"], nodes["right"], nodes["is_leaf"] != 0, nodes["feature_idx"], None)


def _nodes(left: Array, right: Array, is_leaf: Array, feature: Array, features: int | None) -> str:
    """What is wrong with the nodes of a tree, each of shape [nodes]. A child stands behind its parent: no circle."""
    count, numbers = len(left), np.arange(len(left))
    if not count:
        return "it has no nodes"
    inner = ~is_leaf
    for children in (left[inner].astype(np.int64), right[inner].astype(np.int64)):
        if len(children) and not ((children > numbers[inner]) & (children < count)).all():
            return "a node has a child that is no later node of the tree"
    chosen = feature[inner].astype(np.int64)
    if len(chosen) and (int(chosen.min()) < 0 or (features is not None and int(chosen.max()) >= features)):
        return "a node splits on a feature that the tree does not have"
    return ""


def _neighbours(tree: Any) -> str:
    data, index, nodes, _ = (np.asarray(part) for part in tree.get_arrays())
    if len(index) != len(data) or (len(index) and not 0 <= int(index.min()) <= int(index.max()) < len(data)):
        return "its index names rows that it does not have"
    starts, ends = nodes["idx_start"].astype(np.int64), nodes["idx_end"].astype(np.int64)
    if len(nodes) and not ((starts >= 0) & (starts <= ends) & (ends <= len(data))).all():
        return "a node holds rows that it does not have"
    # Node n has the children 2n + 1 and 2n + 2. The last level holds leaves only.
    parents = np.flatnonzero(nodes["is_leaf"] == 0)
    return "a node has children beyond the end" if len(parents) and 2 * int(parents[-1]) + 2 >= len(nodes) else ""


def _support_vector_problems(state: dict[str, Any]) -> Iterator[str]:
    """What is wrong with the fitted state of a support vector machine, which libsvm reads without a check.

    The attributes without an underscore are copies for users; libsvm is given the others.
    """
    counts, vectors, pairs = np.asarray(state["_n_support"]), state["support_vectors_"], 1
    if state.get("_impl", "c_svc") in ("c_svc", "nu_svc") and "classes_" in state:
        classes = len(state["classes_"])
        pairs, counts = classes * (classes - 1) // 2, counts[:classes]
        if len(counts) != classes or state["_dual_coef_"].shape[0] != classes - 1:
            yield "has another number of classes than its support vectors"
        total = int(counts.sum())
    else:
        total = int(counts[0]) if len(counts) else -1
    if len(counts) == 0 or int(counts.min()) < 0 or total != len(state["support_"]):
        yield "has another number of support vectors than it states"
    if vectors.shape[0] not in (total, 0) or state["_dual_coef_"].shape[1] != total:
        yield "has another number of coefficients than of support vectors"
    if vectors.shape[0] and vectors.shape[1] != state["n_features_in_"]:
        yield "has support vectors of another width than its input"
    sizes = {len(state["_intercept_"])} | {len(state[name]) for name in ("_probA", "_probB") if name in state} - {0}
    if sizes != {pairs}:
        yield "has another number of intercepts than of pairs of classes"
    rows = state.get("shape_fit_", (0,))[0]
    if len(state["support_"]) and not 0 <= int(state["support_"].min()) <= int(state["support_"].max()) < rows:
        yield "names support vectors beyond its rows"
