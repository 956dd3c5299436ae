"""Forged arrays and parameters of an artifact are refused before scikit-learn's compiled code follows them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import skops.io
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfVectorizer
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import SplineTransformer
from sklearn.svm import SVC, SVR, OneClassSVM
from sklearn.tree import DecisionTreeClassifier

from tableside.contracts.artifact_checks import problem
from tableside.errors import ContractBroken, FailureKind, PublishFailed
from tableside.publishing.publish import publish
from tableside.runtimes import sklearn as runtime

pytestmark = pytest.mark.no_greenlets

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(60, 3))
Y = np.arange(60) % 3
CATEGORIES = np.column_stack([X, np.arange(60) % 5])


def set_node(tree: Any, field: str, value: int, node: int = 0) -> None:
    """Change one field of a node of a fitted tree."""
    state = tree.tree_.__getstate__()
    state["nodes"] = state["nodes"].copy()
    state["nodes"][field][node] = value
    tree.tree_.__setstate__(state)


def boosting() -> Any:
    return HistGradientBoostingClassifier(max_iter=3, categorical_features=[3]).fit(CATEGORIES, Y)


def boosting_nodes(estimator: Any) -> Any:
    predictor = estimator.__dict__["_predictors"][0][0]
    predictor.nodes = predictor.nodes.copy()
    return predictor.nodes


def forged_forest(field: str, value: int) -> Any:
    forest = RandomForestClassifier(3, random_state=0).fit(X, Y)
    set_node(forest.estimators_[1], field, value)
    return make_pipeline(forest)


def forged_boosting(field: str, value: int) -> Any:
    estimator = boosting()
    boosting_nodes(estimator)[field][0] = value
    return estimator


def forged_categories() -> Any:
    estimator = boosting()
    nodes = boosting_nodes(estimator)
    nodes["is_categorical"][0], nodes["bitset_idx"][0] = 1, 1000
    return estimator


def with_state(estimator: Any, **state: Any) -> Any:
    vars(estimator).update(state)
    return estimator


def forged_neighbours() -> Any:
    estimator = KNeighborsClassifier(3, algorithm="kd_tree", leaf_size=5).fit(X, Y)
    state = list(estimator._tree.__getstate__())
    index = next(at for at, part in enumerate(state) if getattr(part, "shape", ()) == (60,) and part.dtype.kind == "i")
    state[index] = state[index].copy()
    state[index][0] = 10**9
    estimator._tree.__setstate__(tuple(state))
    return estimator


def forged_sparse() -> Any:
    matrix = scipy.sparse.csr_matrix(np.eye(3))
    estimator = LogisticRegression().fit(X, Y).sparsify()
    matrix.indices[0] = 10**6
    return with_state(estimator, coef_=matrix)


def splines() -> Any:
    return SplineTransformer().fit(X)


def forged_spline(**state: Any) -> Any:
    """A spline in a list of the transformer, where it is one of several. An assignment is not checked by scipy."""
    estimator = splines()
    for name, value in state.items():
        setattr(estimator.bsplines_[1], name, value)
    return make_pipeline(estimator)


def sparse_in_a_list() -> Any:
    return with_state(LogisticRegression(), tables_={"a": [(forged_sparse().coef_,)]})


def svc() -> Any:
    return SVC().fit(X, Y)


FORGED: dict[str, tuple[Callable[[], Any], str]] = {
    "child beyond the end": (lambda: forged_forest("left_child", 2**40), "a child that is no later node"),
    "child before its parent": (lambda: forged_forest("right_child", 0), "a child that is no later node"),
    "feature": (lambda: forged_forest("feature", 3), "a feature that the tree does not have"),
    "negative feature": (lambda: forged_forest("feature", -2), "a feature that the tree does not have"),
    "leaf that became a split": (
        lambda: with_state(forged_forest("left_child", -5)), "a child that is no later node",
    ),
    "boosting child": (lambda: forged_boosting("left", 2**31), "a child that is no later node"),
    "boosting circle": (lambda: forged_boosting("right", 0), "a child that is no later node"),
    "boosting feature": (lambda: forged_boosting("feature_idx", 50), "a feature that it does not have"),
    "boosting categories": (forged_categories, "a node whose categories are missing"),
    "neighbours": (forged_neighbours, "its index names rows that it does not have"),
    "sparse": (forged_sparse, "indices"),
    "sparse in a list": (sparse_in_a_list, "indices"),
    "degree of a spline": (lambda: forged_spline(k=10**8), "SplineTransformer has a damaged bsplines_: it lacks knots"),
    "negative degree": (lambda: forged_spline(k=-1), "it lacks knots"),
    "knots of a spline": (lambda: forged_spline(t=np.arange(3.0)), "it lacks knots"),
    "coefficients of a spline": (lambda: forged_spline(c=np.zeros((2, 2))), "it lacks coefficients"),
    "support vectors": (lambda: with_state(svc(), _n_support=np.array([60] * 3, dtype=np.int32)), "support vectors"),
    "coefficients": (lambda: with_state(svc(), _dual_coef_=np.zeros((2, 1))), "coefficients"),
    "intercepts": (lambda: with_state(svc(), _intercept_=np.zeros(1)), "intercepts"),
    "classes": (lambda: with_state(svc(), classes_=np.arange(9)), "classes"),
    "width": (lambda: with_state(svc(), support_vectors_=svc().support_vectors_[:, :1].copy()), "width"),
    "regression": (lambda: with_state(SVR().fit(X, Y), _n_support=np.array([9999, 0], dtype=np.int32)), "support"),
    "file names": (lambda: CountVectorizer(input="filename"), "would open files that requests name"),
    "files": (lambda: make_pipeline(TfidfVectorizer(input="file")), "would open files that requests name"),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(FORGED))
def test_a_forged_estimator_is_refused(name: str) -> None:
    """The reason names the part."""
    make, reason = FORGED[name]
    assert reason in problem(make())


@pytest.mark.parametrize(
    "make",
    [
        lambda: RandomForestClassifier(5).fit(X, Y), boosting, svc, lambda: SVR().fit(X, Y),
        lambda: OneClassSVM().fit(X), lambda: SVC(kernel="precomputed").fit(X @ X.T, Y),
        lambda: SVC().fit(scipy.sparse.csr_matrix(X), Y), lambda: SVC(kernel=lambda a, b: a @ b.T).fit(X, Y),
        lambda: SVC().fit(X, Y > 0), lambda: KNeighborsClassifier(algorithm="ball_tree", leaf_size=5).fit(X, Y),
        lambda: KNeighborsClassifier().fit(scipy.sparse.csr_matrix(X), Y), lambda: IsotonicRegression().fit(X[:, 0], Y),
        lambda: DecisionTreeClassifier().fit(np.zeros((4, 1)), [0, 0, 0, 0]), lambda: HashingVectorizer(),
        lambda: LogisticRegression().fit(X, Y).sparsify(), splines,
        lambda: SplineTransformer(2, degree=1, extrapolation="periodic").fit(X),
        lambda: SplineTransformer(degree=0).fit(X),
    ],
    ids=lambda make: "",
)  # fmt: skip
def test_a_fitted_estimator_passes(make: Callable[[], Any]) -> None:
    """What scikit-learn has fitted is not refused; tests of all estimators load them through this check too."""
    assert problem(make()) == ""


def test_a_load_refuses_it(tmp_path: Path) -> None:
    """A skops file with a forged tree is refused as untrusted, whatever its golden rows say."""
    path = tmp_path / "model.skops"
    skops.io.dump(forged_forest("left_child", 2**40), path)
    with pytest.raises(
        ContractBroken, match="cannot be served: .*DecisionTreeClassifier has a damaged tree_"
    ) as refused:
        runtime.load(path)
    assert refused.value.failure_kind is FailureKind.UNTRUSTED


def test_publish_refuses_a_vectorizer_that_reads_files(tmp_path: Path) -> None:
    """A request would choose which file of the server is read."""
    texts = [str(tmp_path / name) for name in ("a", "b")]
    for path in texts:
        Path(path).write_text("word")
    fitted = make_pipeline(CountVectorizer(input="filename"), LogisticRegression()).fit(texts, [0, 1])
    with pytest.raises(PublishFailed, match="CountVectorizer has input='filename'"):
        publish("files", fitted, texts, repository=tmp_path / "models")
