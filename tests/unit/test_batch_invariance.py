"""Whether rows may share a call is asked of the estimator; merged, each is what it would have been alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from tableside.contract import tolerances
from tableside.contract.answers import Run
from tableside.contract.schema import Column, Golden, Input, Output
from tableside.contract.table import Table
from tableside.decoding.json_tables import from_columns, from_rows
from tableside.publishing.batch_invariance import MAX_ULP, measure
from tableside.publishing.publish import publish
from tests.fakes import RecordingRuntime, SumRuntime, numbers

pytestmark = pytest.mark.no_greenlets

SCHEMA = numbers("a", "b")
ROWS = tuple((float(at), at / 3.0) for at in range(20))
PREDICT = (Output("predict", "FP64", 1, True),)


def asked(answer: Any, rows: Any = ROWS) -> tuple[str, float]:
    """What is found out of an estimator that answers so."""
    run: Run = lambda method, data: answer(np.asarray(data))  # noqa: E731
    recorded = Golden(rows, {"predict": tuple((float(value),) for value in answer(np.array(rows)))})
    return measure(run, SCHEMA, recorded, PREDICT)


def test_answers_row_by_row_are_exact() -> None:
    """An estimator that looks at each row by itself."""
    assert asked(lambda data: data.sum(axis=1)) == ("exact", 0.0)


def test_answers_that_depend_on_the_others_are_none() -> None:
    """A mean over the batch, a rank in it, a number of its rows, a refusal of company."""

    def alone(data: Any) -> Any:
        if len(data) > 1:
            raise RuntimeError("one at a time")
        return data.sum(axis=1)

    for answer in (
        lambda data: data.sum(axis=1) - data.mean(),
        lambda data: data.sum(axis=1).argsort().argsort().astype(float),
        lambda data: np.full(len(data), float(len(data) > 100)),
    ):
        assert asked(answer)[0] == "none"
    recorded = Golden(ROWS, {"predict": tuple((sum(row),) for row in ROWS)})
    assert measure(lambda method, data: alone(data), SCHEMA, recorded, PREDICT)[0] == "none"


def test_another_order_of_sums_is_ulp() -> None:
    """Some units in the last place: allowed, the bound is four times what was seen; more is none."""

    def off_by(units: int) -> Any:
        def answer(data: Any) -> Any:
            total = data.sum(axis=1) + 100.0
            return total + (len(data) > 1) * units * np.spacing(total)

        return answer

    assert asked(off_by(3)) == ("ulp", 16.0)
    assert asked(off_by(int(MAX_ULP) + 10))[0] == "none"


def test_a_mixture_that_is_refused_says_nothing() -> None:
    """Rows that mix cells of others may be refused alone; that is not the batch's doing. A golden row may not."""

    def picky(data: Any) -> Any:
        if not np.allclose(data[:, 0], data[:, 1] * 3):
            raise ValueError("no such row")
        return data.sum(axis=1)

    assert asked(picky) == ("exact", 0.0)


def test_publish_writes_it_into_the_contract(tmp_path: Any) -> None:
    """A forest is exact. A linear model is exact or off by some units, never none."""
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
    """Distances in units in the last place; what is no matter of sums is infinitely far."""
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
def test_a_gap_of_one_request_changes_no_other(is_missing: int) -> None:
    """Tables that may be merged give each request the frame it would have had; a missing value in an integer column may
    not.
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


def test_a_matrix_of_doubles_for_integers_keeps_its_gaps_apart() -> None:
    """The same for a matrix that stands for a frame: which of its columns have missing values decides their dtypes."""
    schema = Input("frame", (Column("n", "INT64", "int64", nullable=True), Column("x", "FP64", "float64")))
    whole, holed = np.array([[1.0, 0.5]]), np.array([[np.nan, 0.5]])
    tables = [Table(schema, 1, None, matrix) for matrix in (whole, holed)]
    assert tables[0].batch_key() != tables[1].batch_key()
    assert tables[0].batch_key() == Table(schema, 1, None, whole + 1).batch_key()


@pytest.mark.parametrize("form", ["matrix", "frame"])
def test_merged_rows_are_the_requests_rows(form: str) -> None:
    """Whatever the spelling, the merged table holds all rows in order, and the requests' own memory is not shared."""
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
    """A vectorizer's list of texts stays one."""
    schema = Input("texts", (Column("text", "BYTES", "object"),))
    merged = Table.concat([from_rows([["a"]], schema), from_rows([["b"], ["c"]], schema)])
    assert merged.to_input() == ["a", "b", "c"]
