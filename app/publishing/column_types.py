"""The types that a trainer declares (`--types`), and the conversion of columns to them, exactly or not at all.

A declared type is a dtype of numpy or pandas by its name: `int64`, `float32`, `bool`, `str`, `object` (text as Python's
str), `string`, `Int64`, `boolean`, `category`, `category[int64]`, `datetime64[ns]`, `datetime64[us, Europe/Vienna]`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from tableside.contracts.conversion import dates_with_zone
from tableside.contracts.schema import Column
from tableside.decoding import dates
from tableside.decoding.cells import to_array
from tableside.decoding.csv_tables import cell_of_text
from tableside.decoding.rules import Problems
from tableside.errors import PublishFailed
from tableside_contract.csv_types import MISSING_WORDS

Series: TypeAlias = "pd.Series[Any]"
Types = Mapping[str, str]
"""Column name to the name of a dtype."""

_INTEGERS = tuple(f"{u}int{size}" for u in ("", "u") for size in (8, 16, 32, 64))
_NULLABLE_INTEGERS = tuple(f"{u}Int{size}" for u in ("", "U") for size in (8, 16, 32, 64))
_FLOATS = ("float16", "float32", "float64", "Float32", "Float64")
_TEXT = ("str", "object", "string")
_DATE = re.compile(r"datetime64\[(s|ms|us|ns)(, ?[^\]]+)?\]")
_CATEGORY = re.compile(r"category(?:\[(\w+)\])?")
_DATATYPES = {
    **dict.fromkeys((*_INTEGERS, *_NULLABLE_INTEGERS), "INT64"), **dict.fromkeys(_FLOATS, "FP64"),
    **dict.fromkeys(("bool", "boolean"), "BOOL"), **dict.fromkeys(_TEXT, "BYTES"),
}  # fmt: skip
HELP = "int64, float64, bool, str, category, datetime64[ns] or another dtype of numpy or pandas"


def parse(text: str) -> dict[str, str]:
    """Return the types of `COLUMN=DTYPE,...`, or of a JSON file with an object of them. Raises PublishFailed."""
    if "=" not in text or Path(text).is_file():
        return _from_file(Path(text))
    types = {}
    for part in re.split(r",(?![^\[]*\])", text):
        name, has_type, dtype = part.rpartition("=")
        if not has_type:
            raise PublishFailed(
                f"--types: {part!r} is not COLUMN=DTYPE. Write for instance --types zip=str,born=datetime64[ns]"
            )
        types[name] = dtype.strip()
    return check(types)


def _from_file(path: Path) -> dict[str, str]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as problem:
        raise PublishFailed(
            f"--types {path}: {getattr(problem, 'strerror', None) or problem}. Give COLUMN=DTYPE,... "
            "or a JSON file, such as "
            "frame.dtypes.astype(str).to_json() "
            "writes it"
        ) from problem
    if not isinstance(content, dict) or not all(isinstance(dtype, str) for dtype in content.values()):
        raise PublishFailed(f"--types {path}: expected an object of column names and dtypes")
    return check(content)


def check(types: Types) -> dict[str, str]:
    """Return the types. Raises PublishFailed for a dtype that no column of a contract can have."""
    for name, dtype in types.items():
        category = _CATEGORY.fullmatch(dtype)
        is_known = dtype in _DATATYPES or (category and (category[1] or "str") in _DATATYPES)
        if not is_known and not is_date(dtype):
            raise PublishFailed(f"--types: column {name!r} has the dtype {dtype!r}, expected {HELP}")
    return dict(types)


def is_date(dtype: str) -> bool:
    """Whether this names a dtype of dates that pandas can make again from its name."""
    if not _DATE.fullmatch(dtype):
        return False
    try:
        pd.Series([], dtype=dtype)
    except (TypeError, ValueError, KeyError):
        return False
    return True


def date_dtype(texts: Sequence[str | None]) -> str | None:
    """Return the dtype of dates that these texts are, if each is one in ISO 8601; None if not."""
    present = [text for text in texts if text is not None]
    for dtype in ("datetime64[us]", "datetime64[us, UTC]"):
        if present and all(dates.is_date(text) for text in present):
            try:
                of_text(texts, dtype, "")
            except PublishFailed:  # with another kind of zone, or finer than microseconds
                continue
            return dtype
    return None


def of_text(texts: Sequence[str | None], dtype: str, label: str) -> Series:
    """Convert the texts of a CSV column; None is a missing value, and MISSING_WORDS are where text is not declared.

    Raises PublishFailed that names the first bad row.
    """
    if dtype not in _TEXT and dtype not in ("category", *(f"category[{text}]" for text in _TEXT)):
        texts = [None if text in MISSING_WORDS else text for text in texts]
    if (category := _CATEGORY.fullmatch(dtype)) is not None:
        inner = of_text(texts, category[1] or "str", label)
        return inner.astype(pd.CategoricalDtype(sorted(inner.dropna().unique().tolist())))
    return _decoded(texts, dtype, label)


def _decoded(texts: Sequence[str | None], dtype: str, label: str) -> Series:
    """Convert texts as the cells of a CSV request are, so that the sample has what a client's table would have."""
    datatype = "BYTES" if dtype.startswith("datetime64") else _DATATYPES[dtype]
    column = Column(label, datatype, dtype, nullable=True)  # type: ignore[arg-type]
    problems = Problems()
    cells = [None if text is None else cell_of_text(text, column) for text in texts]
    array = to_array(cells, column, problems, lambda row: f"row {row + 1}")
    if problems:
        first = problems.found[0]
        raise PublishFailed(
            f"column {label!r} is declared as {dtype}, but the sample's {first.path} is not: {first.message}. Correct "
            "--types or the sample"
        )
    if dtype in _INTEGERS and array.dtype.kind == "f":
        raise PublishFailed(
            f"column {label!r} is declared as {dtype}, but the sample has missing cells there. Declare it as float64, "
            f"which is how pandas reads it, or as {dtype.replace('u', 'U', 1).replace('int', 'Int')}"
        )
    return _series(array, dtype)


