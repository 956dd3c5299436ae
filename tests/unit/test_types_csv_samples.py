"""A CSV sample: each column gets the type that was declared, that the model knows, or that it clearly looks like."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder

from tableside.contracts.schema import Contract
from tableside.decoding.json_tables import from_rows
from tableside.errors import PublishFailed
from tableside.publishing import sample_files
from tableside.publishing.publish import publish
from tests import typed_models
from tests.typed_models import TypedModel

pytestmark = pytest.mark.no_greenlets

NOTHING = FunctionTransformer()


def read(folder: Path, text: str, estimator: Any = NOTHING, **options: Any) -> pd.DataFrame:
    (folder / "s.csv").write_text(text)
    return sample_files.read(folder / "s.csv", estimator, **options)[0]


def published(model: TypedModel, path: Path, folder: Path, **options: Any) -> Contract:
    frame, _ = sample_files.read(path, model.estimator)
    return publish("m", model.estimator, frame, repository=folder / "r", runtime="sklearn", **options)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
@pytest.mark.parametrize("name", list(typed_models.text_models()))
def test_text_that_looks_like_something_else_stays_text(name: str, ending: str, tmp_path: Path) -> None:
    """From either file the trainer's own text goes in again, and the answers are those of memory, to the bit."""
    model = typed_models.text_models()[name]
    contract = published(model, model.csv(tmp_path) if ending == "csv" else model.parquet(tmp_path), tmp_path)
    assert [column.datatype for column in contract.input.columns] == ["BYTES", "FP64"]
    given = from_rows(model.frame.to_numpy(dtype=object).tolist(), contract.input).to_input()
    np.testing.assert_array_equal(model.estimator.predict(given), model.answers)


@dataclass
class Own(BaseEstimator):  # type: ignore[misc, unused-ignore]
    """A step of the trainer's own, of whose columns nothing is known."""

    function: Any

    def fit(self, X: Any, y: Any = None) -> Own:
        return self

    def transform(self, X: Any) -> Any:
        return self.function(X)


HALVES = Own(lambda X: np.column_stack([X["a"] / 2, X["b"] == "x"]))
"""Takes numbers in `a`, because text cannot be divided, and anything in `b`."""


@pytest.mark.parametrize(
    ("cells", "dtype"),
    [
        (["1", "2", "30"], "int64"), (["1", "", "30"], "float64"), (["0.5", "1e-05", "-3.25"], "float64"),
        (["1.5", "NA", "nan"], "float64"), (["", "", ""], "float64"), (["007", "+5", "1e5"], "int64"),
        (["18446744073709551615", "1", "2"], "uint64"), (["1.0", "2.0", "3.0"], "float64"),
    ],
)  # fmt: skip
def test_the_model_decides_a_column_of_which_it_says_nothing(cells: list[str], dtype: str, tmp_path: Path) -> None:
    """The one reading that the model answers is the type, however the cells are written."""
    frame = read(tmp_path, "a,b\n" + "".join(f"{cell},x\n" for cell in cells), HALVES)
    assert str(frame["a"].dtype) == dtype.replace("int64", "float64" if "1e5" in cells else "int64")
    expected = [np.nan if cell in ("", "NA", "nan") else float(cell) for cell in cells]
    np.testing.assert_array_equal(frame["a"].to_numpy(dtype=float), expected)


@pytest.mark.parametrize(
    ("function", "cells"),
    [
        (lambda X: np.array([[len(cell)] for cell in X["a"]]), ["10115", "90210"]),
        (lambda X: np.array([[cell.startswith("0")] for cell in X["a"]]), ["00501", "10115"]),
        (lambda X: X["a"].str.len().to_frame(), ["1.5", "2"]),
    ],
)
def test_text_is_text_where_the_model_takes_no_numbers(function: Any, cells: list[str], tmp_path: Path) -> None:
    """Codes that look like numbers stay text if a number is no input of the model."""
    frame = read(tmp_path, "a,b\n" + "".join(f"{cell},x\n" for cell in cells), Own(function))
    assert frame["a"].tolist() == cells


