"""Fast backends of boosters are equal to the bit: their own prediction, treelite, and CatBoost's trees in numpy."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from catboost import CatBoostClassifier
from lightgbm import LGBMClassifier
from sklearn.compose import make_column_transformer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from xgboost import XGBClassifier, XGBRegressor

from tableside.contracts.schema import Contract
from tableside.contracts.table import Table
from tableside.decoding.json_tables import from_matrix, from_rows
from tableside.preflight.checks import check_version
from tableside.publishing import comparison_rows, equivalence, outputs, sample_rows
from tableside.publishing.effort import QUICK
from tableside.publishing.publish import publish
from tableside.repository.integrity import read_contract
from tableside.runtimes.fast.backend import BACKENDS, FastRuntime, build
from tableside.runtimes.fast.numerics import EstimatorRequired, Unsupported
from tableside.runtimes.router import RoutedRuntime, build_router, difference
from tableside.runtimes.sklearn import SklearnRuntime
from tableside.setting_texts import LIBRARIES
from tableside.settings import Repository
from tests.libraries import zoo
from tests.libraries.zoo import Case
from tests.unit.test_fast_backends import described

pytestmark = pytest.mark.filterwarnings("ignore")

SIZES = (1, 7, 120)
WITHOUT = ("linear",)
"""Cases that no backend computes: a linear booster."""
ENSEMBLES = ("CalibratedClassifierCV", "VotingClassifier", "StackingClassifier", "VotingRegressor")
TREELITE = ("alone, array", "regressor", "early stopping", "Pipeline", "ColumnTransformer", "GridSearchCV")


MAKERS = {"xgboost": zoo.xgboost_cases, "lightgbm": zoo.lightgbm_cases, "catboost": zoo.catboost_cases}


@cache
def cases(library: str) -> list[Case]:
    return zoo.cases(MAKERS[library])


def named(library: str, wrapping: str) -> Case:
    return next(case for case in cases(library) if case.wrapping == wrapping)


def built(case: Case) -> tuple[SklearnRuntime, Any, Any, dict[str, FastRuntime]]:
    original = SklearnRuntime(case.estimator)
    frame, schema = described(case)
    found = {}
    for backend in BACKENDS:
        try:
            found[backend] = build(original, schema, backend)
        except Unsupported:
            continue
    return original, schema, frame, found


def expected_backends(case: Case) -> set[str]:
    if case.wrapping in WITHOUT:
        return set()
    if case.wrapping in ENSEMBLES:
        return {"ensemble"}
    found = {"booster"}
    if case.library == "xgboost" and case.wrapping in TREELITE:
        found.add("treelite")
    if case.library == "catboost" and "categor" not in case.wrapping:
        found.add("tree_walk")
    return found


@pytest.mark.parametrize("library", MAKERS)
def test_every_booster_has_a_backend_that_is_equal_to_the_bit(library: str) -> None:
    """Each method, for one row and for many; a treelite that adds in another order is the only one that may differ."""
    for case in cases(library):
        original, schema, frame, found = built(case)
        assert expected_backends(case) <= set(found), (case.name, set(found))
        rows = sample_rows.rows_as_cells(frame, schema)
        for backend, fast in found.items():
            if (case.library, case.wrapping, backend) == ("lightgbm", "random forest", "treelite"):
                continue  # treelite divides each leaf, LightGBM the sum
            for size in SIZES:
                table = from_rows(rows[:size], schema)
                for method in fast.methods:
                    own = original.run(method, table.to_input())
                    answered = fast.methods[method](table)
                    assert difference(own, answered) == 0, (case.name, backend, method, size)  # type: ignore[arg-type]


CHECKED = ("alone, frame", "category dtype", "text categories", "ColumnTransformer", "early stopping")


@pytest.mark.parametrize("library", MAKERS)
def test_the_equivalence_check_passes_beside_the_split_points(library: str) -> None:
    """Equal on split points and their neighbours, huge numbers, missing and unknown cells."""
    for case in (case for case in cases(library) if case.wrapping in CHECKED):
        original, schema, frame, _ = built(case)
        found, _ = outputs.find(original, case.rows[:50])
        report = equivalence.check_backends(original, schema, found, frame, effort=QUICK)
        outcomes = {check.backend: check for check in report.equivalence_checks}
        for backend in expected_backends(case):
            assert outcomes[backend].outcome in ("used", "slower"), (case.name, outcomes[backend])
            assert (outcomes[backend].largest_difference, outcomes[backend].rows > 500) == (0.0, True)


def test_split_points_of_boosters_are_compared() -> None:
    """The rows of the equivalence check lie on and beside the thresholds of the booster's own trees."""
    for library in MAKERS:
        splits = comparison_rows.thresholds(named(library, "alone, array").estimator, 3)
        assert sum(map(len, splits)) > 10, library
        assert len(splits[0])
        assert 18 < np.median(splits[0]) < 90
    categorical = named("lightgbm", "category dtype")
    assert len(comparison_rows.thresholds(categorical.estimator, 4)[3]) == 0


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One version of each library over a DataFrame, published with its fast backends."""
    root = tmp_path_factory.mktemp("models")
    for library in MAKERS:
        case = named(library, "alone, frame")
        publish(library, case.estimator, case.rows, repository=root, trusted_libraries=LIBRARIES, quick=True)
    return root


@pytest.mark.parametrize("library", MAKERS)
def test_a_published_booster_is_served_by_a_fast_backend(library: str, versions: Path) -> None:
    """It is chosen because it is faster, and a load routes to it; without treelite the booster's own answers."""
    contract: Contract = read_contract(versions, library, 1)
    used = {check.backend for check in contract.equivalence_checks if check.outcome == "used"}
    assert used
    assert used <= {"booster", "treelite", "tree_walk"}
    assert max(check.speed_up["1"] for check in contract.equivalence_checks if check.outcome == "used") > 1.5
    loaded = check_version(versions, library, 1, Repository(trusted_libraries=LIBRARIES))
    router = build_router(SklearnRuntime(loaded.original.estimator), contract, versions / library / "1")
    assert isinstance(router, RoutedRuntime)
    assert router.used == used


