"""Histogram boosting with categorical features, and encoders outside a ColumnTransformer: backends equal to the bit."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

from tableside.contracts.schema import Column, Input
from tableside.decoding.json_tables import from_matrix
from tableside.publishing import equivalence, outputs
from tableside.publishing.comparison_rows import thresholds
from tableside.publishing.effort import QUICK
from tableside.runtimes.fast.backend import build
from tableside.runtimes.fast.numerics import Unsupported
from tableside.runtimes.router import difference
from tableside.runtimes.sklearn import SklearnRuntime
from tests.estimator_zoo import Case
from tests.unit.test_fast_backends import described

pytestmark = pytest.mark.no_greenlets

ROWS = 240
CHANCE = np.random.default_rng(5)
WORDS = CHANCE.choice(np.array(["Graz", "Linz", "Wien"], dtype=object), ROWS)
SHIFT = CHANCE.integers(-2, 5, ROWS)
AGE = CHANCE.normal(40, 10, ROWS)
LABELS = (AGE > 42) ^ (WORDS == "Wien") ^ (SHIFT % 2 == 0)
HOLES = np.arange(ROWS) % 7 == 0
UNKNOWN_IS_NAN = {"handle_unknown": "use_encoded_value", "unknown_value": np.nan}
BOOSTING: dict[str, Any] = {"max_iter": 8, "min_samples_leaf": 3, "random_state": 0}


def table(dtype: str = "object", missing: bool = True) -> pd.DataFrame:
    city: pd.Series[Any] = pd.Series(np.where(HOLES & missing, np.nan, WORDS), dtype=object)
    return pd.DataFrame({"age": np.where(HOLES & missing, np.nan, AGE), "city": city.astype(dtype), "shift": SHIFT})


def matrix() -> Any:
    return np.column_stack([AGE, SHIFT, np.where(HOLES, np.nan, SHIFT % 3)])


def selected(encoder: Any, kind: Any) -> Any:
    chosen = make_column_selector(dtype_include=kind)
    return make_column_transformer((encoder, chosen), remainder="passthrough", verbose_feature_names_out=False)


def cases() -> dict[str, tuple[Any, Any]]:
    """Name to unfitted estimator and rows."""
    by_dtype = HistGradientBoostingClassifier(categorical_features="from_dtype", **BOOSTING)
    by_name = HistGradientBoostingClassifier(categorical_features=["city"], **BOOSTING)
    by_place = HistGradientBoostingClassifier(categorical_features=[1, 2], **BOOSTING)
    plain = HistGradientBoostingClassifier(**BOOSTING)
    ordinal = OrdinalEncoder(**UNKNOWN_IS_NAN)
    piped = make_pipeline(selected(ordinal, "category").set_output(transform="pandas"), by_name)
    scaled = make_pipeline(StandardScaler(), LogisticRegression())
    texts = table()[["city"]].assign(again=WORDS[::-1])
    return {
        "by dtype": (by_dtype, table("category")),
        "regression": (HistGradientBoostingRegressor(categorical_features="from_dtype", **BOOSTING), table("category")),
        "by name, text": (by_name, table()),
        "by place, array": (by_place, matrix()),
        "by name, numbers": (
            HistGradientBoostingClassifier(categorical_features=["shift"], **BOOSTING), table()[["age", "shift"]],
        ),
        "after a ColumnTransformer": (piped, table("category")),
        "in a search": (GridSearchCV(by_dtype, {"max_iter": [8]}, cv=2), table("category")),
        "ordinal alone": (make_pipeline(ordinal, plain), texts),
        "ordinal over numbers": (make_pipeline(OrdinalEncoder(**UNKNOWN_IS_NAN), plain), matrix()),
        "one-hot alone": (make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression()), texts),
        "a scaler in a search": (GridSearchCV(scaled, {}), matrix()[:, :2]),
    }  # fmt: skip


def checked(name: str) -> dict[str, Any]:
    """The equivalence checks of a case, by backend."""
    estimator, rows = cases()[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = estimator.fit(rows, LABELS)
        frame, schema = described(Case(name, fitted, rows))
        original = SklearnRuntime(fitted)
        found, _ = outputs.find(original, rows[:50])
        report = equivalence.check_backends(original, schema, found, frame, effort=QUICK)
    return {check.backend: check for check in report.equivalence_checks}


@pytest.mark.parametrize("name", cases())
def test_a_backend_is_equal_on_every_compared_row(name: str) -> None:
    """Missing, unknown and negative categories are among the rows; the answers have the bits of the estimator's."""
    outcomes = checked(name)
    expected = ("linear",) if "one-hot" in name or "scaler" in name else ("tree_walk", "sklearn_trees")
    assert outcomes["booster"].outcome == "unsupported"
    for backend in expected:
        assert outcomes[backend].outcome in ("used", "slower"), outcomes[backend]
        assert (outcomes[backend].largest_difference, outcomes[backend].rows > 500) == (0.0, True)


def test_an_infinite_category_is_left_to_the_estimator() -> None:
    """The encoder refuses an infinity. So does the backend, by asking the estimator."""
    fitted = cases()["by place, array"][0].fit(matrix(), LABELS)
    schema = Input("matrix", tuple(Column(name, "FP64", "float64", nullable=True) for name in "abc"))
    for backend in ("tree_walk", "sklearn_trees"):
        fast = build(SklearnRuntime(fitted), schema, backend)
        with pytest.raises(ValueError, match="infinity"):
            fast.run("predict", from_matrix(np.array([[1.0, np.inf, 0.0]]), schema))
        rows = from_matrix(np.array([[np.inf, 1.0, 0.0], [1e300, -3.0, np.nan]]), schema)
        own = SklearnRuntime(fitted).run("predict_proba", rows.to_input())
        assert difference(own, fast.methods["predict_proba"](rows)) == 0  # type: ignore[arg-type]


def test_split_points_are_those_of_the_tables_columns() -> None:
    """The encoder moves the categorical columns to the front; numbers are compared beside the splits of their own."""
    fitted = cases()["by place, array"][0].fit(matrix(), LABELS)
    ages, shifts, rest = thresholds(fitted, 3)
    assert len(ages)
    assert 20 < np.median(ages) < 60
    assert (len(shifts), len(rest)) == (0, 0)
    searched = GridSearchCV(fitted, {}, cv=2).fit(matrix(), LABELS)
    assert [len(each) for each in thresholds(searched, 3)] == [len(ages), 0, 0]


def test_a_forest_in_a_search_is_not_shared() -> None:
    """Only a forest itself, or at the end of a pipeline, is laid out in shared memory."""
    searched = GridSearchCV(RandomForestClassifier(3, random_state=0), {}, cv=2).fit(matrix()[:, :2], LABELS)
    schema = Input("matrix", tuple(Column(name, "FP64", "float64") for name in "ab"))
    assert build(SklearnRuntime(searched), schema, "tree_walk").methods
    with pytest.raises(Unsupported, match="inside a search"):
        build(SklearnRuntime(searched), schema, "shared_memory")