def test_columns_that_the_model_tells_apart_are_open(tmp_path: Path) -> None:
    """`a` and `b` are joined as text or added as numbers, and nothing but the trainer knows which; `c` is a number."""
    joins = Own(lambda X: np.column_stack([[hash(cell) % 97 for cell in X["a"] + X["b"]], np.log1p(X["c"])]))
    with pytest.raises(PublishFailed) as refused:
        read(tmp_path, "a,b,c\n12,5,1\n34,6,2\n", joins)
    assert "column 'a' has the cell '12', which could be a text or the number 12" in str(refused.value)
    assert "2 columns are open; if none is text: --types a=int64,b=int64" in str(refused.value)
    frame = read(tmp_path, "a,b,c\n12,5,1\n34,6,2\n", joins, types={"a": "str", "b": "str"})
    assert [str(dtype) for dtype in frame.dtypes] == ["str", "str", "int64"]


def test_many_open_columns_are_asked_with_fewer_calls(tmp_path: Path) -> None:
    """A function of numpy takes numbers; a step of the trainer's own is asked about 20 columns in seconds."""
    names = [f"c{at}" for at in range(20)]
    text = ",".join(names) + "\n" + ",".join(["12"] * 20) + "\n" + ",".join(["7"] * 20) + "\n"
    frame = pd.DataFrame([[1.0] * 20], columns=names)
    assert set(read(tmp_path, text, FunctionTransformer(np.log1p).fit(frame)).dtypes.astype(str)) == {"int64"}
    assert set(read(tmp_path, text, Own(lambda X: X / 2)).dtypes.astype(str)) == {"int64"}
    with pytest.raises(PublishFailed, match="20 columns are open"):
        read(tmp_path, text, NOTHING)


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (["00501", "10115"], "'00501', which could be a text or the number 501"),
        (["1e5", "2"], "'1e5', which could be a text or the number 100000"),
        (["+5", "2"], "could be a text or the number 5"),
        (["True", "False"], "'True', which could be a text or a boolean"),
        (["NA", "AT"], "'NA', which could be a text or a missing cell"),
        (["2026-05-31", "2026-06-01"], "'2026-05-31', which could be a text or a date"),
    ],
)
def test_what_looks_like_two_things_is_refused(cells: list[str], message: str, tmp_path: Path) -> None:
    """The error names the column and both readings, and what to type; either declaration is taken."""
    text = "a,b\n" + "".join(f"{cell},x\n" for cell in cells)
    with pytest.raises(PublishFailed, match="column 'a' has the cell") as refused:
        read(tmp_path, text)
    assert message in str(refused.value)
    assert "--types a=str" in str(refused.value)
    assert "a Parquet sample" in str(refused.value)
    assert read(tmp_path, text, types={"a": "str"})["a"].tolist() == cells


def test_numbers_and_text_with_the_same_answers_are_numbers(tmp_path: Path) -> None:
    """Where the reading changes no answer the note says how to declare text; where it loses a zero it is refused."""
    converts = Own(lambda X: np.asarray(X, dtype=float))
    (tmp_path / "s.csv").write_text("zip,x\n10115,1.5\n90210,2.5\n")
    frame, (note,) = sample_files.read(tmp_path / "s.csv", converts)
    assert [str(dtype) for dtype in frame.dtypes] == ["int64", "float64"]
    assert "answers text and numbers alike in zip, x" in note
    assert "--types zip=str" in note
    with pytest.raises(PublishFailed, match="'00501', which could be a text or the number 501"):
        read(tmp_path, "zip,x\n00501,1.5\n90210,2.5\n", converts)