def test_what_a_library_refuses_is_left_to_it() -> None:
    """An unknown category for XGBoost, infinities and integers that a double rounds: the estimator answers itself."""
    original, schema, frame, found = built(named("xgboost", "category dtype"))
    rows = sample_rows.rows_as_cells(frame, schema)[:2]
    rows[0][3] = "Bregenz"
    table = Table.concat([from_rows(rows[1:], schema)])
    assert table.arrays is not None
    unknown = Table(schema, 1, {**table.arrays, "city": np.array(["Bregenz"], dtype=object)})
    with pytest.raises(EstimatorRequired):
        found["booster"].methods["predict"](unknown)
    original, schema, _, found = built(named("xgboost", "alone, array"))
    for cell in (np.inf, -np.inf, 2.0**60, -1e200):
        odd = from_matrix(np.array([[cell, 1.0, 2.0]]), schema)
        for backend in ("booster", "treelite"):
            with pytest.raises(EstimatorRequired):
                found[backend].methods["predict_proba"](odd)
            np.testing.assert_array_equal(
                found[backend].run("predict_proba", odd), original.run("predict_proba", odd.to_input())
            )


@pytest.mark.parametrize("library", MAKERS)
def test_the_memory_of_a_request_is_read_only(library: str) -> None:
    """A binary tensor's matrix is the body itself, which nothing may write to: every backend reads it as it is."""
    original, schema, _, found = built(named(library, "alone, array"))
    matrix = np.frombuffer(zoo.matrix().tobytes()).reshape(-1, 3)
    table = Table(schema, len(matrix), None, matrix)
    for backend, fast in found.items():
        own = original.run("predict_proba", table.to_input())
        assert difference(own, fast.methods["predict_proba"](table)) == 0, backend  # type: ignore[arg-type]


def test_a_sparse_table_means_missing_zeros_to_xgboost_only() -> None:
    """One-hot columns reach XGBoost as a sparse matrix, whose zeros it takes for missing; LightGBM takes them as 0."""
    table = pd.DataFrame({"city": zoo.frame()["city"], "number": np.where(np.arange(zoo.ROWS) % 3, 0.0, 1.5)})
    for booster in (XGBClassifier(n_estimators=5), LGBMClassifier(n_estimators=5, min_child_samples=3, verbosity=-1)):
        encoder = OneHotEncoder(handle_unknown="ignore")
        columns = make_column_transformer((encoder, ["city"]), remainder="passthrough", sparse_threshold=1.0)
        fitted = make_pipeline(columns, booster).fit(table, zoo.two())
        assert fitted[:-1].transform(table).format == "csr"
        original, schema, frame, found = built(Case("x", "sparse", fitted, table))
        rows = from_rows(sample_rows.rows_as_cells(frame, schema), schema)
        assert "booster" in found
        for backend, fast in found.items():
            own = original.run("predict_proba", rows.to_input())
            assert difference(own, fast.methods["predict_proba"](rows)) == 0, backend  # type: ignore[arg-type]


def test_single_precision_and_small_integers_are_passed_on() -> None:
    """Columns of float32 and int32 have a backend; an objective of the trainer's own has none."""
    table = zoo.frame()[["age", "balance"]].astype({"age": "int32", "balance": "float32"})
    for booster in (
        XGBRegressor(n_estimators=5),
        CatBoostClassifier(iterations=5, verbose=False, allow_writing_files=False),
    ):
        original, schema, frame, found = built(Case("x", "narrow", booster.fit(table, zoo.two()), table))
        rows = from_rows(sample_rows.rows_as_cells(frame, schema), schema)
        assert len(found) == 2
        for fast in found.values():
            assert difference(original.run("predict", rows.to_input()), fast.methods["predict"](rows)) == 0  # type: ignore[arg-type]

    def objective(labels: Any, scores: Any) -> Any:
        return scores - labels, np.ones_like(scores)

    own = XGBRegressor(n_estimators=5, objective=objective).fit(table, zoo.two())
    assert built(Case("x", "own", own, table))[3] == {}
