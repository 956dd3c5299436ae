"""The package of the training environment reads a CSV sample as publish does, without the libraries of the server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder

from tableside.errors import PublishFailed
from tableside.publishing import sample_files
from tableside_contract import csv_text, declared_types, tables
from tableside_contract.errors import RecordFailed
from tests import typed_models

pytestmark = pytest.mark.no_greenlets

TYPES = {
    "whole": "int64", "small": "int8", "Whole": "Int64", "real": "float32", "flag": "bool", "maybe": "boolean",
    "code": "str", "plain": "object", "text": "string", "kind": "category", "level": "category[int64]",
    "day": "datetime64[ns]", "time": "datetime64[us, UTC]",
}  # fmt: skip
TEXT = (
    ",".join(TYPES) + "\n"
    '1,2,3,0.1,True,1,00501,"a,b",x,u,3,2026-05-31,2026-05-31T12:00:00Z\n'
    '-7,-128,,1e-3,False,,00017,"say ""no""",,v,1,2026-06-01 10:30,2026-05-31T14:00:00+02:00\n'
    "9007199254740993,127,4,NaN,0,false,,NA,z,u,3,,\n"
)


def write(folder: Path, text: str) -> Path:
    (folder / "s.csv").write_text(text)
    return folder / "s.csv"


def test_declared_types_are_the_server_s(tmp_path: Path) -> None:
    """The same file with the same `--types` is the same table: dtypes, cells and missing cells."""
    path = write(tmp_path, TEXT)
    here, _ = sample_files.read(path, FunctionTransformer(), types=TYPES)
    there, _ = tables.read(
        path, FunctionTransformer(), None, declared_types.parse(",".join(map("=".join, TYPES.items())))
    )
    pd.testing.assert_frame_equal(there, here)


@pytest.mark.parametrize("name", list(typed_models.text_models()))
def test_the_model_decides_as_on_the_server(name: str, tmp_path: Path) -> None:
    """What encoders and imputers know is used by both, down to the kind of a missing cell."""
    model = typed_models.text_models()[name]
    path = model.csv(tmp_path)
    here, _ = sample_files.read(path, model.estimator)
    there, _ = tables.read(path, model.estimator)
    pd.testing.assert_frame_equal(there, here)


def test_none_where_the_encoder_was_fitted_on_none(tmp_path: Path) -> None:
    """The missing cells are of the kind that the encoder knows."""
    frame = pd.DataFrame({"a": pd.Series(["x", None], dtype=object)})
    fitted = make_column_transformer((OneHotEncoder(), ["a"])).fit(frame)
    read, _ = tables.read(write(tmp_path, "a\nx\n\n"), fitted)
    assert read["a"].tolist() == ["x", None]


@pytest.mark.parametrize(
    ("text", "types", "message"),
    [
        ("", "", "the file is empty; a header line"),
        ("a,a\n1,2\n", "", "more than one column 'a'"),
        ("a,b\n1\n", "", "row 1 has 1 cells, expected 2"),
        ('a,b\nx"y,2\n', "", "line 2 has a quote where none can be"),
        ("a,b\n1.5,2\n", "a=int64", "column 'a' is declared as int64, but row 1 of the sample is not one"),
        ("a,b\n300,2\n", "a=int8", "column 'a' is declared as int8"),
        (
            "a,b\n,2\n",
            "a=int64",
            "missing cells there. Declare it as float64, which is how pandas reads it, or as Int64",
        ),
        ("a,b\nyes,2\n", "a=bool", "column 'a' is declared as bool, but row 1"),
        ("a,b\n31.5.2026,2\n", "a=datetime64[ns]", "column 'a' is declared as datetime64[ns], but row 1"),
        ("a,b\n1,2\n", "c=int64", "--types names the column 'c', which the sample does not have. Its columns: a, b"),
        ("a,b\n1,2\n", "a", "--types: 'a' is not COLUMN=DTYPE"),
        ("a,b\n1,2\n", "a=decimal", "column 'a' has the dtype 'decimal', expected int64"),
        ("a,b\n12,2.5\n", "", "2 columns are open; if none is text: --types a=int64,b=float64"),
    ],
)
def test_a_mistake_has_a_sentence(text: str, types: str, message: str, tmp_path: Path) -> None:
    """The error names the column or the line, and what to type; nothing is guessed."""
    with pytest.raises(RecordFailed) as refused:
        tables.read(write(tmp_path, text), FunctionTransformer(), None, declared_types.parse(types))
    assert message in str(refused.value)


def test_a_target_and_surplus_columns(tmp_path: Path) -> None:
    """The target is left out before anything is decided; a surplus column stays, and is refused by its name later."""
    frame = pd.DataFrame({"a": [1.0, 2.0]})
    fitted = make_pipeline(SimpleImputer(), LinearRegression()).fit(frame, [1, 2])
    read, notes = tables.read(write(tmp_path, "y,a,more\n00501,1,7\nx,,8\n"), fitted, "y")
    assert (list(read.columns), notes) == (["a", "more"], [])
    np.testing.assert_array_equal(read["a"], [1.0, np.nan])
    with pytest.raises(RecordFailed, match="no target column 'z'. Its columns are: y, a, more"):
        tables.read(tmp_path / "s.csv", fitted, "z")


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_quotes_line_ends_and_empty_cells(end: str, tmp_path: Path) -> None:
    """RFC 4180: a quoted cell holds commas, quotes and line ends; if empty it is a text, without quotes it is none."""
    text = f'a,b{end}"x,{end}y","say ""no"""{end}"",{end}{end}ä,"z"'
    (tmp_path / "s.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    found: Any = csv_text.read(tmp_path / "s.csv")
    assert found == {"a": [f"x,{end}y", "", "ä"], "b": ['say "no"', None, "z"]}


def test_both_refuse_the_same(tmp_path: Path) -> None:
    """A file that one refuses is refused by the other with the same sentence."""
    path = write(tmp_path, "zip,flag\n00501,True\n")
    with pytest.raises(PublishFailed) as here:
        sample_files.read(path, FunctionTransformer())
    with pytest.raises(RecordFailed) as there:
        tables.read(path, FunctionTransformer())
    assert str(here.value) == str(there.value)
