"""Missing cells: which columns accept them, and which of Python's missing values the estimator is given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import LinearRegression
from sklearn.preprocessing import FunctionTransformer

from tableside.contracts.schema import Column, Input
from tableside.decoding.json_tables import from_rows
from tableside.decoding.rules import Rules
from tableside.errors import PublishFailed, RequestRejected
from tableside.publishing import sample_files
from tableside.publishing.publish import publish
from tests import typed_models
from tests.learned import learned

pytestmark = pytest.mark.no_greenlets

FRAME = pd.DataFrame({"a": [1.0, 2.0, 3.0, 4.0], "b": [3.0, 1.0, 2.0, 9.0]})
BOOSTED = HistGradientBoostingRegressor().fit(FRAME, [1.0, 2.0, 3.0, 4.0])
LINEAR = LinearRegression().fit(FRAME, [1.0, 2.0, 3.0, 4.0])


def nullable(estimator: Any, frame: pd.DataFrame = FRAME, **options: Any) -> list[bool]:
    return [column.nullable for column in learned(estimator, frame, **options).input.columns]


def test_only_the_sample_and_the_trainer_make_a_column_nullable() -> None:
    """That the estimator answers a missing cell is no reason to accept one."""
    assert nullable(BOOSTED) == [False, False]
    assert nullable(BOOSTED, FRAME.replace({"a": {2.0: np.nan}})) == [True, False]
    assert nullable(BOOSTED, nullable=["b"]) == [False, True]
    assert nullable(BOOSTED, nullable="all") == [True, True]
    assert nullable(LINEAR, nullable="all") == [False, False]
    assert nullable(LINEAR, optional=["a"]) == [False, False]
    assert nullable(BOOSTED, optional=["a"]) == [True, False]


def test_a_named_column_that_the_estimator_needs_is_refused() -> None:
    """The error has the estimator's own reason; an unknown name lists the known ones."""
    with pytest.raises(
        PublishFailed, match="--nullable b: the estimator refuses a missing cell there: ValueError: Input"
    ):
        nullable(LINEAR, nullable=["b"])
    with pytest.raises(PublishFailed, match="--nullable names the column 'c'; the model's columns are: a, b"):
        nullable(LINEAR, nullable=["c"])


@pytest.mark.parametrize("kind", [np.nan, None])
@pytest.mark.parametrize("ending", ["csv", "parquet", "frame"])
def test_the_encoder_s_own_kind_goes_in(kind: Any, ending: str, tmp_path: Path) -> None:
    """A file does not say which missing value the trainer had; the encoder's categories do."""
    model = typed_models.missing_model(kind)
    frame = model.frame
    if ending != "frame":
        path = model.csv(tmp_path) if ending == "csv" else model.parquet(tmp_path)
        frame, _ = sample_files.read(path, model.estimator)
    contract = publish("m", model.estimator, frame, repository=tmp_path / "r", runtime="sklearn")
    rows = [
        [None if code is None or code != code else code, amount] for code, amount in model.frame.to_numpy().tolist()
    ]
    given = from_rows(rows, contract.input).to_input()
    np.testing.assert_array_equal(model.estimator.predict(given), model.answers)


@pytest.mark.parametrize("ending", ["csv", "parquet", "frame"])
def test_an_encoder_of_two_kinds_is_refused(ending: str, tmp_path: Path) -> None:
    """A request has only null, and the encoder answers NaN and None differently: publish says what to change."""
    model = typed_models.missing_model(np.nan, None)
    frame = model.frame
    if ending != "frame":
        path = model.csv(tmp_path) if ending == "csv" else model.parquet(tmp_path)
        frame, _ = sample_files.read(path, model.estimator)
    with pytest.raises(PublishFailed, match="two kinds of missing values, NaN and None") as refused:
        publish("m", model.estimator, frame, repository=tmp_path / "r")
    assert "frame['code'] = frame['code'].fillna('missing')" in str(refused.value)


def spelled(frame: pd.DataFrame) -> Any:
    return np.array([[{"NoneType": 1.0, "float": 2.0, "NAType": 3.0}.get(type(x).__name__, 0.0)] for x in frame["c"]])


@pytest.mark.parametrize("kind", [None, np.nan, pd.NA])
def test_a_kind_that_only_the_sample_shows_goes_in(kind: Any) -> None:
    """Without an encoder, the sample's own missing value is the one that a null becomes."""
    frame = pd.DataFrame({"c": pd.Series(["x", kind], dtype=object)})
    contract = learned(FunctionTransformer(spelled).fit(frame), frame)
    given = from_rows([[None], ["x"]], contract.input).to_input()
    assert isinstance(given, pd.DataFrame)
    assert type(given["c"].iloc[0]) is type(kind)


def test_rows_that_hide_another_kind_are_compared() -> None:
    """Rows are compared as the trainer gave them: an estimator that tells None and NaN apart is refused."""
    frame = pd.DataFrame({"c": pd.Series(["x", None, None, np.nan] * 10, dtype=object)})
    with pytest.raises(PublishFailed, match="missing cells of the kinds NaN and None, which the estimator tells apart"):
        learned(FunctionTransformer(spelled).fit(frame), frame)


def test_an_object_column_of_another_kind_than_the_encoder_s_is_refused(tmp_path: Path) -> None:
    """The trainer's own NaN is no None, so that its answers are not those of null."""
    model = typed_models.missing_model(None)
    frame = model.frame.assign(code=[np.nan if code is None else code for code in model.frame["code"]])
    frame["code"] = frame["code"].astype(object)
    with pytest.raises(PublishFailed, match="missing cells of the kinds"):
        publish("m", model.estimator, frame, repository=tmp_path)


OPEN = Input("frame", (Column("a", "FP64", "float64", nullable=True), Column("b", "BYTES", "object", nullable=True)))


def test_a_row_without_a_cell_is_refused() -> None:
    """An empty object is a mistake, not a row of missing cells; one that says null is a row."""
    with pytest.raises(RequestRejected) as refused:
        from_rows([{"a": 1.0}, {}], OPEN)
    assert [(cell.path, cell.message) for cell in refused.value.cells] == [
        ("rows[1]", "a row without a cell; expected a, b")
    ]
    with pytest.raises(RequestRejected, match="a row without a cell"):
        from_rows([{"other": 1.0}], OPEN, Rules(extra="ignore"))
    assert from_rows([{"a": None}], OPEN).rows == 1


def test_the_empty_text_is_no_missing_cell() -> None:
    """A text column keeps the empty text, and null is its missing value."""
    frame = from_rows([[1.0, ""], [1.0, None]], OPEN).to_input()
    assert isinstance(frame, pd.DataFrame)
    assert frame["b"].iloc[0] == ""
    assert frame["b"].isna().tolist() == [False, True]
