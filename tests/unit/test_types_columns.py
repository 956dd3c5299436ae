"""Columns of every dtype: the estimator is given the trainer's own frame again, or publish says what to change."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.preprocessing import FunctionTransformer

from tableside.contracts.schema import decode, encode
from tableside.decoding.json_tables import from_rows
from tableside.errors import PublishFailed
from tableside.publishing import column_types, sample_rows
from tests.learned import learned

pytestmark = pytest.mark.no_greenlets


def width(frame: pd.DataFrame) -> Any:
    return np.full((len(frame), 1), float(frame.shape[1]))


ANYTHING = FunctionTransformer(width)
NUMBERS = np.array([1.0, 2.0, 3.0])


@pytest.mark.parametrize(
    "values",
    [
        pd.Categorical(["b", "a", "b"], categories=["b", "c", "a"]),
        pd.Categorical(["low", "high", None], categories=["low", "mid", "high"], ordered=True),
        pd.Categorical([3, 1, 3], categories=[3, 2, 1], ordered=True),
        pd.Categorical([3, None, 1]),
        pd.Categorical([True, False, True]),
        pd.Categorical([True, None, False]),
        pd.Categorical([0.5, 1.5, 0.5]),
        pd.Categorical(["x", "y", "x"], categories=pd.Index(["x", "y"], dtype=object)),
        pd.Categorical([1, 2, 1], categories=pd.Index([1, 2], dtype="int8")),
        pd.array([1, None, 3], dtype="Int64"),
        pd.array([1, 2, 3], dtype="UInt8"),
        pd.array([0.5, None, 1.5], dtype="Float64"),
        pd.array([True, None, False], dtype="boolean"),
        pd.array(["x", None, ""], dtype="string"),
        pd.Series(["x", "", None], dtype=object),
        pd.Series(["x", np.nan, ""], dtype=object),
        pd.Series(["x", pd.NA, ""], dtype=object),
        pd.Series([True, None, False], dtype=object),
        pd.Series(["x", np.nan, ""], dtype="str"),
        np.array([1, 2, 3], dtype="uint16"),
        np.array([0.1, 0.2, np.nan], dtype="float32"),
        pd.to_datetime(["2026-05-31T12:00:00.25", None, "2026-01-01"], format="ISO8601"),
        pd.date_range("2026-03-29T00:30", periods=3, freq="h", tz="Europe/Vienna"),
    ],
    ids=lambda values: f"{values.dtype}-{type(values).__name__}",
)
def test_a_column_of_any_dtype_is_given_again(values: Any) -> None:
    """dtype, categories with their order and type, and each kind of missing value, after the contract's own JSON."""
    frame = pd.DataFrame({"c": values, "n": NUMBERS})
    contract = decode(encode(learned(ANYTHING.fit(frame), frame)))
    given = from_rows(sample_rows.rows_as_cells(frame, contract.input), contract.input).to_input()
    assert isinstance(given, pd.DataFrame)
    pd.testing.assert_frame_equal(given, frame)
    assert [type(cell) for cell in given["c"]] == [type(cell) for cell in frame["c"]]


@pytest.mark.parametrize("name", ["", " ", "a,b", 'a"b', 0, -7, 12])
def test_any_name_is_kept(name: Any) -> None:
    """The empty name and numbers are names; a DataFrame of numbers as names gets numbers again."""
    frame = pd.DataFrame({name: ["x", "y", "x"], name if isinstance(name, str) else 99: ["x", "y", "x"]})
    contract = learned(ANYTHING.fit(frame), frame)
    assert [column.name for column in contract.input.columns] == [str(each) for each in frame.columns]
    rows = [{str(each): "x" for each in frame.columns}]
    given = from_rows(rows, contract.input).to_input()
    assert given if isinstance(given, list) else list(given.columns) == list(frame.columns)


