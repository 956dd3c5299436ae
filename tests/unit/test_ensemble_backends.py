"""Voting, stacking and calibrated ensembles answer by the fast backends of their members, equal to the bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import make_column_transformer
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingClassifier,
    StackingRegressor,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from tableside.decoding.json_tables import from_rows
from tableside.publishing import comparison_rows, equivalence, outputs, sample_rows
from tableside.publishing.effort import QUICK
from tableside.runtimes.fast.backend import FastRuntime, build
from tableside.runtimes.fast.numerics import Unsupported
from tableside.runtimes.router import difference
from tableside.runtimes.sklearn import SklearnRuntime
from tests import estimator_zoo
from tests.unit.test_fast_backends import described

pytestmark = pytest.mark.no_greenlets

RANDOM = np.random.default_rng(3)
NUMBERS = pd.DataFrame(RANDOM.normal(size=(120, 3)), columns=["a", "b", "c"])
MIXED = NUMBERS.assign(town=np.where(NUMBERS["a"] > 0, "Bregenz", "Linz"))
TWO = np.where(NUMBERS["a"] + NUMBERS["b"] > 0, "yes", "no")
THREE = np.digitize(NUMBERS["a"], [-0.5, 0.5])
REAL = NUMBERS["a"].to_numpy() * 2 + NUMBERS["b"].to_numpy()


def forest() -> Any:
    return RandomForestClassifier(5, max_depth=4, random_state=0)


def boosting() -> Any:
    return HistGradientBoostingClassifier(max_iter=4, random_state=0)


def scaled() -> Any:
    return make_pipeline(StandardScaler(), LogisticRegression())


def members() -> list[tuple[str, Any]]:
    return [("scaled", scaled()), ("forest", forest()), ("boosting", boosting())]


def regressors() -> list[tuple[str, Any]]:
    return [("ridge", make_pipeline(StandardScaler(), Ridge())), ("forest", RandomForestRegressor(5, random_state=0))]


def mixed() -> Any:
    columns = make_column_transformer((OneHotEncoder(sparse_output=False), ["town"]), remainder="passthrough")
    return make_pipeline(columns, VotingClassifier([("l", LogisticRegression()), ("f", forest())], voting="soft"))


def dropping() -> Any:
    found = VotingClassifier(members(), voting="soft", weights=[1.0, 2.0, 3.5])
    return found.set_params(forest="drop")


CASES: dict[str, Callable[[], tuple[Any, Any]]] = {
    "soft vote": lambda: (VotingClassifier(members(), voting="soft").fit(NUMBERS, THREE), NUMBERS),
    "hard vote with weights": lambda: (VotingClassifier(members(), weights=[1, 5, 2]).fit(NUMBERS, TWO), NUMBERS),
    "weights and a dropped member": lambda: (dropping().fit(NUMBERS, TWO), NUMBERS),
    "fitted on an array": lambda: (
        VotingClassifier(members(), voting="soft").fit(NUMBERS.to_numpy(), TWO), NUMBERS.to_numpy(),
    ),
    "behind a ColumnTransformer": lambda: (mixed().fit(MIXED, TWO), MIXED),
    "around pipelines of columns": lambda: (
        VotingClassifier([("m", mixed()), ("n", mixed())], voting="soft").fit(MIXED, TWO), MIXED,
    ),
    "mean of numbers": lambda: (VotingRegressor(regressors(), weights=[1, 3]).fit(NUMBERS, REAL), NUMBERS),
    "stack of two classes": lambda: (StackingClassifier(members(), cv=3).fit(NUMBERS, TWO), NUMBERS),
    "stack of three classes": lambda: (
        StackingClassifier(members(), final_estimator=forest(), cv=3).fit(NUMBERS, THREE), NUMBERS,
    ),
    "stack of numbers": lambda: (StackingRegressor(regressors(), cv=3).fit(NUMBERS, REAL), NUMBERS),
    "sigmoid": lambda: (CalibratedClassifierCV(scaled(), cv=3).fit(NUMBERS, TWO), NUMBERS),
    "isotonic, three classes": lambda: (
        CalibratedClassifierCV(forest(), method="isotonic", cv=3).fit(NUMBERS, THREE), NUMBERS,
    ),
    "isotonic, two classes": lambda: (
        CalibratedClassifierCV(boosting(), method="isotonic", cv=3).fit(NUMBERS, TWO), NUMBERS,
    ),
    "a fitted estimator": lambda: (
        CalibratedClassifierCV(FrozenEstimator(boosting().fit(NUMBERS, THREE))).fit(NUMBERS, THREE), NUMBERS,
    ),
    "calibrated vote": lambda: (
        CalibratedClassifierCV(VotingClassifier(members(), voting="soft"), cv=2).fit(NUMBERS, TWO), NUMBERS,
    ),
}  # fmt: skip


def built(estimator: Any, rows: Any, backend: str = "ensemble", order: str = "C") -> tuple[FastRuntime, Any, Any]:
    frame, schema = described(estimator_zoo.Case("x", estimator, rows))
    return build(SklearnRuntime(estimator), schema, backend, order), frame, schema


def differences(estimator: Any, rows: Any, order: str) -> dict[tuple[str, int], float]:
    """The methods and numbers of rows for which the backend with this memory order differs from the estimator."""
    fast, frame, schema = built(estimator, rows, order=order)
    cells, found = sample_rows.rows_as_cells(frame, schema), {}
    assert {"predict"} | ({"predict_proba"} if hasattr(estimator, "predict_proba") else set()) <= set(fast.methods)
    for size in (1, 7, 120):
        table = from_rows(cells[:size], schema)
        for method, compute in fast.methods.items():
            own: Any = SklearnRuntime(estimator).run(method, table.to_input())
            if distance := difference(own, compute(table)):
                found[method, size] = distance
    return found


@pytest.mark.parametrize("name", CASES)
def test_an_ensemble_is_equal_to_the_bit(name: str) -> None:
    """Each method, for one row and for many, in the memory order of a frame's numbers that publish finds equal too."""
    estimator, rows = CASES[name]()
    found = {order: differences(estimator, rows, order) for order in ("C", "F")}
    assert {} in found.values(), found


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: VotingClassifier([("n", GaussianNB()), ("l", scaled())]), "no fast backend for the member GaussianNB"),
        (lambda: StackingClassifier(members(), passthrough=True, cv=2), "passes its input on"),
        (lambda: CalibratedClassifierCV(scaled(), method="temperature", cv=2), "the calibration temperature"),
        (forest, "no ensemble of several estimators"),
    ],
)
def test_what_is_not_known_is_the_estimators(make: Callable[[], Any], reason: str) -> None:
    """The reason is what `show` says of the backend."""
    with pytest.raises(Unsupported, match=reason):
        built(make().fit(NUMBERS, TWO), NUMBERS)


