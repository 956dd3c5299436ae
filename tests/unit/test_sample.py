"""The sample: reading it, aligning it with the estimator, and describing its columns."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from scipy import sparse
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder, StandardScaler

from tableside.contracts.schema import Cell, Input
from tableside.decoding.json_tables import from_rows
from tableside.errors import PublishFailed
from tableside.publishing import missing_cells, sample, sample_files, sample_rows
from tableside.publishing.publish import publish
from tableside_contract.readings import Known

pytestmark = pytest.mark.no_greenlets

FRAME = pd.DataFrame({"a": [1.0, 2.0, 3.0], "b": [3.0, 1.0, 2.0]})


def described(frame: pd.DataFrame, form: Any = "frame", fitted: sample.FittedCategories | None = None) -> Input:
    return sample.describe(frame, form, fitted or {})


def test_a_csv_column_declared_as_text_keeps_its_zeros(tmp_path: Path) -> None:
    """A column declared as text is not read as a number; the others are."""
    (tmp_path / "s.csv").write_text("zip,n\n00017,1\n10115,2\n")
    frame, _ = sample_files.read(tmp_path / "s.csv", types={"zip": "str", "n": "int64"})
    assert frame["zip"].tolist() == ["00017", "10115"]
    assert frame["n"].tolist() == [1, 2]


STRANGE: dict[str, Any] = {
    "duration": pd.to_timedelta(["1h", None, "2h", "3h"]),
    "period": pd.period_range("2024-01", periods=4, freq="M"),
    "interval": pd.cut([1, 2, 3, 4], 2),
    "decimal": [Decimal("1.5"), None, Decimal("2"), Decimal("3")],
    "mixed": [1, "a", None, [1, 2]],
    "complex": [1 + 2j, 1j, 2, 3],
    "sparse": pd.arrays.SparseArray([0, 0, 1, 0]),
}


@pytest.mark.parametrize("ending", ["", "parquet"])
@pytest.mark.parametrize("kind", list(STRANGE))
def test_a_dropped_column_may_hold_anything(kind: str, ending: str, tmp_path: Path) -> None:
    """Of a column that the model drops no answer depends on the cells: they are text. One that it takes is refused."""
    frame = pd.DataFrame({"a": [1.0, 2.0, 3.0, 5.0], "odd": STRANGE[kind]})
    model = make_pipeline(ColumnTransformer([("n", StandardScaler(), ["a"])]), LinearRegression()).fit(frame, frame.a)
    given: Any = frame
    if ending:
        try:
            frame.to_parquet(tmp_path / "s.parquet")
        except (ValueError, TypeError, NotImplementedError, pa.ArrowException):
            return  # pandas writes no such column to Parquet
        given = tmp_path / "s.parquet"
    contract = publish("m", model, given, repository=tmp_path / "r", runtime="sklearn", quick=True)
    odd = contract.input.columns[1]
    assert (odd.name, odd.datatype) == ("odd", "BYTES")
    assert from_rows([[1.0, "anything"]], contract.input).rows == 1
    taken = make_pipeline(ColumnTransformer([("n", "passthrough", ["a", "odd"])]))
    with pytest.raises(PublishFailed, match="column 'odd' has"):
        publish("m", taken.fit(frame), frame, repository=tmp_path / "r")


def test_parquet_keeps_its_dtypes(tmp_path: Path) -> None:
    """A parquet file comes back as it was written; the ending counts in either case."""
    FRAME.astype({"a": "float32"}).to_parquet(tmp_path / "s.PARQUET")
    assert str(sample_files.read(tmp_path / "s.PARQUET")[0]["a"].dtype) == "float32"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("s.txt", b"a\n1\n", "a sample must be a .csv or .parquet file"),
        ("s.csv", None, "no such file"),
        ("s.csv", b"", "the file is empty; a header line"),
        ("s.csv", b"a,b\n1,2,3\n1,2,3,4\n", "CSV parse error: Expected 2 columns, got 3"),
        ("s.parquet", b"not parquet", "arquet"),
    ],
)
def test_a_file_that_is_no_sample_is_named(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    """The error begins with the path and gives the reason."""
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(PublishFailed, match=message) as failed:
        sample_files.read(tmp_path / name)
    assert str(failed.value).startswith(f"{tmp_path / name}: ")


@pytest.mark.parametrize(
    ("data", "columns"),
    [
        (["x", "y"], ["text"]),
        (pd.Series([1.0, 2.0], name="price"), ["price"]),
        (pd.Series(["x", "y"]), ["text"]),
        (np.ones((2, 2)), [0, 1]),
        (sparse.csr_array(np.eye(2)), [0, 1]),
        (pd.DataFrame({"a": [1, 2]}, index=[7, 9]), ["a"]),
    ],
)
def test_every_kind_of_sample_becomes_a_frame(data: Any, columns: list[Any]) -> None:
    """Lists of texts, Series, arrays, sparse matrices and frames get columns and an index from 0."""
    frame = sample.as_frame(data, None)
    assert frame.columns.tolist() == columns
    assert frame.index.tolist() == [0, 1]


def test_columns_are_taken_in_the_estimators_order() -> None:
    """An estimator that was fitted on a frame gets its own column order, whatever the sample's."""
    aligned, form = sample.align(FRAME[["b", "a"]], LinearRegression().fit(FRAME, [1.0, 2.0, 3.0]))
    assert (aligned.columns.tolist(), form) == (["a", "b"], "frame")


