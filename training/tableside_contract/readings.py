"""What a fitted model says of the types of its columns: the evidence that outranks how the cells of a sample look.

An encoder knows the values it was fitted on, an imputer the value it fills in, and scikit-learn's other estimators take
numbers. A step that passes a column's own cells on, such as an imputer, leaves the next step to say more.
Compatible with Python 3.8.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Iterable, Literal, Mapping, Sequence, Union

import numpy as np
import pandas as pd

from tableside_contract.facts import attribute

Reading = Literal["text", "number", "boolean", "date", "numeric"]
"""What cells are. `numeric` is numbers or booleans: what an estimator takes that computes with its columns."""
Missing = Literal["nan", "none", "na"]
Label = Union[str, int]

_NESTED = ("best_estimator_", "estimator_", "regressor_", "estimators_", "calibrated_classifiers_")
_OPAQUE = ("FunctionTransformer",)
_NUMERIC_LIBRARIES = ("sklearn", "imblearn", "xgboost", "lightgbm")


@dataclass(frozen=True)
class Known:
    """What the model says of one column.

    values: the values that an encoder was fitted on, without missing ones; empty if no encoder has the column.
    missing: the kinds of missing values among those. source: the class of the step that says it.
    """

    reading: Reading
    source: str
    values: tuple[object, ...] = ()
    missing: frozenset[Missing] = frozenset()

    def describe(self) -> str:
        """Return the evidence in words: `OneHotEncoder was fitted on text ('00501', '02139', ...)`."""
        if not self.values:
            return f"{self.source} takes {WORDS[self.reading]}"
        shown = ", ".join(repr(plain) for plain in map(_plain, self.values[:3]))
        return f"{self.source} was fitted on {WORDS[self.reading]} ({shown}{', ...' if len(self.values) > 3 else ''})"


WORDS: dict[Reading, str] = {
    "text": "text", "number": "numbers", "boolean": "booleans", "date": "dates", "numeric": "numbers or booleans"
}  # fmt: skip


def _plain(value: object) -> object:
    item = getattr(value, "item", None)
    return item() if item is not None and not isinstance(value, pd.Timestamp) else value


def of_model(estimator: object, columns: Sequence[Label]) -> dict[Label, Known]:
    """Return what the model says of those of `columns`, its input in order, that it says something about."""
    found: dict[Label, Known] = {}
    _walk(estimator, list(columns), found)
    return found


def dropped(estimator: object, columns: Sequence[Label]) -> list[Label]:
    """Return the columns that the model's first step drops: no answer depends on them."""
    steps = attribute(estimator, "steps")
    first = steps[0][1] if isinstance(steps, list) and steps and isinstance(steps[0], tuple) else estimator
    entries = attribute(first, "transformers_")
    if not isinstance(entries, list) or not all(isinstance(entry, tuple) and len(entry) == 3 for entry in entries):
        return []
    taken = {column for _, step, chosen in entries if step != "drop" for column in _selected(chosen, [*columns])}
    return [column for column in columns if column not in taken]


def missing_kind(value: object) -> Missing | None:
    """Return the kind of a missing value; None for a value that is there."""
    if value is None:
        return "none"
    if value is pd.NA:
        return "na"
    return "nan" if value is pd.NaT or (isinstance(value, (float, np.floating)) and value != value) else None


def of_values(values: Iterable[object]) -> Reading | None:
    """Return the reading of values that are not missing; None for none, for mixed and for other ones."""
    kinds: set[Reading | None] = set()
    for kind in set(map(type, values)):
        kinds.add(_reading_of_type(kind))
    return kinds.pop() if len(kinds) == 1 else None


def _reading_of_type(kind: type) -> Reading | None:
    if issubclass(kind, str):
        return "text"
    if issubclass(kind, (bool, np.bool_)):
        return "boolean"
    if issubclass(kind, (int, float, np.integer, np.floating)):
        return "number"
    return "date" if issubclass(kind, (pd.Timestamp, np.datetime64)) else None


def _walk(part: object, columns: list[Label], found: dict[Label, Known]) -> list[Label]:
    """Add to `found` what a step says of the columns. Return the columns whose own cells it passes on."""
    if isinstance(part, str) or part is None:
        return columns if part == "passthrough" else []
    steps = attribute(part, "steps")
    if isinstance(steps, list) and all(isinstance(step, tuple) and len(step) == 2 for step in steps):
        for _, step in steps:
            columns = _walk(step, columns, found)
        return columns
    if isinstance(attribute(part, "transformers_"), list):
        return _walk_column_transformer(part, columns, found)
    if isinstance(union := attribute(part, "transformer_list"), list):
        return [left for _, step in union for left in _walk(step, columns, found)]
    return _of_step(part, columns, found)


