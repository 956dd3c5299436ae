"""Golden rows ask each tree of a forest once, and the answers stay equal to the bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_wine
from sklearn.ensemble import BaggingClassifier, ExtraTreesClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tableside.preflight import checks
from tableside.preflight.checks import check_version
from tableside.publishing.publish import publish
from tableside.runtimes import golden
from tableside.runtimes.computed_once import probabilities_computed_once
from tableside.runtimes.fast.backend import steps_of
from tableside.settings import Repository

pytestmark = pytest.mark.no_greenlets


class OwnForest(RandomForestClassifier):  # type: ignore[misc]
    """A subclass may compute something else."""


FORESTS: dict[str, Callable[[], Any]] = {
    "forest": lambda: RandomForestClassifier(5, random_state=0),
    "extra trees": lambda: ExtraTreesClassifier(5, random_state=0),
    "bagging": lambda: BaggingClassifier(n_estimators=5, random_state=0),
    "behind a scaler": lambda: make_pipeline(StandardScaler(), RandomForestClassifier(5, random_state=0)),
    "behind a scaler of frames": lambda: make_pipeline(
        StandardScaler().set_output(transform="pandas"), RandomForestClassifier(5, random_state=0)
    ),
    "in a search": lambda: GridSearchCV(RandomForestClassifier(5, random_state=0), {"max_depth": [3]}, cv=2),
}


def fitted(name: str, many: int = 1) -> tuple[Any, Any]:
    features, classes = load_wine(return_X_y=True, as_frame=True)
    if many > 1:
        classes = np.stack([classes, classes % 2], axis=1)
    return FORESTS[name]().fit(features, classes), features


def counted(estimator: Any) -> list[int]:
    """Count the calls of the first tree."""
    calls: list[int] = []
    tree = steps_of(estimator)[-1].estimators_[0]
    original = tree.predict_proba

    def counting(rows: Any, **options: Any) -> Any:
        calls.append(len(rows))
        return original(rows, **options)

    tree.predict_proba = counting
    return calls


@pytest.mark.parametrize("name", [name for name in FORESTS if name != "behind a scaler of frames"])
def test_each_tree_is_asked_once_for_both_methods(name: str) -> None:
    """The labels are those that scikit-learn makes of the probabilities, and both equal those of separate calls."""
    estimator, rows = fitted(name)
    labels, probabilities = estimator.predict(rows), estimator.predict_proba(rows)
    calls = counted(estimator)
    with probabilities_computed_once(estimator):
        assert (estimator.predict(rows) == labels).all()
        assert estimator.predict_proba(rows).tobytes() == probabilities.tobytes()
    assert calls == [len(rows)]
    estimator.predict_proba(rows)
    assert len(calls) == 2, "after the block every call computes"


@pytest.mark.parametrize("name", FORESTS)
def test_other_rows_are_computed(name: str) -> None:
    """Rows that differ in one bit, in their number or their order in memory are other rows."""
    estimator, frame = fitted(name)
    changed = frame.copy()
    changed.iloc[0, 0] = np.nextafter(changed.iloc[0, 0], 0)
    calls = counted(estimator)
    with probabilities_computed_once(estimator):
        for rows in (frame, changed, frame[:7], frame):
            estimator.predict_proba(rows)
    assert [number for number in calls if number != len(frame)] == [7]
    assert len(calls) == 4


def test_several_targets_answer_alike() -> None:
    """A forest of two targets has a list of probabilities."""
    estimator, rows = fitted("forest", many=2)
    labels, probabilities = estimator.predict(rows), estimator.predict_proba(rows)
    with probabilities_computed_once(estimator):
        assert (estimator.predict(rows) == labels).all()
        found = estimator.predict_proba(rows)
    assert [each.tobytes() for each in found] == [each.tobytes() for each in probabilities]


def test_what_is_no_forest_is_left_alone() -> None:
    """Neither a subclass nor another estimator gets a method of this module, and an error leaves none behind."""
    features, classes = load_wine(return_X_y=True)
    for estimator in (OwnForest(2), LogisticRegression(max_iter=10000)):
        estimator.fit(features, classes)
        with probabilities_computed_once(estimator):
            assert "predict_proba" not in vars(estimator)
    forest = RandomForestClassifier(2).fit(features, classes)
    with pytest.raises(ValueError, match="features"), probabilities_computed_once(forest):
        forest.predict(features[:, :2])
    assert "predict_proba" not in vars(forest)


def test_a_load_asks_each_tree_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With golden answers of both methods."""
    estimator, rows = fitted("forest")
    contract = publish("wine", estimator, rows, repository=tmp_path, quick=True, runtime="sklearn")
    calls: list[list[int]] = []
    compare = golden.compare

    def counting(contract: Any, run: Any, prepare: Any) -> Any:
        calls.append(counted(run.__self__.estimator))
        return compare(contract, run, prepare)

    monkeypatch.setattr(checks.golden, "compare", counting)
    check_version(tmp_path, "wine", 1, Repository())
    assert set(contract.golden.answers) == {"predict", "predict_proba"}
    assert calls == [[len(contract.golden.rows)]]