def test_columns_without_names_get_default_names() -> None:
    """An estimator that was fitted on an array takes columns by position; they are called x0, x1 and so on."""
    aligned, form = sample.align(pd.DataFrame(FRAME.to_numpy()), StandardScaler().fit(FRAME.to_numpy()))
    assert (aligned.columns.tolist(), form) == (["x0", "x1"], "matrix")


def test_only_a_single_text_column_is_a_list_of_texts() -> None:
    """An estimator without a column count gets the texts of one column, but a frame of several."""
    texts = pd.DataFrame({"t": ["x", "y"], "u": ["y", "z"]})
    assert sample.align(texts[["t"]], object())[1] == "texts"
    assert sample.align(texts, object())[1] == "frame"


def test_mixed_widths_of_floats_become_one_matrix_of_doubles() -> None:
    """numpy makes one float64 array of float32 and float64 columns, and the estimator was fitted on that."""
    mixed, narrow = FRAME.astype({"a": "float32"}), FRAME.astype("float32")
    fitted = StandardScaler().fit(FRAME.to_numpy())
    assert set(sample.align(mixed, fitted)[0].dtypes.astype(str)) == {"float64"}
    assert set(sample.align(narrow, fitted)[0].dtypes.astype(str)) == {"float32"}


def test_several_surplus_columns_get_another_hint_than_one() -> None:
    """One surplus column may be the target; of several the option --target could drop only one."""
    fitted = LinearRegression().fit(FRAME, [1.0, 2.0, 3.0])
    with pytest.raises(PublishFailed, match=r"does not take: y\. If that is the target, add --target y$"):
        sample.align(FRAME.assign(y=1.0), fitted)
    with pytest.raises(PublishFailed, match=r"does not take: y, z\. Drop them$"):
        sample.align(FRAME.assign(y=1.0, z=1.0), fitted)


@pytest.mark.parametrize(
    ("values", "datatype"),
    [
        ([1, 2], "INT64"),
        ([1.5, 2.0], "FP64"),
        (np.array([1.5, 2.0], dtype="float32"), "FP32"),
        ([True, False], "BOOL"),
        (np.array([True, None], dtype=object), "BOOL"),
        (["x", None], "BYTES"),
        (np.array([None, None], dtype=object), "BYTES"),
        (pd.Categorical([3, 4]), "INT64"),
        (pd.array([1, None], dtype="Int64"), "INT64"),
    ],
)
def test_datatypes_follow_the_columns_dtypes(values: Any, datatype: str) -> None:
    """Object columns are looked at cell by cell, categories by their own dtype."""
    (column,) = described(pd.DataFrame({"c": values})).columns
    assert column.datatype == datatype


def test_a_column_of_mixed_cells_is_refused_by_name() -> None:
    """Numbers beside text have no datatype in any protocol."""
    with pytest.raises(
        PublishFailed, match="column 'c' has the dtype object with mixed cells. Use numbers, booleans or"
    ):
        described(pd.DataFrame({"c": np.array([1, "x"], dtype=object)}))