def test_publish_proves_it_beside_the_split_points_of_all_members() -> None:
    """The rows of the equivalence check lie on the thresholds of the members, and it is many times as fast."""
    estimator = VotingClassifier([("f", forest()), ("b", boosting())], voting="soft").fit(NUMBERS, TWO)
    splits = comparison_rows.thresholds(estimator, 3)
    own = [threshold for tree in estimator.estimators_[0].estimators_ for threshold in tree.tree_.threshold.tolist()]
    assert set(np.concatenate(splits)) >= {each for each in own if each != -2.0}
    assert sum(map(len, splits)) > len({each for each in own if each != -2.0})
    calibrated = CalibratedClassifierCV(forest(), cv=2).fit(NUMBERS, TWO)
    assert sum(map(len, comparison_rows.thresholds(calibrated, 3))) > 20
    frame, schema = described(estimator_zoo.Case("x", estimator, NUMBERS))
    original = SklearnRuntime(estimator)
    found, _ = outputs.find(original, NUMBERS[:50])
    report = equivalence.check_backends(original, schema, found, frame, effort=QUICK)
    checks = {check.backend: check for check in report.equivalence_checks}
    assert (checks["ensemble"].largest_difference, checks["ensemble"].rows > 500) == (0.0, True)
    used = {check.backend for check in report.equivalence_checks if check.outcome == "used"}
    assert used & {"ensemble", "ensemble_treelite"}
    assert max(checks[backend].speed_up["1"] for backend in used) > 1.5


def test_treelite_computes_the_members_that_it_knows() -> None:
    """The name with treelite is only for ensembles with such a member, so that nothing is compared twice."""
    estimator = VotingClassifier(members(), voting="soft").fit(NUMBERS, TWO)
    fast, frame, schema = built(estimator, NUMBERS, "ensemble_treelite")
    table = from_rows(sample_rows.rows_as_cells(frame, schema), schema)
    own = SklearnRuntime(estimator).run("predict_proba", table.to_input())
    assert difference(own, fast.methods["predict_proba"](table)) < 1e-12  # type: ignore[arg-type]
    with pytest.raises(Unsupported, match="no member that treelite computes"):
        built(CalibratedClassifierCV(scaled(), cv=2).fit(NUMBERS, TWO), NUMBERS, "ensemble_treelite")
