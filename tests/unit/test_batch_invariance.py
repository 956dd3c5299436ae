"""Batch invariance is measured at publish, and merged tables give each request the rows it would have had alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from tableside.contracts import tolerances
from tableside.contracts.answers import Run
from tableside.contracts.schema import Column, Golden, Input, Output
from tableside.contracts.table import Table
from tableside.decoding.json_tables import from_columns, from_rows
from tableside.publishing.batch_invariance import MAX_ULP, measure, widen
from tableside.publishing.publish import publish
from tests.fakes import RecordingRuntime, SumRuntime, numbers

pytestmark = pytest.mark.no_greenlets

SCHEMA = numbers("a", "b")
ROWS = tuple((float(at), at / 3.0) for at in range(20))
PREDICT = (Output("predict", "FP64", 1, True),)


def measured(answer: Any, rows: Any = ROWS) -> tuple[str, float]:
    """Measure an estimator whose `predict` is `answer`."""
    run: Run = lambda method, data: answer(np.asarray(data))  # noqa: E731
    recorded = Golden(rows, {"predict": tuple((float(value),) for value in answer(np.array(rows)))})
    return measure(run, SCHEMA, recorded, PREDICT)


def test_answers_row_by_row_are_exact() -> None:
    """An estimator that computes each row on its own is exact."""
    assert measured(lambda data: data.sum(axis=1)) == ("exact", 0.0)


def test_answers_that_depend_on_the_others_are_none() -> None:
    """A mean of the batch, a rank in it, the number of its rows, or an error for several rows each mean `none`."""

    def alone(data: Any) -> Any:
        if len(data) > 1:
            raise RuntimeError("one at a time")
        return data.sum(axis=1)

    for answer in (
        lambda data: data.sum(axis=1) - data.mean(),
        lambda data: data.sum(axis=1).argsort().argsort().astype(float),
        lambda data: np.full(len(data), float(len(data) > 100)),
    ):
        assert measured(answer)[0] == "none"
    recorded = Golden(ROWS, {"predict": tuple((sum(row),) for row in ROWS)})
    assert measure(lambda method, data: alone(data), SCHEMA, recorded, PREDICT)[0] == "none"


def test_another_order_of_sums_is_ulp() -> None:
    """A few units in the last place are `ulp`, with a tolerance of at least four times as much; more is `none`."""

    def off_by(units: int) -> Any:
        def answer(data: Any) -> Any:
            total = data.sum(axis=1) + 100.0
            return total + (len(data) > 1) * units * np.spacing(total)

        return answer

    assert measured(off_by(3)) == ("ulp", 16.0)
    assert measured(off_by(int(MAX_ULP) + 10))[0] == "none"


def test_a_mixed_row_that_raises_is_left_out() -> None:
    """An estimator may reject a row that mixes cells of others: the golden rows alone are measured then."""

    def picky(data: Any) -> Any:
        if not np.allclose(data[:, 0], data[:, 1] * 3):
            raise ValueError("no such row")
        return data.sum(axis=1)

    assert measured(picky) == ("exact", 0.0)


def test_a_golden_row_that_raises_means_none() -> None:
    """A row that was answered at publish must be answered again; an estimator that raises for it is not batched."""
    recorded = Golden(ROWS, {"predict": tuple((sum(row),) for row in ROWS)})

    def fails(method: str, data: Any) -> Any:
        if (np.asarray(data) == ROWS[3]).all(axis=1).any():
            raise ValueError("not this row")
        return np.asarray(data).sum(axis=1)

    assert measure(fails, SCHEMA, recorded, PREDICT) == ("none", 0.0)


def test_a_label_that_changes_means_none() -> None:
    """For labels there is no small difference: a text that changes with the batch is `none`."""
    labels: Run = lambda method, data: np.full(len(data), "alone" if len(data) == 1 else "many")  # noqa: E731
    recorded = Golden(ROWS, {"predict": tuple(("alone",) for _ in ROWS)})
    assert measure(labels, SCHEMA, recorded, (Output("predict", "BYTES", 1, True),)) == ("none", 0.0)


def test_the_largest_measured_difference_still_is_ulp() -> None:
    """A difference of MAX_ULP is allowed, and the tolerance is the next power of two from four times as much."""
    at_most = int(MAX_ULP)

    def answer(data: Any) -> Any:
        total = data.sum(axis=1) + 100.0
        return total + (len(data) > 1) * at_most * np.spacing(total)

    assert measured(answer) == ("ulp", 4 * MAX_ULP)


@pytest.mark.parametrize(
    ("before", "difference", "after"),
    [
        (("exact", 0.0), 0.0, ("exact", 0.0)),
        (("exact", 0.0), 1e-12, ("ulp", 9008.0)),
        (("ulp", 16.0), 1e-16, ("ulp", 16.0)),
        (("ulp", 16.0), 1e-12, ("ulp", 9008.0)),
        (("none", 0.0), 1e-12, ("none", 0.0)),
        ((None, 0.0), 1e-12, (None, 0.0)),
    ],
)
def test_a_fast_backend_that_differs_widens_the_tolerance(before: Any, difference: float, after: Any) -> None:
    """Twice its relative difference is allowed, in ULP; what is not batched stays so."""
    assert widen(*before, difference) == after


@pytest.mark.slow
@pytest.mark.every_blas
def test_publish_writes_it_into_the_contract(tmp_path: Any) -> None:
    """The contract of a forest is `exact`; that of a linear model is `exact` or `ulp` with a small tolerance."""
    chance = np.random.default_rng(0)
    data, label = chance.normal(size=(80, 12)), chance.integers(0, 2, 80)
    forest = publish("forest", RandomForestClassifier(5, random_state=0).fit(data, label), data, repository=tmp_path)
    assert (forest.batch_invariance, forest.batch_tolerance_ulp) == ("exact", 0.0)
    linear = publish("linear", LogisticRegression().fit(data, label), data, repository=tmp_path)
    assert linear.batch_invariance in ("exact", "ulp")
    assert linear.batch_tolerance_ulp <= 8 * MAX_ULP


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([1.0], [1.0 + 2**-52], 1.0),
        ([0.0], [-0.0], 0.0),
        ([np.nan], [np.nan], 0.0),
        ([1e-30], [2e-30], 0.0),  # far below the magnitude of 1
        ([np.nan], [1.0], tolerances.DIFFERENT),
        ([np.inf], [-np.inf], tolerances.DIFFERENT),
        ([1.0], [1.0, 1.0], tolerances.DIFFERENT),
        (["a"], ["b"], tolerances.DIFFERENT),
        (["a"], ["a"], 0.0),
        ([1], [1.0], tolerances.DIFFERENT),
    ],
)
def test_ulps(one: Any, other: Any, expected: float) -> None:
    """Differences are in units in the last place; another label, shape or dtype is infinitely far."""
    assert tolerances.ulp_difference(np.array(one), np.array(other), 1.0) == pytest.approx(expected, abs=1e-9)


MIXED = Input(
    "frame",
    (
        Column("count", "INT64", "int64", nullable=True),
        Column("price", "FP64", "float64", nullable=True),
        Column("city", "BYTES", "object", nullable=True),
        Column("kind", "BYTES", "category", nullable=True, categories=("x", "y")),
        Column("flag", "BOOL", "bool", nullable=True),
        Column("big", "INT64", "Int64", nullable=True),
    ),
)
WHOLE = [3, 1.5, "Graz", "x", True, 2**50]


def same_frames(one: pd.DataFrame, other: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(one, other, check_exact=True)


@pytest.mark.parametrize("is_missing", range(6))
def test_a_missing_value_of_one_request_changes_no_other(is_missing: int) -> None:
    """Merged tables give each request the frame it would have had.

    A missing value changes the dtype of an integer column, so such tables are not merged with others.
    """
    holed = [None if at == is_missing else cell for at, cell in enumerate(WHOLE)]
    tables = [from_rows(rows, MIXED) for rows in ([WHOLE], [holed], [WHOLE, WHOLE], [holed, WHOLE])]
    groups: dict[Any, list[Table]] = {}
    for table in tables:
        groups.setdefault(table.batch_key(), []).append(table)
    assert len(groups) >= (2 if is_missing in (0, 4, 5) else 1)
    for group in groups.values():
        merged, start = Table.concat(group).to_input(), 0
        for table in group:
            same_frames(merged.iloc[start : start + table.rows].reset_index(drop=True), table.to_input())
            start += table.rows


def test_a_matrix_with_a_missing_integer_is_not_merged_with_others() -> None:
    """A matrix that stands for a frame has another batch key when an integer column has a missing value."""
    schema = Input("frame", (Column("n", "INT64", "int64", nullable=True), Column("x", "FP64", "float64")))
    whole, holed = np.array([[1.0, 0.5]]), np.array([[np.nan, 0.5]])
    tables = [Table(schema, 1, None, matrix) for matrix in (whole, holed)]
    assert tables[0].batch_key() != tables[1].batch_key()
    assert tables[0].batch_key() == Table(schema, 1, None, whole + 1).batch_key()


@pytest.mark.parametrize("form", ["matrix", "frame"])
def test_merged_rows_are_the_requests_rows(form: str) -> None:
    """A merged table holds all rows in order, and writing to it does not change the requests."""
    schema = numbers("a", "b", form=form)
    tables = [from_rows([[1.0, 2.0]], schema), from_rows([[3.0, 4.0], [5.0, 6.0]], schema)]
    columns = from_columns({"a": [7.0], "b": [8.0]}, schema)
    for group in [tables, [columns, columns]]:
        assert len({table.batch_key() for table in group}) == 1
        merged = Table.concat(group)
        expected = np.concatenate([np.asarray(table.to_input()) for table in group])
        np.testing.assert_array_equal(np.asarray(merged.to_input()), expected)
        if merged.matrix is not None:
            merged.matrix[:] = -1.0
        assert SumRuntime().run("predict", group[0].to_input())[0] > 0
    runtime = RecordingRuntime()
    runtime.run("predict", Table.concat(tables).to_input())
    assert len(runtime.seen[0]) == 3


def test_texts_are_merged_as_a_list() -> None:
    """Tables of texts are merged into one list of texts."""
    schema = Input("texts", (Column("text", "BYTES", "object"),))
    merged = Table.concat([from_rows([["a"]], schema), from_rows([["b"], ["c"]], schema)])
    assert merged.to_input() == ["a", "b", "c"]
