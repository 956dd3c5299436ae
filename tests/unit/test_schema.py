"""The contract: its file, and the values derived from it."""

from __future__ import annotations

import datetime

import msgspec
import numpy as np
import pandas as pd
import pytest

from tableside.contracts.schema import Column, Input, Output, decode, encode, plain
from tableside.decoding.rules import describe
from tests.fakes import sum_contract


def test_a_contract_survives_its_file() -> None:
    """A contract that is written and read again is equal, and so are its bytes."""
    contract = sum_contract()
    assert decode(encode(contract)) == contract
    assert encode(decode(encode(contract))) == encode(contract)


def test_another_format_is_refused() -> None:
    """A contract of another format is refused; the error names both formats."""
    with pytest.raises(
        msgspec.ValidationError, match="contract format 2 is not supported; this version of Tableside reads format 1"
    ):
        decode(encode(msgspec.structs.replace(sum_contract(), format=2)))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float64(0.1), 0.1), (np.float32(0.1), float(np.float32(0.1))), (np.int8(-3), -3), (np.bool_(True), True),
        (np.str_("x"), "x"), (None, None), (float("nan"), None), (np.inf, None),
        (datetime.date(2026, 1, 2), "2026-01-02"), (pd.NA, None), (pd.NaT, None), (-np.inf, None), (2**70, 2**70),
        (np.array(1.5), 1.5),
    ],
)  # fmt: skip
def test_numpy_values_become_json(value: object, expected: object) -> None:
    """A numpy scalar becomes a JSON value; a missing or not finite one becomes null, and other objects become text."""
    assert plain(value) == expected
    assert type(plain(value)) is type(expected)


def test_a_contract_without_outputs_is_no_contract() -> None:
    """A contract without outputs, or with golden answers of other outputs, is refused."""
    whole = sum_contract()
    for broken in (
        msgspec.structs.replace(whole, outputs=()),
        msgspec.structs.replace(whole, outputs=whole.outputs[:1]),
    ):
        with pytest.raises(msgspec.ValidationError, match="at least one output, and golden answers for exactly"):
            decode(encode(broken))
    assert decode(encode(whole)) == whole


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"format": 1}', b"\xff"])
def test_a_file_that_is_no_contract_is_refused(text: bytes) -> None:
    """Text that is not JSON, or JSON of another structure, raises msgspec's error."""
    with pytest.raises(msgspec.DecodeError):
        decode(text)


@pytest.mark.parametrize(
    ("column", "text"),
    [
        (Column("c", "FP64", "float64"), "a number"),
        (Column("c", "FP32", "float32", nullable=True), "a number or null"),
        (Column("c", "INT64", "int64"), "an integer"),
        (Column("c", "BOOL", "bool"), "true, false, 1 or 0"),
        (Column("c", "BYTES", "object", nullable=True), "a string or null"),
    ],
)
def test_a_column_is_described_by_its_datatype(column: Column, text: str) -> None:
    """The description of a cell has its JSON type, and null for a nullable column."""
    assert describe(column) == text


def test_a_table_of_doubles_has_no_categories() -> None:
    """Only float64 columns without closed categories can be read as one matrix, and there must be one column."""
    double = Column("a", "FP64", "float64")
    assert Input("matrix", (double,)).is_double
    for other in (
        Column("b", "FP64", "float64", closed=True, categories=(1.0,)),
        Column("b", "FP32", "float32"),
        Column("b", "FP64", "Float64"),
    ):
        assert not Input("frame", (double, other)).is_double
    assert not Input("frame", ()).is_double


def test_columns_that_need_a_value_are_those_not_nullable() -> None:
    """`needed` has the names of the columns that are not nullable; `takes_missing` is true if there are none."""
    optional, required = Column("a", "FP64", "float64", nullable=True), Column("b", "BOOL", "bool")
    assert Input("frame", (optional, required)).needed == {"b"}
    assert not Input("frame", (optional, required)).takes_missing
    assert Input("frame", (optional,)).takes_missing
    assert not Input("frame", (optional, required)).is_numeric


def test_an_output_is_found_by_name() -> None:
    """The first output is the default. A part of a method's list has that method as its source."""
    contract = sum_contract()
    assert contract.default_output is contract.output("predict")
    assert contract.output("absent") is None
    assert contract.outputs[0].source == "predict"
    assert Output("predict_proba_1", "FP64", 2, False, None, "predict_proba", 1).source == "predict_proba"
