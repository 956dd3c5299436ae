"""The equivalence check: the rows it compares, and what it makes of a backend that differs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestRegressor
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tableside.contracts.schema import Column, Input, Output
from tableside.install_hints import install_hint
from tableside.publishing import comparison_rows, equivalence
from tableside.publishing.effort import FULL
from tableside.runtimes.fast.backend import FastRuntime
from tableside.runtimes.fast.numerics import LibraryMissing, Unsupported
from tableside.runtimes.sklearn import SklearnRuntime
from tests.fakes import numbers

pytestmark = pytest.mark.no_greenlets

DATA = np.random.default_rng(0).normal(size=(200, 2))
FRAME = pd.DataFrame(DATA, columns=["a", "b"])
ORIGINAL = SklearnRuntime(LinearRegression().fit(DATA, DATA[:, 0] - DATA[:, 1]))
SCHEMA = numbers("a", "b")
PREDICT = (Output("predict", "FP64", 1, True),)


def check(monkeypatch: pytest.MonkeyPatch, predict: Any, tolerance: float = 0.0) -> equivalence.EquivalenceReport:
    """Run the check with one backend, `linear`, that answers by `predict(estimator, rows)`; the others are missing."""

    def build(original: SklearnRuntime, schema: Input, backend: str, order: str) -> FastRuntime:
        if backend != "linear":
            raise Unsupported("not in this test")
        return FastRuntime(original, {"predict": lambda table: predict(original.estimator, table.to_input())})

    def convert(*_: Any) -> list[bytes]:
        raise LibraryMissing("skl2onnx")

    monkeypatch.setattr(equivalence, "build", build)
    monkeypatch.setattr(equivalence.onnx_export, "convert", convert)
    return equivalence.check_backends(ORIGINAL, SCHEMA, PREDICT, FRAME, tolerance)


def check_of(report: equivalence.EquivalenceReport, backend: str) -> Any:
    return next(check for check in report.equivalence_checks if check.backend == backend)


def test_a_backend_that_agrees_is_compared_on_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """An equal backend has no difference on more than 10,000 rows; whether it is used depends on its speed alone."""
    report = check(monkeypatch, lambda estimator, rows: estimator.predict(rows))
    linear = check_of(report, "linear")
    assert linear.outcome in ("used", "slower")
    assert linear.rows > FULL.rows
    assert (linear.largest_difference, equivalence.largest_used_difference(report)) == (0.0, 0.0)
    assert set(linear.speed_up) == {str(size) for size in equivalence.SIZES}


def test_every_backend_has_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing library is named with the command that installs it, and the order of the checks is fixed."""
    report = check(monkeypatch, lambda estimator, rows: estimator.predict(rows))
    assert [each.backend for each in report.equivalence_checks] == list(equivalence.ALL_BACKENDS)
    assert check_of(report, "tree_walk").reason == "not in this test"
    assert check_of(report, "onnx").reason == f"needs the library skl2onnx: {install_hint('onnx')}"


@pytest.mark.parametrize(
    ("predict", "reason"),
    [
        (lambda estimator, rows: estimator.predict(rows) * (1 + 1e-12), "predict differs by "),
        (lambda estimator, rows: estimator.predict(rows)[:, None], "predict has another label, missing value, dtype"),
        (lambda estimator, rows: np.full(len(rows), np.nan), "predict has another label, missing value, dtype"),
        (lambda estimator, rows: np.zeros(len(rows)) + (len(rows) == 1), "predict differs by "),
    ],
)
def test_a_backend_that_differs_is_not_used(monkeypatch: pytest.MonkeyPatch, predict: Any, reason: str) -> None:
    """The reason names the output and the first call that differs, and the estimator answers everything."""
    report = check(monkeypatch, predict)
    assert check_of(report, "linear").outcome == "differs"
    assert check_of(report, "linear").reason.startswith(reason)
    assert report.routes == ()


