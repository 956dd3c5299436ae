"""Words that stand for a missing cell where a format has none for text: CSV, and text tensors of V2.

numpy and pandas write a missing cell as text in such places: `str(float("nan"))` is `nan`, `str(None)` is `None`, and
`str(pandas.NA)` is `<NA>`. `NA` is no such word: it is the country code of Namibia.
"""

from __future__ import annotations

from collections.abc import Set
from typing import cast

import numpy as np

from tableside.contracts.schema import Column
from tableside.decoding.numpy_columns import as_cells
from tableside.decoding.rules import Cells, Problems, Rules

WORDS = frozenset(("nan", "NaN", "None", "null", "<NA>"))
"""The words of a column for which model.toml has no list of its own."""
DATE_WORDS = WORDS | {"NaT"}
"""The words of a column of dates, in which no text but a date has a meaning."""


def of_column(column: Column, rules: Rules) -> Set[str]:
    """Return the words that are read as a missing cell: none where the column takes none, and no trained category."""
    if column.datatype != "BYTES" or not column.nullable:
        return frozenset()
    words = _chosen(column, rules)
    return words.difference(cast("tuple[str, ...]", column.categories)) if column.categories else words


def _chosen(column: Column, rules: Rules) -> frozenset[str]:
    words = rules.missing_words.get(column.name)
    if words is None:
        return DATE_WORDS if column.is_date else WORDS
    return words


def without_words(values: Cells, column: Column, problems: Problems) -> Cells:
    """Return the values with None for each word, and count them in `problems`.

    values: of shape [rows], as text and None; others are returned as they are, for the conversion to refuse.
    """
    if column.datatype != "BYTES" or not column.nullable:
        return values
    if isinstance(values, np.ndarray) and values.dtype.kind not in "OU":
        return values
    cells = as_cells(values) if isinstance(values, np.ndarray) else values
    try:
        if _chosen(column, problems.rules).isdisjoint(cells):
            return values
    except TypeError:  # an array or object among the cells
        return values
    words = of_column(column, problems.rules)  # a column may have many categories: they are looked at only here
    found = [cell in words for cell in cells]
    if not any(found):
        return values
    problems.note("missing_word", sum(found))
    return [None if is_word else cell for cell, is_word in zip(cells, found, strict=True)]
