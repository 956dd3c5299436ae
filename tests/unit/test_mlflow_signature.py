"""MLflow signatures and input examples: every format is read, and samples get the types of a signature."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from tableside.decoding.json_tables import from_rows
from tableside.errors import PublishFailed
from tableside.publishing.mlflow_signature import Spec, apply_signature, integers_as_floats, parse, read_example
from tableside.publishing.publish import publish

FITTED = LinearRegression().fit(pd.DataFrame({"a": [1.0, 2.0], "b": [2.0, 1.0]}), [1.0, 2.0])


def read(tmp_path: Path, content: str) -> pd.DataFrame:
    (tmp_path / "input_example.json").write_text(content)
    return read_example(tmp_path / "input_example.json")


def parsed(*inputs: dict[str, Any]) -> tuple[Spec, ...] | None:
    return parse({"inputs": json.dumps(inputs)})


@pytest.mark.parametrize(
    "content",
    [
        '{"columns": ["a", "b"], "data": [[1.5, null], [2.5, 3]]}',
        '{"columns": ["a", "b"], "index": [4, 5], "data": [[1.5, NaN], [2.5, 3]]}',
        '[{"a": 1.5, "b": null}, {"a": 2.5, "b": 3}]',
        '[{"a": 1.5}, {"a": 2.5, "b": 3}]',
        '{"dataframe_split": {"columns": ["a", "b"], "data": [[1.5, null], [2.5, 3]]}}',
        '{"dataframe_records": [{"a": 1.5, "b": null}, {"a": 2.5, "b": 3}], "params": {"x": 1}}',
        '{"inputs": [{"a": 1.5, "b": null}, {"a": 2.5, "b": 3}], "params": {"x": 1}}',
        '{"inputs": {"a": [1.5, 2.5], "b": [null, 3]}}',
        "[[1.5, null], [2.5, 3]]",
        '{"data": [[1.5, null], [2.5, 3]]}',
        '{"instances": [[1.5, null], [2.5, 3]]}',
    ],
)
def test_every_spelling_of_an_example_is_read(content: str, tmp_path: Path) -> None:
    """Every format of an example gives the same frame; NaN and null are missing values."""
    frame = apply_signature(read(tmp_path, content), None, FITTED)
    pd.testing.assert_frame_equal(
        frame, pd.DataFrame({"a": [1.5, 2.5], "b": [np.nan, 3.0]}, index=frame.index), check_index_type=False
    )


def test_one_record_is_one_row(tmp_path: Path) -> None:
    """A JSON object of scalars is one row, even when a column is called `inputs`."""
    assert read(tmp_path, '{"a": 1, "b": null}').to_dict("records") == [{"a": 1, "b": None}]
    assert read(tmp_path, '{"inputs": "text"}').columns.tolist() == ["inputs"]


@pytest.mark.parametrize(
    "content",
    ["3", '"text"', "{", "[1, [2]]]", '{"columns": ["a"], "data": [[1, 2]]}', "[]", "{}", '{"data": []}', "[" * 100000,
     '{"data": [1], "indices": [0], "indptr": [0, 1], "shape": [1, 9]}'],
)  # fmt: skip
def test_an_example_that_is_no_table_is_refused(content: str, tmp_path: Path) -> None:
    """The error names the file and the option --sample."""
    with pytest.raises(PublishFailed, match=r"example\.json (cannot be read as a table|has no rows).*--sample FILE"):
        read(tmp_path, content)


def test_signatures_are_read() -> None:
    """Columns come by name, by position or from a tensor; `required` is true by default."""
    assert parsed({"type": "long", "name": "a"}, {"type": "string", "name": "b", "required": False}) == (
        Spec("a", "long", True),
        Spec("b", "string", False),
    )
    by_position = (Spec(None, "double"), Spec(None, "double"))
    assert parsed({"type": "double", "name": 0}, {"type": "double", "name": 1}) == by_position
    assert parsed({"type": "double"}, {"type": "double"}) == by_position
    assert parsed({"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, 2]}}) == by_position
    assert parsed({"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, -1]}}) is None
    assert parse(None) is None
    assert parse({"inputs": None}) is None


@pytest.mark.parametrize(
    ("kind", "values", "dtype"),
    [
        ("double", [1, 2], "float64"),
        ("double", [None, None], "float64"),
        ("float", [1.5, None], "float32"),
        ("long", [1.0, 2.0], "int64"),
        ("long", [1, None], "float64"),
        ("integer", [1, 2], "int32"),
        ("integer", np.array([1, 2], dtype="int8"), "int8"),
        ("boolean", [True, False], "bool"),
        ("boolean", [True, None], "object"),
        ("string", ["x", None], "str"),
        ("string", [None, None], "str"),
        ("string", pd.Categorical(["x", "y"]), "category"),
        ("long", pd.array([1, 2], dtype="Int64"), "int64"),
        ("long", pd.array([1, None], dtype="Int64"), "float64"),
    ],
)
def test_the_signature_decides_where_both_can_be_true(kind: str, values: Any, dtype: str) -> None:
    """A column gets a dtype of the signature's type, keeps a narrower one, and NaN for missing values."""
    frame = apply_signature(pd.DataFrame({"a": values, "b": 1.0}), (Spec("a", kind), Spec("b", "double")), FITTED)
    assert str(frame["a"].dtype) == dtype
    assert frame["a"].isna().tolist() == pd.Series(values).isna().tolist()
    assert None not in frame["a"].tolist()


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("double", ["x", "y"]),
        ("double", [True, False]),
        ("long", [1.5, 2.0]),
        ("integer", [2**31, 1]),
        ("long", [2**63, 1]),
        ("boolean", [0, 1]),
        ("boolean", [None, None]),
        ("string", [5, 6]),
        ("string", ["x", 5]),
        ("string", pd.Categorical([1, 2])),
        ("double", [[1], [2]]),
    ],
)
def test_cells_of_another_kind_are_refused(kind: str, values: Any) -> None:
    """Cells of another type than the signature's are an error that names the column."""
    with pytest.raises(PublishFailed, match="column 'a' is"):
        apply_signature(pd.DataFrame({"a": values, "b": 1.0}), (Spec("a", kind), Spec("b", "double")), FITTED)


