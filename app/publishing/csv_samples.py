"""Reads a CSV sample as text, and gives each column its type: by what was declared, by the model, and last by its look.

A CSV file has no types: `00501` may be a text or the number 501, `True` a text or a boolean, `NA` a country or a
missing value. What the trainer declares comes first, then what the fitted model says (`readings`). Only where neither
says anything the look of the cells decides, and what looks like two things is refused.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv

from tableside.errors import PublishFailed
from tableside.publishing import column_types
from tableside.publishing.column_types import MISSING_WORDS, Series, Types
from tableside.publishing.readings import Known, Label

_WHOLE = re.compile(r"-?(0|[1-9]\d*)", re.ASCII)
_REAL = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]\d+)?|-?inf", re.ASCII)
"""Numbers as programs write them. Other spellings, such as 00501, +5 and 1e5, may be codes."""
_ANY_NUMBER = re.compile(r"\s*[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII)
_FLAGS = {"True": True, "False": False, "true": True, "false": False, "TRUE": True, "FALSE": False}
_ONE_AND_ZERO = {**_FLAGS, "1": True, "0": False, "1.0": True, "0.0": False}
_INT64 = 2**63
_SHOWN = 3

Texts = list[str | None]
"""The cells of one column; None is an empty cell that is not quoted."""


@dataclass
class Guesses:
    """The columns whose type only their look could tell, for a note."""

    whole: list[str] = field(default_factory=list)

    def notes(self) -> list[str]:
        if not self.whole:
            return []
        shown = ", ".join(self.whole[:_SHOWN]) + (", ..." if len(self.whole) > _SHOWN else "")
        count = f"{len(self.whole)} columns ({shown})" if len(self.whole) > 1 else f"the column {shown}"
        return [
            f"the model does not say what {count} of the CSV sample holds; whole numbers were read. "
            "If it was text, add "
            f"--types {self.whole[0]}=str, or give a Parquet sample"
        ]


def read_text(path: Path) -> dict[str, Texts]:
    """Return the columns of a CSV file with a header line as text. Raises PublishFailed."""
    try:
        body = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
        names = next(csv.reader(io.StringIO(body.decode(), newline="")), [])
    except (OSError, ValueError, csv.Error) as problem:
        raise PublishFailed(f"{path}: {problem}") from problem
    if not names:
        raise PublishFailed(f"{path}: the file is empty; a header line with the names of the columns was expected")
    for name, count in Counter(names).items():
        if count > 1:
            raise PublishFailed(f"{path}: the sample has more than one column {name!r}. Give each column its own name")
    fields = [str(at) for at in range(len(names))]
    try:
        table = arrow_csv.read_csv(
            pa.BufferReader(body),
            read_options=arrow_csv.ReadOptions(column_names=fields, block_size=min(len(body) + 2, 2**31 - 1)),
            parse_options=arrow_csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=len(names) > 1),
            convert_options=arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(fields, pa.string()), strings_can_be_null=True, null_values=[""],
                quoted_strings_can_be_null=False,
            ),
        )  # fmt: skip
    except pa.ArrowException as problem:
        raise PublishFailed(f"{path}: {problem}") from problem
    return {name: table.column(at).to_pylist()[1:] for at, name in enumerate(names)}


def typed(columns: Mapping[str, Texts], types: Types, known: Mapping[Label, Known], guesses: Guesses) -> pd.DataFrame:
    """Return the columns as a DataFrame with the declared types, those of the model, or those that they look like.

    Raises PublishFailed for a column whose type stays open, with what to declare.
    """
    frame = {}
    for name, texts in columns.items():
        if name in types:
            frame[name] = column_types.of_text(texts, types[name], name)
        else:
            alone = len(columns) == 1
            frame[name] = (
                _of_known(texts, known[name], name, alone) if name in known else _of_look(texts, name, guesses)
            )
    return pd.DataFrame(frame)


def _of_known(texts: Texts, known: Known, name: str, alone: bool) -> Series:
    if known.reading == "text":
        return _text(texts, known, name, alone)
    if known.reading == "date":
        return column_types.of_text(texts, "datetime64[ns]", name)
    present = _without_missing(texts)
    if known.reading == "boolean" or (known.reading == "numeric" and set(present) - {None} <= _FLAGS.keys()):
        values = [None if text is None else _ONE_AND_ZERO.get(text.strip(), text) for text in present]
        if not any(isinstance(value, str) for value in values):
            return _booleans(values)
    elif (numbers := _numbers(present)) is not None:
        is_float = any(isinstance(value, (float, np.floating)) for value in known.values)
        return numbers.astype("float64") if is_float else numbers
    odd = next(text for text in present if text is not None and not _is_of(text, known))
    raise PublishFailed(
        f"column {name!r}: {known.describe()}, but the CSV sample has {odd[:40]!r} there, which is "
        "none. If the model was "
        f"trained on text, add --types {name}=str; otherwise correct the sample, or give a Parquet sample"
    )


def _is_of(text: str, known: Known) -> bool:
    return text.strip() in _ONE_AND_ZERO if known.reading == "boolean" else bool(_ANY_NUMBER.fullmatch(text))


def _text(texts: Texts, known: Known, name: str, alone: bool) -> Series:
    """Text with its missing cells: which words stand for a missing cell, the encoder's categories say."""
    values = set(known.values)
    cells = list(texts)
    if alone and "" not in values:  # pandas writes a missing cell of a single column as ""
        cells = [cell or None for cell in cells]
    if None in cells and "" in values:
        if known.missing:
            raise PublishFailed(
                f"column {name!r}: {known.describe()}, the empty text among them, and on missing "
                "cells. A CSV sample writes "
                "both as an empty cell: give a Parquet sample"
            )
        cells = ["" if cell is None else cell for cell in cells]
    words = {cell for cell in cells if cell in MISSING_WORDS} - values
    if words and not values:
        raise PublishFailed(_ambiguous_word(name, sorted(words)[0]))
    cells = [None if cell in words else cell for cell in cells]
    return pd.Series(cells, dtype=pd.StringDtype(na_value=np.nan))