def _walk_column_transformer(part: object, columns: list[Label], found: dict[Label, Known]) -> list[Label]:
    passed_on: list[Label] = []
    for entry in attribute(part, "transformers_"):
        if isinstance(entry, tuple) and len(entry) == 3:
            passed_on += _walk(entry[1], _selected(entry[2], columns), found)
    return passed_on


def _selected(chosen: Any, columns: list[Label]) -> list[Label]:
    """Return the columns that a ColumnTransformer selects by name, position, mask or slice."""
    if isinstance(chosen, slice):
        bounds = [
            columns.index(at) if isinstance(at, str) and at in columns else at for at in (chosen.start, chosen.stop)
        ]
        stop = bounds[1] + 1 if isinstance(chosen.stop, str) else bounds[1]  # a slice of names has its end
        return columns[slice(bounds[0], stop, chosen.step)]
    listed = [chosen] if isinstance(chosen, (str, int)) else list(chosen) if hasattr(chosen, "__iter__") else []
    if listed and all(isinstance(at, (bool, np.bool_)) for at in listed):
        return [column for column, is_chosen in zip(columns, listed) if is_chosen]
    selected: list[Label] = []
    for at in listed:
        if isinstance(at, str):
            selected.append(at)
        elif isinstance(at, (int, np.integer)) and -len(columns) <= at < len(columns):
            selected.append(columns[int(at)])
    return selected


def _of_step(part: object, columns: list[Label], found: dict[Label, Known]) -> list[Label]:
    name = type(part).__name__
    if (groups := _groups(part, "categories_", columns)) is not None:
        for column, group in zip(columns, groups):
            _add_values(found, column, name, group)
        return []
    if isinstance(mapping := attribute(part, "encoder_dict_"), Mapping):  # feature-engine
        for column, values in mapping.items():
            _add_values(found, column, name, list(values) if hasattr(values, "__iter__") else [])
        return [column for column in columns if column not in mapping]
    if (statistics := _groups(part, "statistics_", columns)) is not None:
        for column, value in zip(columns, statistics):
            _add_values(found, column, name, [value], is_list=False)
        return columns
    if isinstance(attribute(part, "vocabulary_"), Mapping) or name.endswith("Vectorizer"):
        _add(found, columns, Known("text", name))
        return []
    return _of_other(part, name, columns, found)


def _of_other(part: object, name: str, columns: list[Label], found: dict[Label, Known]) -> list[Label]:
    before = len(found)
    for name_inside in _NESTED:
        nested = attribute(part, name_inside)
        for inner in nested[:1] if isinstance(nested, list) else [] if nested is None else [nested]:
            if hasattr(inner, "__dict__"):
                _walk(attribute(inner, "estimator") if name_inside.startswith("calibrated") else inner, columns, found)
    library = type(part).__module__.partition(".")[0]
    function = attribute(part, "func")
    if name in _OPAQUE and isinstance(function, np.ufunc):
        _add(found, columns, Known("numeric", f"{name}({function.__name__})"))
    if len(found) == before and library in _NUMERIC_LIBRARIES and name not in _OPAQUE:
        flags = attribute(part, "is_categorical_")  # categories of a `category` column may be text
        is_numeric = [True] * len(columns) if flags is None else [not flag for flag in flags]
        if len(is_numeric) == len(columns):
            _add(found, [c for c, known in zip(columns, is_numeric) if known], Known("numeric", name))
    return []


def _groups(part: object, name: str, columns: list[Label]) -> list[Any] | None:
    values = attribute(part, name)
    is_list = isinstance(values, list) or (isinstance(values, np.ndarray) and values.ndim == 1)
    return list(values) if is_list and len(values) == len(columns) else None


def _add(found: dict[Label, Known], columns: Iterable[Label], known: Known) -> None:
    for column in columns:
        found.setdefault(column, known)


def _add_values(found: dict[Label, Known], column: Label, source: str, group: Any, *, is_list: bool = True) -> None:
    """Add what an encoder's values say. They replace what an imputer before it said."""
    values = list(group) if hasattr(group, "__iter__") and not isinstance(group, str) else []
    present = tuple(value for value in values if missing_kind(value) is None)
    kinds = frozenset(kind for value in values if (kind := missing_kind(value)) is not None)
    reading = of_values(present)
    if reading is None or (column in found and found[column].values):
        return
    if is_list:
        found[column] = Known(reading, source, present, kinds)
    else:
        found.setdefault(column, Known("numeric" if reading == "number" else reading, source))