def test_the_signature_orders_columns_an_estimator_has_no_names_for() -> None:
    """For an estimator that was fitted on an array, the signature gives the order of the sample's columns."""
    fitted = LinearRegression().fit([[1.0, 2.0], [2.0, 1.0]], [1.0, 2.0])
    sample = pd.DataFrame({"b": [1, 2], "a": [3, 4]})
    frame = apply_signature(sample, (Spec("a", "double"), Spec("b", "long")), fitted)
    assert list(frame.columns) == ["a", "b"]
    assert frame.dtypes.astype(str).tolist() == ["float64", "int64"]


def test_two_columns_of_one_name_are_refused() -> None:
    """An example may hold a column name twice, and no rule could choose one of them."""
    with pytest.raises(PublishFailed, match="two columns with the same name"):
        apply_signature(pd.DataFrame([[1.0, 2.0]], columns=["a", "a"]), None, FITTED)


def test_integers_become_floats() -> None:
    """Only integer columns change."""
    frame = integers_as_floats(pd.DataFrame({"a": [1], "b": ["x"], "c": [True]}))
    assert frame.dtypes.astype(str).tolist() == ["float64", "str", "bool"]


@pytest.mark.parametrize("is_missing", [None, np.nan])
@pytest.mark.parametrize("shown", [True, False])
def test_a_missing_value_is_what_the_encoder_was_fitted_on(is_missing: Any, shown: bool, tmp_path: Path) -> None:
    """A missing value reaches an encoder as None or NaN, whichever it was fitted on."""
    values = np.array(["x", "y", is_missing, "x", is_missing, "y"], dtype=object)
    trained = pd.DataFrame({"a": pd.Series(values, dtype=object)})
    pipeline = make_pipeline(
        make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["a"])), LinearRegression()
    ).fit(trained, [1.0, 2.0, 9.0, 1.0, 9.0, 2.0])
    example = read(tmp_path, json.dumps({"columns": ["a"], "data": [["x"], [None if shown else "y"]]}))
    frame = apply_signature(example, (Spec("a", "string", False),), pipeline)
    contract = publish("m", pipeline, frame, repository=tmp_path / "r", optional=["a"])
    assert contract.input.columns[0].nullable
    answer = pipeline.predict(from_rows([[None]], contract.input).to_input())
    assert answer == pytest.approx([9.0])
