"""Content types of V2: a declared encoding is followed as MLServer follows it, or refused by its place."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tableside.contracts.schema import Column, Input
from tableside.decoding import content_types
from tableside.decoding.rules import STRICT
from tableside.decoding.tensors import Tensor, from_tensors
from tableside.errors import RequestRejected
from tests.spellings import pack

TABLE = Input(
    "frame",
    (
        Column("word", "BYTES", "object", nullable=True),
        Column("day", "BYTES", "datetime64[ns]", nullable=True),
        Column("n", "FP64", "float64"),
    ),
)
TEXTS = Input("frame", (Column("s", "BYTES", "object", nullable=True), Column("t", "BYTES", "object", nullable=True)))
DAYS = ["2026-05-31T12:00:00", "2026-05-31"]


def coded(*texts: str) -> list[str]:
    return [base64.b64encode(text.encode()).decode() for text in texts]


def tensor(name: str, data: Any, kind: Any, datatype: str = "BYTES", shape: list[int] | None = None) -> Tensor:
    return Tensor(name, shape or [len(data)], datatype, data, None if kind is None else {"content_type": kind})


def read(word: Tensor, day: Tensor, n: Tensor) -> Any:
    return from_tensors([word, day, n], TABLE).to_input()


NUMBERS = tensor("n", [1.5, 2], "np", "FP64")


@pytest.mark.parametrize("kinds", [(None, None), ("np", "np"), ("str", "str"), ("str", "datetime"), ("", "np")])
def test_text_and_dates(kinds: Any) -> None:
    """np, str and datetime give what the tensors give by themselves; the empty content type is none."""
    found = read(tensor("word", ["ü", None], kinds[0]), tensor("day", DAYS, kinds[1]), NUMBERS)
    assert found["word"].tolist()[0] == "ü"
    assert found["word"].isna().tolist() == [False, True]
    assert found["day"].tolist() == [pd.Timestamp(day) for day in DAYS]
    assert found["n"].tolist() == [1.5, 2]


def test_base64_is_decoded() -> None:
    """To the text that was encoded, missing cells and words for them included; dates too; in shape [rows, 1] too."""
    word = tensor("word", [[*coded("hello ü\n")], [None]], "base64", shape=[2, 1])
    found = read(word, tensor("day", coded(*DAYS), "base64"), NUMBERS)
    assert found["word"].tolist()[0] == "hello ü\n"
    assert found["word"].isna().tolist() == [False, True]
    assert found["day"].tolist() == [pd.Timestamp(day) for day in DAYS]
    missing = read(tensor("word", coded("nan", ""), "base64"), tensor("day", DAYS, None), NUMBERS)
    assert missing["word"].isna().tolist() == [True, False]
    assert missing["word"].tolist()[1] == ""


def test_base64_in_binary_tensors_and_matrices() -> None:
    """The bytes of a raw tensor hold base64 as well, and so may the cells of a matrix of text."""
    raw = pack("BYTES", coded("a", "b"))
    words = Tensor("word", [2], "BYTES", parameters={"binary_data_size": len(raw), "content_type": "base64"})
    found = from_tensors([words, tensor("day", DAYS, None), NUMBERS], TABLE, STRICT, memoryview(raw)).to_input()
    assert found["word"].tolist() == ["a", "b"]
    matrix = tensor("m", coded("a", "b", "c", "d"), "base64", shape=[2, 2])
    assert from_tensors([matrix], TEXTS).to_input().to_numpy().tolist() == [["a", "b"], ["c", "d"]]


@pytest.mark.parametrize(
    ("place", "kind", "datatype", "message"),
    [
        ("word", "utf8", "BYTES", "unknown content type; known here: np, str, base64, datetime"),
        ("word", 5, "BYTES", "expected a string, one of np, str, base64, datetime"),
        ("word", "pd", "BYTES", "'pd' is for the whole request: write it in its own 'parameters'; known here: np, str"),
        ("word", "datetime", "BYTES", "the column word holds no dates"),
        ("n", "str", "FP64", "'str' is for the datatype BYTES, and this input has another"),
        ("n", "base64", "FP64", "'base64' is for the datatype BYTES"),
        ("day", "datetime", "INT64", "'datetime' is for the datatype BYTES"),
    ],
)
def test_what_contradicts_is_refused(place: str, kind: Any, datatype: str, message: str) -> None:
    """With the place of the content type and those that are known there."""
    data = {"word": ["a", "b"], "day": [1, 2], "n": [1, 2]}[place]
    tensors = {"word": tensor("word", ["a", "b"], None), "day": tensor("day", DAYS, None), "n": NUMBERS}
    tensors[place] = tensor(place, data, kind, datatype)
    with pytest.raises(RequestRejected) as refused:
        from_tensors(list(tensors.values()), TABLE)
    (cell,) = refused.value.cells
    assert cell.path == f"inputs[{list(tensors).index(place)}].parameters.content_type"
    assert cell.message.startswith(message)


def test_each_cell_that_is_no_base64_is_named() -> None:
    """Strictly: with padding, the plain alphabet, and text in UTF-8 inside. At most twenty are listed."""
    bad = ["aGVsbG8", "a_-=", "aGVs\nbG8=", base64.b64encode(b"\xff").decode(), "ü"]
    with pytest.raises(RequestRejected) as refused:
        read(tensor("word", [*coded("fine"), *bad], "base64"), tensor("day", DAYS * 3, None), NUMBERS)
    assert [cell.path for cell in refused.value.cells] == [f"inputs[0].data[{at}]" for at in range(1, 6)]
    assert "no text in UTF-8" in refused.value.cells[3].message
    assert all("not base64 (RFC 4648" in cell.message for at, cell in enumerate(refused.value.cells) if at != 3)
    with pytest.raises(RequestRejected) as refused:
        read(tensor("word", bad * 50, "base64"), tensor("day", DAYS, None), NUMBERS)
    assert len(refused.value.cells) == 20


def test_a_cell_that_is_no_string_is_refused_as_without_a_content_type() -> None:
    """The conversion of the column names it."""
    with pytest.raises(RequestRejected) as refused:
        read(tensor("word", [1, "YQ=="], "base64"), tensor("day", DAYS, None), NUMBERS)
    assert refused.value.cells[0].path == "inputs[0].data[0] (word)"


@pytest.mark.parametrize("kind", ["np", "pd", "", None])
def test_content_types_of_a_request(kind: Any) -> None:
    """np and pd are how a table is read anyway."""
    content_types.check_request({"content_type": kind}, [("FP64", None), ("BYTES", {})])


def test_str_for_a_whole_request() -> None:
    """It holds for each input without one of its own, and these are text."""
    content_types.check_request({"content_type": "str"}, [("BYTES", None), ("FP64", {"content_type": "np"})])
    with pytest.raises(
        RequestRejected, match=r"parameters.content_type: 'str' is for inputs of datatype BYTES, and inp"
    ):
        content_types.check_request({"content_type": "str"}, [("BYTES", None), ("FP64", {})])


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("base64", "'base64' is for one input: write it in 'inputs.0..parameters'; known here: np, pd, str"),
        ("datetime", "'datetime' is for one input"),
        ("json", "unknown content type; known here: np, pd, str"),
        ([], "expected a string, one of np, pd, str"),
    ],
)
def test_other_content_types_of_a_request(kind: Any, message: str) -> None:
    """They are refused, and those of an input are sent there."""
    with pytest.raises(RequestRejected, match=f"parameters.content_type: {message}"):
        content_types.check_request({"content_type": kind}, [])


def test_numpy_cells_are_left_alone() -> None:
    """np does not copy what a binary tensor holds."""
    cells = np.array([1.0])
    assert content_types.decoded(cells, {"content_type": "np"}, "FP64", (), "inputs[0]") is cells
