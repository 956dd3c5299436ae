"""Properties of decoding: every form of a request gives one table and one answer, and random JSON is refused."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import orjson
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tableside.blueprints.predict.schemas import InferRequest, PredictRequest
from tableside.blueprints.predict.tables import instances
from tableside.blueprints.predict.v1 import decode
from tableside.contracts.schema import Column, Input
from tableside.contracts.table import Table
from tableside.decoding.json_tables import from_columns, from_rows, require_rows
from tableside.decoding.rules import STRICT
from tableside.decoding.tensors import Tensor, from_tensors
from tableside.errors import RequestRejected
from tableside.repository import integrity
from tableside.settings import Server
from tableside.web.request import Body, parse_json

REALS = st.floats(-1e6, 1e6)
ROW = st.tuples(
    REALS,
    st.none() | REALS,
    st.integers(-(2**31), 2**31),
    st.one_of(REALS, st.integers(-1000, 1000)),
    st.none() | st.sampled_from(["pale", "ruby", "deep"]),
    st.booleans(),
).map(list)
ROWS = st.lists(ROW, min_size=1, max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["alcohol", "shade", "x", "name", "data", "shape"]), inner, max_size=4)
    ),
    max_leaves=15,
)


@pytest.fixture(scope="module")
def schema(repository: Path) -> Input:
    return integrity.read_contract(repository, "wine", 1).input


@cache
def datatype(name: str) -> str:
    return {"shade": "BYTES", "aromatic": "BOOL", "magnesium": "INT64"}.get(name, "FP64")


def over_the_wire(content: Any) -> Any:
    return msgspec.json.decode(orjson.dumps(content))


@given(rows=ROWS, chance=st.randoms())
def test_spellings_agree(schema: Input, trained: Any, rows: list[list[Any]], chance: Any) -> None:
    """Rows as lists or objects, columns and tensors of the same values give one frame and one prediction."""
    estimator, sample = trained["wine"]
    names = [column.name for column in schema.columns]
    order = chance.sample(names, len(names))
    columns = {name: [row[names.index(name)] for row in rows] for name in order}
    lists = from_rows(over_the_wire(rows), schema).to_input()
    objects = [{name: columns[name][at] for name in order} for at in range(len(rows))]
    sent = [{"name": n, "shape": [len(rows), 1], "datatype": datatype(n), "data": columns[n]} for n in order]
    tensors = msgspec.convert(over_the_wire(sent), list[Tensor])
    for other in (
        from_rows(over_the_wire(objects), schema).to_input(),
        from_columns(over_the_wire(columns), schema).to_input(),
        from_tensors(tensors, schema).to_input(),
    ):
        pd.testing.assert_frame_equal(lists, other, check_exact=True)
    assert list(lists.columns) == list(sample.columns)
    trainers = pd.DataFrame({n: pd.Series(columns[n], dtype=sample[n].dtype) for n in sample.columns})
    trainers["shade"] = trainers["shade"].where(trainers["shade"].notna(), np.nan)
    pd.testing.assert_frame_equal(lists, trainers, check_exact=True)
    np.testing.assert_array_equal(estimator.predict_proba(lists), estimator.predict_proba(trainers))


@given(junk=st.lists(JSON, max_size=5))
def test_junk_rows_are_refused(schema: Input, junk: list[Any]) -> None:
    """Rows of any JSON are decoded, or raise RequestRejected and no other exception."""
    with contextlib.suppress(RequestRejected):
        from_rows(junk, schema)


@given(junk=st.lists(st.lists(JSON, min_size=6, max_size=6), min_size=1, max_size=3))
def test_junk_cells_are_refused(schema: Input, junk: list[Any]) -> None:
    """Rows of the right width with any cells are decoded, or raise RequestRejected and no other exception."""
    with contextlib.suppress(RequestRejected):
        from_rows(junk, schema).to_input()


@given(
    junk=st.lists(
        st.builds(
            Tensor,
            name=st.sampled_from(["alcohol", "shade", "magnesium", "aromatic", "x"]),
            shape=st.lists(st.integers(-2, 6) | st.integers(), max_size=3),
            datatype=st.sampled_from(["FP64", "FP32", "FP16", "INT8", "UINT64", "INT64", "BOOL", "BYTES", "X"]),
            data=JSON | st.lists(st.integers() | st.floats(allow_nan=False, allow_infinity=False), max_size=4),
        ),
        max_size=4,
    )
)
def test_junk_tensors_are_refused(schema: Input, junk: list[Tensor]) -> None:
    """Tensors of any JSON are decoded, or raise RequestRejected and no other exception."""
    with contextlib.suppress(RequestRejected):
        from_tensors(junk, schema)


LITERALS = st.sampled_from(
    ["0", "-0", "-0.0", "1E5", "1e-400", "1e999", "9007199254740993", "18446744073709551617", "1" + "0" * 400, "true",
     "false", "null", '"1"', "[1]", "{}", "NaN"]
) | st.floats(allow_nan=False, allow_infinity=False).map(repr) | st.integers().map(repr)  # fmt: skip


def _outcome(read: Callable[[], Table]) -> Any:
    """A table's bits, or the text and the places of its error."""
    try:
        table = read()
    except RequestRejected as refusal:
        return str(refusal), refusal.cells
    assert table.matrix is not None
    return table.rows, table.matrix.shape, table.matrix.dtype, table.matrix.flags.writeable, table.matrix.tobytes()


@given(
    rows=st.lists(st.lists(st.just("1.5") | LITERALS, min_size=2, max_size=2) | st.lists(LITERALS, max_size=3)),
    missing_cells=st.booleans(),
)
@example(rows=[["1.5", "true"]], missing_cells=False)
@example(rows=[["1.5", '"1"']], missing_cells=False)
@example(rows=[["1.5", "null"]], missing_cells=False)
@example(rows=[["1.5", "null"]], missing_cells=True)
@example(rows=[["1.5", "-0"], ["1.5"]], missing_cells=True)
@example(rows=[["-0", "9007199254740993"]], missing_cells=False)
def test_numbers_the_decoder_has_checked_are_the_same_table(rows: list[list[str]], missing_cells: bool) -> None:
    """The fast decoding of a body of numbers gives the same bits or the same error as the general one."""
    schema = Input(
        "matrix", (Column("a", "FP64", "float64", missing_cells), Column("b", "FP64", "float64", missing_cells))
    )
    written = ", ".join("[" + ", ".join(row) + "]" for row in rows)
    text = f'{{"instances": [{written}]}}'.encode()

    def at_length() -> Table:
        return require_rows(instances(parse_json(text, PredictRequest, is_strict=False).instances, schema, STRICT))

    assert _outcome(lambda: decode(Body(text, "", Server()), schema, STRICT).table) == _outcome(at_length)


@given(junk=JSON, kind=st.sampled_from([InferRequest, PredictRequest]))
def test_junk_bodies_are_refused(junk: Any, kind: Any) -> None:
    """A body of any JSON is parsed, or raises RequestRejected and no other exception."""
    with contextlib.suppress(RequestRejected):
        parse_json(orjson.dumps(junk), kind) if _writable(junk) else None


def _writable(junk: Any) -> bool:
    try:
        orjson.dumps(junk)
    except TypeError:  # orjson writes no integer past 64 bits
        return False
    return True
