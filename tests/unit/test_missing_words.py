"""Words such as `nan` stand for a missing cell in CSV and text tensors, unless the model knows them as a category."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tableside.contracts.schema import Column, Input
from tableside.contracts.table import Table
from tableside.decoding import binary
from tableside.decoding.csv_tables import from_csv
from tableside.decoding.json_tables import from_columns, from_rows
from tableside.decoding.rules import STRICT, Rules
from tableside.decoding.tensors import Tensor, from_tensors
from tableside.errors import RequestRejected

TAKES = Column("city", "BYTES", "object", nullable=True, categories=("Rome", "Oslo"))
WORDS = ("nan", "NaN", "None", "null", "<NA>")


def schema(*columns: Column) -> Input:
    return Input("frame", (*columns, Column("n", "FP64", "float64")))


def cities(table: Table) -> list[Any]:
    """The cells of the first column, None for a missing one."""
    assert table.arrays is not None
    cells: list[Any] = table.arrays[table.schema.columns[0].name].tolist()
    return [None if cell is None or cell != cell else cell for cell in cells]


def in_csv(words: tuple[str, ...], column: Column, rules: Rules = STRICT) -> Table:
    lines = "".join(f"{word},1\n" for word in words)
    return from_csv(f"{column.name},n\n{lines}".encode(), schema(column), rules)


def in_json_tensor(words: tuple[str, ...], column: Column, rules: Rules = STRICT) -> Table:
    numbers = Tensor("n", [len(words)], "FP64", [1.0] * len(words))
    return from_tensors([Tensor(column.name, [len(words)], "BYTES", list(words)), numbers], schema(column), rules)


def in_binary_tensor(words: tuple[str, ...], column: Column, rules: Rules = STRICT) -> Table:
    raw = binary.write(np.array(words, dtype=object), "BYTES")
    tensor = Tensor(column.name, [len(words), 1], "BYTES", parameters={"binary_data_size": len(raw)})
    numbers = Tensor("n", [len(words)], "FP64", [1.0] * len(words))
    return from_tensors([tensor, numbers], schema(column), rules, memoryview(raw))


def in_matrix_tensor(words: tuple[str, ...], column: Column, rules: Rules = STRICT) -> Table:
    data = [each for word in words for each in (word, "x")]
    columns = Input("frame", (column, Column("other", "BYTES", "object")))
    return from_tensors([Tensor("input-0", [len(words), 2], "BYTES", data)], columns, rules)


FORMATS = pytest.mark.parametrize("read", [in_csv, in_json_tensor, in_binary_tensor, in_matrix_tensor])


@FORMATS
def test_a_word_is_a_missing_cell(read: Any) -> None:
    """Every word is one, beside text that is none; `NA` is the country code of Namibia. The cells are counted."""
    table = read((*WORDS, "Rome", "NA", "Nan", "nanny", "NULL"), TAKES)
    assert cities(table) == [None] * 5 + ["Rome", "NA", "Nan", "nanny", "NULL"]
    assert dict(table.anomalies) == {("city", "missing_word"): 5}


@FORMATS
def test_a_trained_category_stays_text(read: Any) -> None:
    """An encoder that was fitted on the text `None` gets it."""
    column = Column("city", "BYTES", "object", nullable=True, categories=("None", "Rome"), closed=True)
    assert cities(read(("None", "nan", "Rome"), column)) == ["None", None, "Rome"]


@FORMATS
def test_a_column_without_missing_cells_takes_the_text(read: Any) -> None:
    """A column that takes no missing cells keeps the word; a closed one refuses it."""
    assert cities(read(("nan", "None"), Column("city", "BYTES", "object"))) == ["nan", "None"]
    with pytest.raises(RequestRejected) as refusal:
        read(("nan",), Column("city", "BYTES", "object", categories=("Rome",), closed=True))
    assert "not a category" in refusal.value.cells[0].message


@FORMATS
def test_words_can_be_chosen(read: Any) -> None:
    """model.toml lists the words of a column, or none; other columns keep the usual ones."""
    own = Rules(missing_words={"city": frozenset(("-", "n/a"))})
    assert cities(read(("-", "n/a", "nan"), TAKES, own)) == [None, None, "nan"]
    assert cities(read(WORDS, TAKES, Rules(missing_words={"city": frozenset()}))) == [*WORDS]
    assert cities(read(WORDS, TAKES, Rules(missing_words={"town": frozenset()}))) == [None] * 5


def test_json_has_null() -> None:
    """In JSON rows and columns a text is a text: a missing cell is written `null`."""
    assert cities(from_rows([["nan", 1.0], [None, 1.0]], schema(TAKES))) == ["nan", None]
    assert cities(from_columns({"city": ["None"], "n": [1.0]}, schema(TAKES))) == ["None"]


def test_dates_know_nat() -> None:
    """`NaT` is what pandas writes for a date that is missing; no other text has a meaning there."""
    date = Column("city", "BYTES", "datetime64[ns]", nullable=True)
    table = in_csv(("2026-11-26", "NaT", "None"), date)
    assert table.arrays is not None
    assert np.isnat(table.arrays["city"]).tolist() == [False, True, True]


def test_a_word_in_the_first_line_is_a_row() -> None:
    """A first line with a missing cell is no header, also for an encoder that refuses unknown text."""
    closed = Column("city", "BYTES", "object", nullable=True, categories=("Rome",), closed=True)
    assert from_csv(b"nan,1\nRome,2\n", schema(closed), STRICT).rows == 2