def _ambiguous_word(name: str, word: str) -> str:
    return (
        f"column {name!r} has the cell {word!r}, which could be a text or a missing cell. Add --types "
        f"{name}=str if it is a "
        "text (an empty cell is then the missing one), or give a Parquet sample"
    )


def _without_missing(texts: Texts) -> Texts:
    return [None if text is None or text.strip() in MISSING_WORDS or not text.strip() else text for text in texts]


def _booleans(values: Sequence[object]) -> Series:
    if None not in values:
        return pd.Series(values, dtype=bool)
    cells = np.empty(len(values), dtype=object)
    cells[:] = [np.nan if value is None else value for value in values]
    return pd.Series(cells, dtype=object)


def _numbers(texts: Texts) -> Series | None:
    """Return whole numbers as int64 (float64 beside a missing cell, as pandas reads them), others as float64."""
    column = pc.utf8_trim_whitespace(pa.array(texts, pa.string()))
    present = [text for text in texts if text is not None]
    if not all(_ANY_NUMBER.fullmatch(text) or text.strip() in ("inf", "-inf") for text in present):
        return None
    if present and len(present) == len(texts) and all(re.fullmatch(r"[+-]?\d+", text.strip()) for text in present):
        whole = [int(text) for text in present]
        if all(-_INT64 <= value < _INT64 for value in whole):
            return pd.Series(whole, dtype="int64")
        if all(0 <= value < 2 * _INT64 for value in whole):
            return pd.Series(whole, dtype="uint64")
    try:
        return pd.Series(pc.cast(column, pa.float64()).to_numpy(zero_copy_only=False))
    except pa.ArrowInvalid:  # such as +5, which Python reads
        return pd.Series([np.nan if text is None else float(text) for text in texts], dtype="float64")


def _of_look(texts: Texts, name: str, guesses: Guesses) -> Series:
    present = [text for text in _without_missing(texts) if text is not None]
    if all(_REAL.fullmatch(text) for text in present):
        if present and all(_WHOLE.fullmatch(text) for text in present):
            guesses.whole.append(name)
        numbers = _numbers(_without_missing(texts))
        assert numbers is not None
        return numbers
    if all(text in _FLAGS for text in present):
        raise PublishFailed(_ambiguous(name, present[0], "a boolean", "bool"))
    if all(_ANY_NUMBER.fullmatch(text) for text in present):
        odd = next(text for text in present if not _REAL.fullmatch(text))
        raise PublishFailed(_ambiguous(name, odd, f"the number {float(odd):g}", "float64"))
    if column_types.date_dtype(_without_missing(texts)):
        raise PublishFailed(_ambiguous(name, present[0], "a date", "datetime64[ns]"))
    word = next((text for text in texts if text in MISSING_WORDS), None)
    if word is not None:
        raise PublishFailed(_ambiguous_word(name, word))
    return pd.Series(list(texts), dtype=pd.StringDtype(na_value=np.nan))


def _ambiguous(name: str, text: str, other: str, dtype: str) -> str:
    return (
        f"column {name!r} has the cell {text[:40]!r}, which could be a text or {other}, and the model "
        "does not say which. "
        f"Add --types {name}=str or --types {name}={dtype}, or give a Parquet sample, which has types"
    )


def labels(names: Sequence[str]) -> list[Label]:
    """Return the names; as numbers if all are, as pandas writes them from a DataFrame with numbers as names.

    0, 1, 2 and so on are no such names: pandas writes them for a table without names.
    """
    are_whole = bool(names) and all(_WHOLE.fullmatch(name) for name in names)
    return [int(name) for name in names] if are_whole and list(names) != [*map(str, range(len(names)))] else [*names]