def _series(array: Any, dtype: str) -> Series:
    if dtype.startswith("datetime64"):
        return dates_with_zone(array, dtype)
    if dtype == "object" or (array.dtype == object and dtype == "bool"):
        return pd.Series(array, dtype=object)
    named: Any = dtype  # the stubs list every name of a dtype; this one is known at run time
    series: Series = pd.Series(pd.array(array, dtype=named) if dtype[0].isupper() else array).astype(named)
    return series


def apply(frame: pd.DataFrame, types: Types) -> pd.DataFrame:
    """Return the frame with columns converted to their declared types. Raises PublishFailed if a cell would change."""
    check(types)
    by_name = {str(name): name for name in frame.columns}
    columns = {}
    for name, dtype in types.items():
        if name not in by_name:
            raise PublishFailed(
                f"--types names the column {name!r}, which the sample does not have. Its columns: {', '.join(by_name)}"
            )
        columns[by_name[name]] = _cast(frame[by_name[name]], dtype, name)
    return frame.assign(**columns) if all(isinstance(name, str) for name in columns) else _assigned(frame, columns)


def _assigned(frame: pd.DataFrame, columns: Mapping[Any, Series]) -> pd.DataFrame:
    return pd.DataFrame({name: columns.get(name, frame[name]) for name in frame.columns})


def _cast(series: Series, dtype: str, label: str) -> Series:
    if str(series.dtype) == dtype or (dtype.startswith("category") and str(series.dtype) == "category"):
        return series
    present = series.dropna()
    if all(isinstance(value, str) for value in present):
        cells = [None if is_missing else value for value, is_missing in zip(series, series.isna(), strict=True)]
        return of_text(cells, dtype, label).set_axis(series.index)
    if dtype in _TEXT:
        raise PublishFailed(
            f"column {label!r} is declared as {dtype}, but the sample holds {series.dtype}, which has "
            "lost how the text "
            "was written. Give a sample with the text itself: a Parquet or CSV file that was written "
            "from the training data"
        )
    inner = _CATEGORY.fullmatch(dtype)
    wanted: Any = "category" if inner else dtype
    try:
        cast: Series = series.astype(wanted)
    except (TypeError, ValueError, OverflowError) as problem:
        raise PublishFailed(
            f"column {label!r} is declared as {dtype}, but the sample holds {series.dtype}: {problem}"
        ) from problem
    if not _is_same(series, cast):
        raise PublishFailed(
            f"column {label!r} is declared as {dtype}, but the sample holds {series.dtype} that this type would change"
        )
    return cast


def _is_same(series: Series, cast: Series) -> bool:
    kept = series.notna().to_numpy()
    if not np.array_equal(kept, cast.notna().to_numpy()):
        return False
    return all(one == other for one, other in zip(series[kept].tolist(), cast[kept].tolist(), strict=True))