@pytest.mark.parametrize(
    ("text", "types"),
    [
        ("zip=str", {"zip": "str"}),
        ("a=int64,when=datetime64[ns, UTC],b=Int8", {"a": "int64", "when": "datetime64[ns, UTC]", "b": "Int8"}),
        ("a=b=bool,c=category[int64]", {"a=b": "bool", "c": "category[int64]"}),
    ],
)  # fmt: skip
def test_types_are_read_from_the_command(text: str, types: dict[str, str]) -> None:
    """COLUMN=DTYPE, separated by commas; a comma inside of brackets belongs to the dtype."""
    assert column_types.parse(text) == types


def test_types_are_read_from_a_file(tmp_path: Any) -> None:
    """A JSON file of dtypes, as pandas writes it."""
    frame = pd.DataFrame({"zip": ["x"], "n": [1], "when": pd.to_datetime(["2026-01-01"])})
    frame.dtypes.astype(str).to_json(tmp_path / "t.json")
    assert column_types.parse(str(tmp_path / "t.json")) == {name: str(dtype) for name, dtype in frame.dtypes.items()}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("zip=text", "column 'zip' has the dtype 'text', expected int64, float64"),
        ("when=datetime64[ns, Mars/Olympus]", "column 'when' has the dtype 'datetime64"),
        ("zip=str,n", "'n' is not COLUMN=DTYPE"),
        ("nowhere.json", "No such file or directory. Give COLUMN=DTYPE"),
    ],
)
def test_a_type_that_is_none_is_refused(text: str, message: str) -> None:
    """The error says what is wrong with the option, and what it takes."""
    with pytest.raises(PublishFailed, match="^--types") as refused:
        column_types.parse(text)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("values", "dtype", "cells"),
    [
        (["1", "2"], "int8", [1, 2]), (["1.5", ""], "float32", [1.5, None]), (["1", "0"], "bool", [True, False]),
        (["00501", "1"], "str", ["00501", "1"]), (["1", ""], "Int64", [1, None]), (["x", "y"], "category", ["x", "y"]),
        (["2", "1"], "category[int64]", [2, 1]), (["true", ""], "boolean", [True, None]),
        ([1, 2], "float64", [1.0, 2.0]), ([1.0, 2.0], "int64", [1, 2]), ([0, 1], "bool", [False, True]),
        (["2026-05-31", "2026-01-01"], "datetime64[s]", [pd.Timestamp("2026-05-31"), pd.Timestamp("2026-01-01")]),
    ],
)  # fmt: skip
def test_a_declared_type_is_given_to_the_column(values: list[Any], dtype: str, cells: list[Any]) -> None:
    """Text becomes what the cells of a request of that type are, and numbers of another width keep their value."""
    texts = [value or None for value in values] if isinstance(values[0], str) else values
    frame = column_types.apply(pd.DataFrame({"c": pd.Series(texts)}), {"c": dtype})
    assert str(frame["c"].dtype) == dtype.partition("[int")[0]
    assert [None if pd.isna(cell) else cell for cell in frame["c"].tolist()] == cells


@pytest.mark.parametrize(
    ("values", "dtype", "message"),
    [
        (["1", "x"], "int64", "row 2 is not: expected an integer or null, got a string"),
        (["1", None], "int64", "has missing cells there. Declare it as float64, which is how pandas .*, or as Int64"),
        ([1.5, 2.0], "int64", "would change|declared as int64"),
        ([501, 2], "str", "which has lost how the text was written"),
        (["31.05.2026"], "datetime64[ns]", "expected a date in ISO 8601"),
    ],
)  # fmt: skip
def test_a_declared_type_that_does_not_fit_is_refused(values: list[Any], dtype: str, message: str) -> None:
    """Nothing is rounded or guessed: the error names the column, the type and the first row."""
    with pytest.raises(PublishFailed, match=message):
        column_types.apply(pd.DataFrame({"c": values}), {"c": dtype})
    with pytest.raises(PublishFailed, match="--types names the column 'd', which the sample does not have"):
        column_types.apply(pd.DataFrame({"c": values}), {"d": dtype})