def test_one_row_or_one_method_tells_the_readings_apart(tmp_path: Path) -> None:
    """A code that the model knows is in one of 400 rows; and labels are equal where probabilities are not."""
    rare = Own(lambda X: np.array([[float(cell == "10116")] for cell in X["zip"]]))
    text = "zip,x\n" + "".join(f"{'10116' if row == 201 else '10115'},a\n" for row in range(400))
    with pytest.raises(PublishFailed, match="column 'zip' has the cell '10115', which could be a text"):
        read(tmp_path, text, rare)
    frame = pd.DataFrame({"zip": ["10115", "10116"] * 20, "x": ["a"] * 40})
    own = Own(lambda X: np.array([[0.1 * (cell == "10116")] for cell in X["zip"]]))
    model = make_pipeline(own, LogisticRegression()).fit(frame, [0] * 30 + [1] * 10)
    assert set(model.predict(frame)) == {0}
    with pytest.raises(PublishFailed, match="column 'zip' has the cell '10115', which could be a text"):
        read(tmp_path, text, model)


def test_an_estimator_that_computes_takes_flags_and_codes_as_numbers(tmp_path: Path) -> None:
    """Text cannot be meant where the model takes numbers only; booleans stay booleans."""
    fitted = LinearRegression().fit(pd.DataFrame({"a": [1.0, 2.0], "f": [True, False]}), [1.0, 2.0])
    frame = read(tmp_path, "a,f\n007,True\n1e5,False\n", fitted)
    assert frame["a"].tolist() == [7, 100000]
    assert str(frame["f"].dtype) == "bool"
    with pytest.raises(
        PublishFailed, match="column 'a': LinearRegression takes numbers or booleans, but the CSV sample"
    ):
        read(tmp_path, "a,f\nx7,True\n", fitted)


def test_an_encoder_s_numbers_and_booleans_are_read_as_such(tmp_path: Path) -> None:
    """What the encoder was fitted on decides between 1, 1.0, true and '1'."""
    for values, dtype in (([1, 2], "int64"), ([1.0, 2.0], "float64"), ([True, False], "bool"), (["1", "2"], "str")):
        fitted = OneHotEncoder(handle_unknown="ignore").fit(pd.DataFrame({"a": values, "b": [1, 2]}))
        frame = read(tmp_path, "a,b\n1,1\n1,2\n", fitted)
        assert str(frame["a"].dtype) == dtype


def test_an_encoder_of_numbers_refuses_words(tmp_path: Path) -> None:
    """Disagreement of file and model is an error that names both."""
    fitted = OneHotEncoder().fit(pd.DataFrame({"a": [1, 2]}))
    with pytest.raises(
        PublishFailed, match=r"OneHotEncoder was fitted on numbers \(1, 2\), but the CSV sample has 'x'"
    ):
        read(tmp_path, "a\nx\n", fitted)


def test_a_table_of_another_type_than_the_encoder_s_is_refused(tmp_path: Path) -> None:
    """Also a DataFrame or a Parquet file may have lost the zeros: the encoder's categories say so."""
    model = typed_models.text_models()["zip-onehot"]
    frame = model.frame.assign(code=model.frame["code"].astype(int))
    with pytest.raises(PublishFailed, match="column 'code': OneHotEncoder was fitted on text") as refused:
        publish("m", model.estimator, frame, repository=tmp_path)
    assert "but the sample has numbers (" in str(refused.value)


def test_an_empty_text_is_told_from_a_missing_cell(tmp_path: Path) -> None:
    """A quoted empty cell is the empty text; an empty cell is missing, unless the encoder knows only the empty text."""
    assert read(tmp_path, 'a,b\n"",u\nx,v\n')["a"].tolist() == ["", "x"]
    assert read(tmp_path, "a,b\n,u\nx,v\n")["a"].isna().tolist() == [True, False]
    frame = pd.DataFrame({"a": pd.Series(["", "x"], dtype=object)})
    fitted = make_pipeline(make_column_transformer((OneHotEncoder(), ["a"]))).fit(frame)
    assert read(tmp_path, "a,b\n,u\nx,v\n", fitted)["a"].tolist() == ["", "x"]
    both = pd.DataFrame({"a": pd.Series(["", "x", np.nan], dtype=object)})
    fitted = make_pipeline(make_column_transformer((OneHotEncoder(), ["a"]))).fit(both)
    with pytest.raises(PublishFailed, match="writes both as an empty cell: give a Parquet sample"):
        read(tmp_path, "a,b\n,u\nx,v\n", fitted)


