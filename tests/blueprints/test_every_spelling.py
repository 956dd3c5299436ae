"""Promise one, for every spelling: a table written in any way gives the estimator one input, the same to the bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tableside.contracts.schema import Column, Input
from tableside.decoding.missing_words import WORDS
from tests.conftest import QUICK, MakeApp, serve
from tests.fakes import RecordingRuntime
from tests.spellings import spellings

MIXED = Input(
    "frame",
    (
        Column("real", "FP64", "float64", nullable=True),
        Column("exact", "FP64", "float64"),
        Column("narrow", "FP32", "float32", nullable=True),
        Column("count", "INT64", "int64"),
        Column("missing_cells", "INT64", "int64", nullable=True),
        Column("small", "INT64", "int8"),
        Column("word", "BYTES", "object", nullable=True),
        Column("text", "BYTES", "str", nullable=True),
        Column("shade", "BYTES", "category", nullable=True, categories=("red", "pale"), closed=True),
        Column("flag", "BOOL", "bool"),
        Column("perhaps", "BOOL", "object", nullable=True),
    ),
)
MATRIX = Input("matrix", tuple(Column(name, "FP64", "float64", nullable=True) for name in ("x0", "x1", "x2")))
WHOLE = Input("frame", tuple(Column(name, "INT64", "int64") for name in ("i", "j")))
SINGLE = Input("matrix", tuple(Column(name, "FP32", "float32") for name in ("x0", "x1")))
TEXTS = Input("texts", (Column("note", "BYTES", "object"),))

REALS = st.floats(allow_nan=False, allow_infinity=False)
SINGLES = st.floats(allow_nan=False, allow_infinity=False, width=32)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12).filter(lambda text: text not in WORDS)
"""Any text but the words that are missing cells in some spellings and not in others (test_missing_words.py)."""
CELLS: dict[str, Any] = {
    "float64": REALS | st.integers(-(2**53), 2**53) | st.sampled_from([-0.0, 5e-324, 1.7976931348623157e308]),
    "float32": SINGLES,
    "int64": st.integers(-(2**63), 2**63 - 1),
    "int8": st.integers(-128, 127),
    "object": TEXT,
    "str": TEXT,
    "bool": st.booleans(),
}


def cell(column: Column) -> Any:
    if column.categories:
        cells: Any = st.sampled_from(column.categories)
    elif column.datatype == "BOOL":
        cells = st.booleans()
    elif column.datatype == "INT64" and column.nullable:
        cells = st.integers(-(2**53), 2**53)
    else:
        cells = CELLS[column.dtype]
    return st.none() | cells if column.nullable else cells


def rows_of(schema: Input) -> Any:
    return st.lists(st.tuples(*map(cell, schema.columns)).map(list), min_size=1, max_size=6)


Ask = Callable[[str, Any], Any]


@pytest.fixture(scope="module")
def models() -> dict[str, Input]:
    return {"mixed": MIXED, "matrix": MATRIX, "whole": WHOLE, "single": SINGLE, "texts": TEXTS}


@pytest.fixture
def ask(make_app: MakeApp, models: dict[str, Input]) -> Ask:
    """Send a request and return what the estimator received."""
    app = make_app(empty=True, **QUICK)
    runtimes = {name: RecordingRuntime() for name in models}
    serve(app, {name: (schema, runtimes[name]) for name, schema in models.items()})
    client = app.test_client()

    def ask(name: str, request: Any) -> Any:
        answer = client.post(request.path.replace("MODEL", name), data=request.body, headers=request.headers)
        assert answer.status_code == 200, answer.get_data(as_text=True)
        return runtimes[name].seen.pop()

    return ask


def bits(data: Any) -> Any:
    """A comparable form of an estimator's input: dtypes, and each cell to the bit."""
    if isinstance(data, list):
        return data
    if isinstance(data, np.ndarray):
        return data.dtype, data.shape, data.tobytes(), data.flags.c_contiguous, data.flags.writeable
    return {name: (str(series.dtype), _cells(series)) for name, series in data.items()}


def _cells(series: pd.Series[Any]) -> Any:
    array = series.to_numpy()
    return array.tobytes() if array.dtype.kind in "fiub" else [repr(value) for value in array]


def _differing(got: Any, first: Any) -> Any:
    if not isinstance(got, dict):
        return got, first
    return [(name, got.get(name), first[name]) for name in first if got.get(name) != first[name]] or "column order"


BOUNDED = settings(max_examples=30)


@pytest.mark.parametrize("name", ["mixed", "matrix", "whole", "single", "texts"])
@BOUNDED
@given(data=st.data(), chance=st.randoms())
def test_every_spelling_is_one_input(ask: Ask, models: dict[str, Input], name: str, data: Any, chance: Any) -> None:
    """The estimator receives equal dtypes and cells for a table in every format, compressed or not."""
    rows = data.draw(rows_of(models[name]))
    first: Any = None
    for spelling, request in spellings(models[name], rows, chance):
        got = bits(ask(name, request))
        first = got if first is None else first
        assert got == first and list(got) == list(first), f"{spelling}: {_differing(got, first)}"
