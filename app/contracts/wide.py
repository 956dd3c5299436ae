"""The form of `contract.json` for a table of many columns: equal columns are written once, and most cells not at all.

Written in full, 20,000 columns and their golden rows take some 13 MB. Here the names are most of the file.
"""

from __future__ import annotations

from collections import Counter
from itertools import groupby
from typing import Any

MIN_COLUMNS = 1000
"""Tables of more columns are written in this form."""
MARK = b'"column_groups"'
"""Bytes that only a contract in this form has."""


def pack(content: dict[str, Any]) -> dict[str, Any]:
    """Return the content of a contract with `input.columns` and `golden.rows` in the short form.

    Neighbouring columns that differ only in name become one group with their names. A row becomes its most frequent
    cell and the other cells by position.
    """
    columns = content["input"]["columns"]
    groups = [{"names": [column["name"] for column in members], **properties} for properties, members in _runs(columns)]
    table = {key: value for key, value in content["input"].items() if key != "columns"}
    golden = {key: value for key, value in content["golden"].items() if key != "rows"}
    rows = [_pack_row(row) for row in content["golden"]["rows"]]
    return {**content, "input": {**table, "column_groups": groups}, "golden": {**golden, "sparse_rows": rows}}


def _runs(columns: list[dict[str, Any]]) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    def properties(column: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in column.items() if key != "name"}

    return [(shared, list(members)) for shared, members in groupby(columns, properties)]


def _pack_row(row: list[Any]) -> dict[str, Any]:
    # By their text, because 0.0 equals -0.0 and False.
    texts = [repr(cell) for cell in row]
    ((frequent, _),) = Counter(texts).most_common(1)
    others = {str(at): cell for at, (text, cell) in enumerate(zip(texts, row, strict=True)) if text != frequent}
    return {"fill": row[texts.index(frequent)], "cells": others}


def unpack(content: dict[str, Any]) -> dict[str, Any]:
    """Return the content in its full form. Raises LookupError, TypeError, ValueError or AttributeError."""
    columns = [
        {"name": name, **{key: value for key, value in group.items() if key != "names"}}
        for group in content["input"]["column_groups"]
        for name in group["names"]
    ]
    table = {key: value for key, value in content["input"].items() if key != "column_groups"}
    golden = {key: value for key, value in content["golden"].items() if key != "sparse_rows"}
    rows = [_unpack_row(row, len(columns)) for row in content["golden"]["sparse_rows"]]
    return {**content, "input": {**table, "columns": columns}, "golden": {**golden, "rows": rows}}


def _unpack_row(row: dict[str, Any], width: int) -> list[Any]:
    cells = [row["fill"]] * width
    for at, cell in row["cells"].items():
        cells[int(at)] = cell
    return cells
