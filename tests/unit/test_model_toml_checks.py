"""What model.toml says and the published versions contradict is a sentence for `list` and `reload`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tableside.contracts import schema
from tableside.contracts.schema import Column, Input
from tableside.repository import model_toml
from tableside.repository.model_toml_checks import contradictions
from tests.fakes import sum_contract

TABLE = Input(
    "frame",
    (
        Column("city", "BYTES", "object", nullable=True),
        Column("plan", "BYTES", "object"),
        Column("age", "FP64", "float64", nullable=True),
    ),
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number in (1, 2):
        folder = tmp_path / "sums" / str(number)
        folder.mkdir(parents=True)
        made = sum_contract(TABLE if number == 1 else Input("frame", TABLE.columns[1:]), version=number)
        (folder / "contract.json").write_bytes(schema.encode(made))
    return tmp_path


def found(root: Path, text: str) -> list[str]:
    (root / "sums" / "model.toml").write_text(text)
    return contradictions(root, "sums", model_toml.read(root, "sums"))


def test_what_fits_is_not_reported(root: Path) -> None:
    """A column of one served version is enough."""
    assert found(root, "[aliases]\nbest = 2\n[columns.missing_words]\ncity = ['-']\n") == []


def test_a_column_that_no_version_has(root: Path) -> None:
    """With the names there are; a version that is not served does not count."""
    assert found(root, "[columns.missing_words]\nctiy = ['-']\n") == [
        "columns.missing_words in model.toml names the column 'ctiy', which no served version has; there are city, "
        "plan, age"
    ]
    assert found(root, "versions = 'latest'\n[columns.missing_words]\ncity = ['-']\n") == [
        "columns.missing_words in model.toml names the column 'city', which no served version has; there are plan, age"
    ]


@pytest.mark.parametrize("column", ["plan", "age"])
def test_a_column_in_which_words_have_no_effect(root: Path, column: str) -> None:
    """One of numbers, and one that accepts no missing cells."""
    assert found(root, f"[columns.missing_words]\n{column} = ['-']\n") == [
        f"columns.missing_words in model.toml names the column '{column}', which is none of text that accepts missing "
        "cells, so that they have no effect"
    ]


def test_a_misspelt_default(root: Path) -> None:
    """It would be one alias more, and hold no traffic. Beside a `default` it is meant as it is."""
    assert found(root, "[aliases]\ndefualt = 1\n") == [
        "alias 'defualt' in model.toml does not answer requests without a version. Did you mean 'default'?"
    ]
    assert found(root, "[aliases]\ndefualt = 1\ndefault = 2\nbest = 2\n") == []


def test_dangling_aliases_and_broken_contracts(root: Path) -> None:
    """An alias is reported beside columns; a contract that cannot be read has a problem of its own."""
    (root / "sums" / "1" / "contract.json").write_text("{")
    assert found(root, "[aliases]\nbest = 9\n[columns.missing_words]\nnone = []\n") == [
        "alias 'best' in model.toml points at version 9, which does not exist",
        "columns.missing_words in model.toml names the column 'none', which no served version has; there are plan, age",
    ]
    (root / "sums" / "2" / "contract.json").write_text("{")
    assert found(root, "[columns.missing_words]\nnone = []\n") == []
