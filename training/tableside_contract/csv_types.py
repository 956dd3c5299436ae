"""Gives each column of a CSV sample its type: by what was declared, by the model, or by what the model takes.

A CSV file has no types: `00501` may be a text or the number 501, `True` a text or a boolean, `NA` a country or a
missing value. What the trainer declares comes first, then what the fitted model says (`readings`). Where neither says
anything, the model is asked: it is called with each reading of the cells, and one that it alone answers is the type.
What stays open is refused. How a cell looks decides only what it can be, and never what it is. Compatible with Python
3.8.
"""

from __future__ import annotations

import re
from typing import Any, Callable, List, Mapping, NamedTuple, Optional, Sequence

import numpy as np
import pandas as pd

from tableside_contract import model_choice
from tableside_contract.errors import RecordFailed
from tableside_contract.model_choice import Ask, Decision
from tableside_contract.readings import Known, Label

MISSING_WORDS = frozenset(
    ("NA", "N/A", "n/a", "#N/A", "#NA", "NaN", "nan", "-NaN", "-nan", "NULL", "null", "None", "<NA>", "NaT")
)
"""The words that pandas, R and spreadsheets write for a missing value."""
_WHOLE = re.compile(r"-?(0|[1-9]\d*)", re.ASCII)
_REAL = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]\d+)?|-?inf", re.ASCII)
"""Numbers as programs write them. Other spellings, such as 00501, +5 and 1e5, are probably codes."""
_ANY_NUMBER = re.compile(r"\s*[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII)
_FLAGS = {"True": True, "False": False, "true": True, "false": False, "TRUE": True, "FALSE": False}
_ONE_AND_ZERO = {**_FLAGS, "1": True, "0": False, "1.0": True, "0.0": False}
_INT64 = 2**63
_SHOWN = 3
_TEXT_DTYPE: Any = "str" if int(pd.__version__.partition(".")[0]) >= 3 else object

Series = Any
"""A pandas.Series."""
Texts = List[Optional[str]]
"""The cells of one column; None is an empty cell that is not quoted."""
Convert = Callable[[Sequence[Optional[str]], str, str], Series]
"""Converts the cells of a column to a declared dtype: cells, dtype, the column's name."""
DateDtype = Callable[[Sequence[Optional[str]]], Optional[str]]
"""Returns the dtype of dates that all cells are; None if they are none."""


class Rules(NamedTuple):
    """What decides: declared types, what the model says, the columns that it drops, and how to ask it.

    ask: None where there is no model to ask.
    """

    types: Mapping[str, str]
    known: Mapping[Label, Known]
    dropped: Sequence[Label]
    convert: Convert
    date_dtype: DateDtype
    ask: Ask | None


class Open(NamedTuple):
    """A column whose cells can be read as text or as something else. canonical: whether all are written as programs
    write them, so that the other reading keeps how they are written. dtype: what to declare for the other reading.
    """

    text: Series
    other: Series
    canonical: bool
    dtype: str
    cell: str
    words: str


def typed(columns: Mapping[str, Texts], rules: Rules) -> tuple[Any, list[str]]:
    """Return the columns as a DataFrame, and notes. Raises RecordFailed for a column whose type stays open."""
    frame: dict[str, Series] = {}
    open_columns: dict[str, Open] = {}
    for name, texts in columns.items():
        if name in rules.types:
            frame[name] = rules.convert(texts, rules.types[name], name)
        elif name in rules.known:
            frame[name] = _of_known(texts, rules.known[name], name, len(columns) == 1, rules.convert)
        else:
            found = _of_look(texts, name, name in rules.dropped, rules)
            if isinstance(found, Open):
                open_columns[name] = found
                frame[name] = found.other
            else:
                frame[name] = found
    if not open_columns:
        return pd.DataFrame(frame), []
    return _asked(frame, open_columns, rules.ask)


def _asked(frame: dict[str, Series], open_columns: dict[str, Open], ask: Ask | None) -> tuple[Any, list[str]]:
    """Let the model decide the columns that can be read in two ways."""
    if ask is None:
        raise RecordFailed(_undecided(open_columns))
    texts = {name: each.text for name, each in open_columns.items()}
    choice = model_choice.choose(pd.DataFrame(frame), texts, ask)
    undecided = {name: each for name, each in open_columns.items() if _is_undecided(each, choice.of[name])}
    if undecided:
        raise RecordFailed(_undecided(undecided))
    frame = {**frame, **{name: texts[name] for name in texts if choice.of[name] == "text"}}
    alike = [name for name in open_columns if choice.of[name] == "alike"]
    return pd.DataFrame(frame), [_alike(alike)] if alike else []


def _is_undecided(column: Open, decision: Decision) -> bool:
    """Whether the trainer has to say it. That a column holds dates does not say in which unit the model had them."""
    if decision == "alike":
        return not column.canonical
    return decision == "open" or (decision == "other" and column.dtype.startswith("datetime64"))


def _alike(names: list[str]) -> str:
    shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
    return (
        f"the model answers text and numbers alike in {shown} of the CSV sample, so these are numbers. If clients send "
        f"text, add --types {names[0]}=str, or give a Parquet sample"
    )


def _undecided(columns: dict[str, Open]) -> str:
    name, first = next(iter(columns.items()))
    text = (
        f"column {name!r} has the cell {first.cell[:40]!r}, which could be a text or {first.words}, and the model does "
        f"not say which. Add --types {name}=str or --types {name}={first.dtype}, or give a Parquet sample, which has "
        "types"
    )
    if len(columns) > 1:
        words = ",".join(f"{each}={found.dtype}" for each, found in columns.items())
        text += f". {len(columns)} columns are open; if none is text: --types {words}"
    return text


def _of_known(texts: Texts, known: Known, name: str, alone: bool, convert: Convert) -> Series:
    if known.reading == "text":
        return _text(texts, known, name, alone)
    if known.reading == "date":
        return convert(texts, "datetime64[ns]", name)
    present = without_missing(texts)
    if known.reading == "boolean" or (known.reading == "numeric" and set(present) - {None} <= _FLAGS.keys()):
        values = [None if text is None else _ONE_AND_ZERO.get(text.strip(), text) for text in present]
        if not any(isinstance(value, str) for value in values):
            return _booleans(values)
    else:
        numbers = _numbers(present)
        if numbers is not None:
            is_float = any(isinstance(value, (float, np.floating)) for value in known.values)
            return numbers.astype("float64") if is_float else numbers
    odd = next(text for text in present if text is not None and not _is_of(text, known))
    raise RecordFailed(
        f"column {name!r}: {known.describe()}, but the CSV sample has {odd[:40]!r} there, which is none. If the model "
        f"was trained on text, add --types {name}=str; otherwise correct the sample, or give a Parquet sample"
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
            raise RecordFailed(
                f"column {name!r}: {known.describe()}, the empty text among them, and on missing cells. A CSV sample "
                "writes both as an empty cell: give a Parquet sample"
            )
        cells = ["" if cell is None else cell for cell in cells]
    words = {cell for cell in cells if cell in MISSING_WORDS} - values
    if words and not values:
        raise RecordFailed(_ambiguous_word(name, sorted(words)[0]))
    return text_series([None if cell in words else cell for cell in cells])


def text_series(cells: Texts) -> Series:
    """Return text with NaN for missing cells, of the dtype that this pandas gives to text."""
    return pd.Series([np.nan if cell is None else cell for cell in cells], dtype=_TEXT_DTYPE)


def _ambiguous_word(name: str, word: str) -> str:
    return (
        f"column {name!r} has the cell {word!r}, which could be a text or a missing cell. Add --types {name}=str if it "
        "is a text (an empty cell is then the missing one), or give a Parquet sample"
    )


def without_missing(texts: Texts) -> Texts:
    """Return the cells with None for the words that stand for a missing one, and for blank ones."""
    return [None if text is None or text.strip() in MISSING_WORDS or not text.strip() else text for text in texts]


def _booleans(values: Sequence[object]) -> Series:
    if None not in values:
        return pd.Series(values, dtype=bool)
    cells = np.empty(len(values), dtype=object)
    cells[:] = [np.nan if value is None else value for value in values]
    return pd.Series(cells, dtype=object)


def _numbers(texts: Texts) -> Series | None:
    """Return whole numbers as int64 (float64 beside a missing cell, as pandas reads them), others as float64."""
    present = [text for text in texts if text is not None]
    if not all(_ANY_NUMBER.fullmatch(text) or text.strip() in ("inf", "-inf") for text in present):
        return None
    if present and len(present) == len(texts) and all(re.fullmatch(r"[+-]?\d+", text.strip()) for text in present):
        whole = [int(text) for text in present]
        if all(-_INT64 <= value < _INT64 for value in whole):
            return pd.Series(whole, dtype="int64")
        if all(0 <= value < 2 * _INT64 for value in whole):
            return pd.Series(whole, dtype="uint64")
    return pd.Series([np.nan if text is None else float(text) for text in texts], dtype="float64")


def _of_look(texts: Texts, name: str, is_dropped: bool, rules: Rules) -> Series | Open:
    """Return a column that can be only one thing, or both things that it can be.

    Of a column that the model drops nothing depends on the type: it becomes the narrowest one that it can be.
    """
    without = without_missing(texts)
    present = [text for text in without if text is not None]
    if not present and not any(texts):
        return pd.Series(np.full(len(texts), np.nan))
    found = _other_reading(texts, without, present, rules)
    if found is not None:
        return found.other if is_dropped and found.canonical else found.text if is_dropped else found
    word = next((text for text in texts if text in MISSING_WORDS), None)
    if word is not None and not is_dropped:
        raise RecordFailed(_ambiguous_word(name, word))
    return text_series(list(texts))


def _other_reading(texts: Texts, without: Texts, present: list[str], rules: Rules) -> Open | None:
    text = text_series(list(texts))
    if present and all(cell in _FLAGS for cell in present):
        flags = _booleans([None if cell is None else _FLAGS[cell] for cell in without])
        return Open(text, flags, True, "bool", present[0], "a boolean")
    numbers = _numbers(without) if present else pd.Series(np.full(len(texts), np.nan))
    if numbers is not None:
        odd = next((cell for cell in present if not _REAL.fullmatch(cell)), None)
        first = odd or next(iter(present), "NaN")
        declared = str(numbers.dtype) if odd is None else "float64"
        words = f"the number {float(first):g}" if present else "a missing cell"
        return Open(text, numbers, odd is None and bool(present), declared, first, words)
    dtype = rules.date_dtype(without)
    if dtype:
        dates = rules.convert(without, dtype, "")
        return Open(text, dates, True, "datetime64[ns]", present[0], "a date")
    return None


def labels(names: Sequence[str]) -> list[Label]:
    """Return the names; as numbers if all are, as pandas writes them from a DataFrame with numbers as names.

    0, 1, 2 and so on are no such names: pandas writes them for a table without names.
    """
    are_whole = bool(names) and all(_WHOLE.fullmatch(name) for name in names)
    return [int(name) for name in names] if are_whole and list(names) != [*map(str, range(len(names)))] else [*names]
