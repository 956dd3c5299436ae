"""The models that real clients ask, and one small table for each kind of value.

`kinds` has a column of each kind, `numbers` four columns of numbers, for clients that send one array, and `notes` one
column of text. Each answer depends on every cell, so that a cell that arrives changed changes the answer.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

from tableside.publishing.publish import publish

ROWS = 60
CITIES = ("Wien", "Köln", "Paris")
NOTES = ("a\0b", "Grüße", "plain", 'quoted "cell", and more')
KINDS = {
    "missing number": "amount", "missing text": "city", "unknown category": "city", "bool": "flag", "int": "count",
    "float32": "size", "date": "day", "text with NUL and umlauts": "note",
}  # fmt: skip
"""The kinds of values, each with the column of `kinds` that has such a cell."""


@dataclass(frozen=True)
class Asked:
    """A fitted model, and its tables by kind of value."""

    estimator: Any
    sample: pd.DataFrame
    tables: dict[str, pd.DataFrame]
    computed: dict[str, list[float]] = field(default_factory=dict)

    def answers(self, kind: str) -> list[float]:
        """What the estimator answers in memory."""
        if kind not in self.computed:
            table = self.tables[kind]
            given = table[table.columns[0]].tolist() if len(table.columns) == 1 else table
            self.computed[kind] = [float(each) for each in np.ravel(self.estimator.predict(given))]
        return self.computed[kind]


def _kinds() -> Asked:
    chance = np.random.default_rng(7)
    frame = pd.DataFrame(
        {
            "amount": chance.normal(100, 20, ROWS).round(2),
            "size": chance.normal(1, 0.2, ROWS).astype(np.float32),
            "count": chance.integers(-9, 9, ROWS),
            "flag": chance.integers(0, 2, ROWS).astype(bool),
            "city": pd.Series(chance.choice(CITIES, ROWS), dtype=object),
            "day": pd.date_range("2026-05-01T06:00", periods=6, freq="9h").repeat(ROWS // 6),
            "note": pd.Series(chance.choice(NOTES, ROWS), dtype=object),
        }
    )
    frame["day"] = frame["day"].astype("datetime64[ns]")
    frame.loc[::9, "amount"] = np.nan
    frame.loc[::7, "city"] = np.nan
    numbers = make_pipeline(SimpleImputer(add_indicator=True), StandardScaler())
    seen = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    table = ColumnTransformer(
        [
            ("numbers", numbers, ["amount", "size", "count"]),
            ("flag", "passthrough", ["flag"]),
            ("city", OneHotEncoder(handle_unknown="ignore"), ["city", "note"]),
            ("day", seen, ["day"]),
        ]
    )
    estimator = make_pipeline(table, Ridge()).fit(frame, np.sin(np.arange(ROWS) * 0.7))
    return Asked(estimator, frame, {kind: _with(frame, kind) for kind in KINDS})


def _with(frame: pd.DataFrame, kind: str) -> pd.DataFrame:
    """Three rows of the sample, of which the first has a cell of that kind, and otherwise no such cell."""
    rows = frame[frame["amount"].notna() & frame["city"].notna()].iloc[:3].reset_index(drop=True)
    cells: dict[str, Any] = {
        "missing number": np.nan, "missing text": np.nan, "unknown category": "Atlantis",
        "bool": not rows.loc[0, "flag"], "int": -7, "float32": np.float32(0.1),
        "date": pd.Timestamp("2026-05-02T09:00"), "text with NUL and umlauts": "a\0b",
    }  # fmt: skip
    rows.loc[0, KINDS[kind]] = cells[kind]
    if kind.startswith("text"):
        rows.loc[1, "note"] = "Grüße"
    return rows.astype(frame.dtypes.to_dict())


def _numbers() -> Asked:
    values = np.random.default_rng(8).integers(-40, 40, (ROWS, 4)) / 8  # of which float32 holds each exactly
    frame = pd.DataFrame(values, columns=["x0", "x1", "x2", "x3"])
    frame.iloc[::5, 1] = np.nan
    estimator = make_pipeline(SimpleImputer(add_indicator=True), Ridge()).fit(frame, np.cos(np.arange(ROWS)))
    rows = frame.dropna().iloc[:3].reset_index(drop=True)
    missing, whole = rows.copy(), pd.DataFrame(np.arange(12.0).reshape(3, 4), columns=frame.columns)
    missing.iloc[0, 1] = np.nan
    return Asked(estimator, frame, {"missing number": missing, "int": whole, "float32": rows})


def _notes() -> Asked:
    texts = [f"{NOTES[at % 4]} {at % 4}" for at in range(ROWS)]
    estimator = make_pipeline(TfidfVectorizer(analyzer="char"), Ridge()).fit(texts, np.sin(np.arange(ROWS)))
    cells = pd.Series(["a\0b", "Grüße, 日本"], dtype=object)
    sample = pd.DataFrame({"text": pd.Series(texts, dtype=object)})
    return Asked(estimator, sample, {"text with NUL and umlauts": pd.DataFrame({"text": cells})})


@cache
def asked() -> dict[str, Asked]:
    """The models by name."""
    return {"kinds": _kinds(), "numbers": _numbers(), "notes": _notes()}


def publish_all(root: Path) -> None:
    """Publish them into a repository."""
    for name, model in asked().items():
        sample = model.sample["text"].tolist() if name == "notes" else model.sample
        publish(name, model.estimator, sample, repository=root, runtime="sklearn")


def as_json(table: pd.DataFrame) -> list[tuple[str, str, list[Any]]]:
    """Name, dtype and cells of each column, for a program in another environment. Dates are ISO 8601 text."""
    found = []
    for name, column in table.items():
        cells = [None if cell is None or cell != cell else cell for cell in column.astype(object)]
        plain = [cell.isoformat() if isinstance(cell, pd.Timestamp) else cell for cell in cells]
        plain = [cell.item() if isinstance(cell, np.generic) else cell for cell in plain]
        found.append((str(name), str(column.dtype), plain))
    return found