def test_words_for_missing_cells_are_text_where_they_are_categories(tmp_path: Path) -> None:
    """NA is a country where the encoder knows it, and a missing cell where it knows only others."""
    frame = pd.DataFrame({"a": pd.Series(["AT", "NA"], dtype=object)})
    fitted = make_column_transformer((OneHotEncoder(), ["a"])).fit(frame)
    assert read(tmp_path, "a,b\nNA,1\nAT,2\n", fitted)["a"].tolist() == ["NA", "AT"]
    fitted = make_column_transformer(
        (make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder()), ["a"])
    ).fit(frame.iloc[[0, 0]])
    assert read(tmp_path, "a,b\nNA,1\nAT,2\n", fitted)["a"].isna().tolist() == [True, False]


def test_names_are_kept(tmp_path: Path) -> None:
    """An empty name is a name, a name twice is refused; numbers are numbers only where the model has no names."""
    assert list(read(tmp_path, ",x\nu,v\n").columns) == ["", "x"]
    with pytest.raises(PublishFailed, match="more than one column 'a'"):
        read(tmp_path, "a,a\n1,2\n")
    unnamed = LinearRegression().fit([[1.0, 2.0]], [1.0])
    assert list(read(tmp_path, "7,3\n1.5,2\n", unnamed).columns) == [7, 3]
    assert list(read(tmp_path, "0,1\n1.5,2\n", unnamed).columns) == ["0", "1"]
    named = LinearRegression().fit(pd.DataFrame([[1.0, 2.0]], columns=["7", "3"]), [1.0])
    assert list(read(tmp_path, "7,3\n1.5,2\n", named).columns) == ["7", "3"]


def test_the_command_takes_the_types_that_its_error_asks_for(tmp_path: Path) -> None:
    """`tableside publish` names the column that nothing decides, both readings and the option."""
    from click.testing import CliRunner

    from tableside.cli import main

    frame = pd.DataFrame({"zip": ["10115", "90210"] * 4})
    joblib.dump(FunctionTransformer().fit(frame), tmp_path / "m.joblib")
    frame.to_csv(tmp_path / "s.csv", index=False)
    command = [
        "publish",
        "m",
        str(tmp_path / "m.joblib"),
        "--sample",
        str(tmp_path / "s.csv"),
        "--repository",
        str(tmp_path),
    ]
    assert "--types zip=str" in CliRunner().invoke(main, [*command, "--runtime", "sklearn"]).output
    done = CliRunner().invoke(main, [*command, "--types", "zip=str", "--json"])
    assert done.exit_code == 0, done.output
    assert "--types" not in done.output


def test_a_training_record_refuses_codes_in_a_csv_sample(tmp_path: Path) -> None:
    """The step that runs in the training environment has no other reader: it asks for a sample with types."""
    from tableside_contract import errors, tables

    (tmp_path / "s.csv").write_text("zip,n\n00501,1\n10115,2\n")
    with pytest.raises(errors.RecordFailed, match="column 'zip' has the cell '00501', which could be a text or"):
        tables.read(tmp_path / "s.csv", FunctionTransformer())
    fitted = typed_models.text_models()["zip-onehot"].estimator
    (tmp_path / "s.csv").write_text("code,amount\n00501,1\n10115,0.5\n")
    frame, notes = tables.read(tmp_path / "s.csv", fitted)
    assert (frame["code"].tolist(), notes) == (["00501", "10115"], [])