def test_a_backend_that_raises_where_the_estimator_answers_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A ValueError is an answer like any other: both must raise it for the same rows."""

    def refuse_large(estimator: Any, rows: Any) -> Any:
        if np.abs(rows).max() > 1e9:
            raise ValueError("too large")
        return estimator.predict(rows)

    report = check(monkeypatch, refuse_large)
    assert check_of(report, "linear").reason == "raises for other rows than the estimator"


def test_a_difference_within_the_tolerance_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a tolerance the backend passes, and its largest difference is kept for the load's own comparison."""
    report = check(monkeypatch, lambda estimator, rows: estimator.predict(rows) * (1 + 1e-9), tolerance=1e-6)
    assert check_of(report, "linear").outcome in ("used", "slower")
    assert 0 < check_of(report, "linear").largest_difference <= 1e-6


def columns_of(tables: Any, name: str) -> Any:
    return np.concatenate([np.asarray(table.to_input()[name], dtype=object) for table in tables])


def test_comparison_rows_hold_the_cells_that_break_backends() -> None:
    """Split points, their neighbours in both precisions, large numbers, missing values and unknown texts are there."""
    columns = (Column("n", "FP64", "float64", nullable=True), Column("t", "BYTES", "object"))
    frame = pd.DataFrame({"n": [0.5, 1.5, 2.5] * 10, "t": ["x", "y", "x"] * 10})
    tables = list(comparison_rows.tables(Input("frame", columns), frame, [np.array([0.7]), np.empty(0)]))
    assert sorted({table.rows for table in tables}) == [1, 32, 1000]
    cells = {cell for cell in columns_of(tables, "n") if cell == cell}
    assert {0.7, np.nextafter(0.7, 1), np.nextafter(0.7, 0), float(np.float32(0.7)), 1.7e9, 1.7e12} <= cells
    assert any(cell != cell for cell in columns_of(tables, "n"))
    assert {"x", "y"} < set(columns_of(tables, "t"))
    assert set(columns_of(tables[:1], "t")) == {"x", "y"}
    assert {cell for cell in columns_of(tables[:1], "n") if cell == cell} == {0.5, 1.5, 2.5}


def test_a_closed_column_gets_its_own_categories_only() -> None:
    """Cells that a request may not have are never compared."""
    column = Column("t", "BYTES", "object", categories=("x", "y"), closed=True)
    frame = pd.DataFrame({"t": ["x", "y"]})
    tables = comparison_rows.tables(Input("frame", (column,)), frame, [])
    assert set(columns_of(tables, "t")) == {"x", "y"}


def test_integers_stay_within_their_dtype() -> None:
    """The large numbers are cut to what an int8 column can hold."""
    schema = Input("frame", (Column("n", "INT64", "int8"),))
    cells = columns_of(comparison_rows.tables(schema, pd.DataFrame({"n": [1, 2, 3]}), []), "n")
    assert (min(cells), max(cells)) == (-128, 127)


def test_thresholds_are_those_of_all_trees() -> None:
    """Forests and boosting give the split points of each column, sorted and finite; a pipeline gives none."""
    target = (DATA[:, 0] > 0.25) * 1.0
    for fitted in (
        RandomForestRegressor(5, random_state=0).fit(DATA, target),
        HistGradientBoostingRegressor(max_iter=5, random_state=0).fit(DATA, target),
    ):
        first, second = comparison_rows.thresholds(fitted, 2)
        assert (np.diff(first) > 0).all()
        assert np.abs(first - 0.25).min() < 0.1
        assert np.isfinite(np.concatenate([first, second])).all()
    scaled = make_pipeline(StandardScaler(), RandomForestRegressor(2, random_state=0)).fit(DATA, target)
    assert [len(values) for values in comparison_rows.thresholds(scaled, 2)] == [0, 0]


def test_sample_rows_that_no_request_could_send_are_left_out() -> None:
    """A sample with a missing value in a column that takes none has no table."""
    assert comparison_rows.sample_rows(SCHEMA, FRAME.assign(a=np.nan)) == []
    (table,) = comparison_rows.sample_rows(SCHEMA, pd.concat([FRAME] * 11, ignore_index=True))
    assert table.rows == 1000