def test_a_text_column_lists_categories_only_when_they_repeat() -> None:
    """Texts that are all different, or very many, are no categories; the list is for people and never closed."""
    repeated = described(pd.DataFrame({"c": ["b", "a", "b"]})).columns[0]
    assert (repeated.categories, repeated.closed) == (("a", "b"), False)
    assert described(pd.DataFrame({"c": ["a", "b", "c"]})).columns[0].categories is None
    many = [f"t{at}" for at in range(sample.MAX_CATEGORIES + 1)] * 2
    assert described(pd.DataFrame({"c": many})).columns[0].categories is None
    assert described(pd.DataFrame({"c": many[1 : sample.MAX_CATEGORIES + 1] * 2})).columns[0].categories is not None


def test_fitted_categories_close_a_column_and_leave_out_missing() -> None:
    """Categories of an encoder that rejects others are closed; its missing value is no category, but `nullable`."""
    frame = pd.DataFrame({"c": pd.Series(["x", None, "y"], dtype=object)})
    (column,) = described(frame, fitted={"c": (["x", "y", None], True)}).columns
    assert (column.categories, column.closed, column.nullable, column.missing) == (("x", "y"), True, True, "none")


def test_ranges_ignore_missing_values() -> None:
    """The range is that of the cells that are there; a column without any has no range."""
    frame = pd.DataFrame({"n": [2.0, np.nan, -1.0], "gone": [np.nan] * 3})
    some, none = described(frame, form="matrix").columns
    assert (some.minimum, some.maximum, some.nullable) == (-1.0, 2.0, True)
    assert (none.minimum, none.maximum, none.nullable) == (None, None, True)


def test_golden_rows_hold_the_extremes_and_a_missing_value() -> None:
    """Each column's extremes and one missing value are among the golden rows, which are in order and limited."""
    values = np.sin(np.arange(1000.0))
    values[501] = np.nan
    frame = pd.DataFrame({"n": values, "t": ["rare" if at == 777 else "common" for at in range(1000)]})
    rows = sample_rows.golden_rows(frame)
    assert {501, int(np.nanargmin(values)), int(np.nanargmax(values)), 777, 0, 999} <= set(rows)
    assert rows == sorted(set(rows))
    assert len(rows) <= sample_rows.MAX_GOLDEN_ROWS
    assert len(sample_rows.golden_rows(frame, most=3)) == 3
    assert sample_rows.golden_rows(frame.iloc[:1]) == [0]


def test_cells_are_those_of_json() -> None:
    """Missing values become None, and whole numbers of a float column stay floats."""
    frame = pd.DataFrame({"n": [1, 2], "t": ["x", None]})
    schema = described(frame.astype({"n": float}))
    assert sample_rows.rows_as_cells(frame, schema) == [[1.0, "x"], [2.0, None]]
    assert isinstance(sample_rows.rows_as_cells(frame, schema)[0][0], float)


def test_whether_a_missing_value_is_accepted_is_found_by_a_call() -> None:
    """The cell is missing in a copy of the row; whatever the estimator raises means that it accepts none."""
    row: list[Cell] = [1.0, 2.0]
    calls: list[Any] = []

    def picky(rows: Any) -> None:
        calls.append(rows)
        if rows[0][1] is None:
            raise RuntimeError("no missing value here")

    assert missing_cells.refusal(picky, lambda rows: rows, row, 0) == ""  # type: ignore[arg-type,return-value]
    reason = missing_cells.refusal(picky, lambda rows: rows, row, 1)  # type: ignore[arg-type,return-value]
    assert reason == "RuntimeError: no missing value here"
    assert calls == [[[None, 2.0]], [[1.0, None]]]
    assert row == [1.0, 2.0]


def test_none_is_restored_only_for_encoders_fitted_on_it() -> None:
    """Other columns keep NaN, and a frame without such an encoder is returned as it is."""
    frame = pd.DataFrame({"a": ["x", np.nan], "b": ["x", np.nan]})
    on_none, on_nothing = (Known("text", "OneHotEncoder", ("x",), frozenset(kinds)) for kinds in (("none",), ()))
    restored = missing_cells.as_fitted(frame, {"a": on_none, "b": on_nothing, "gone": on_none})
    assert restored["a"].tolist() == ["x", None]
    assert restored["b"].isna().tolist() == [False, True]
    assert None not in restored["b"].tolist()
    assert missing_cells.as_fitted(frame, {"b": on_nothing}) is frame


def test_only_encoders_with_named_columns_are_found() -> None:
    """An encoder outside a ColumnTransformer has no column names, so nothing is known of its columns."""
    frame = pd.DataFrame({"c": ["x", "y"]})
    assert sample.fitted_categories(OrdinalEncoder().fit(frame)) == {}
