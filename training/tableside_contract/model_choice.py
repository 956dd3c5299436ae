"""Asks a fitted model which of two readings of a column it takes: text, or numbers (booleans, dates).

The estimator was trained on one of them, so it answers that one. If it raises for the other, the type is decided. If it
answers both, and its answers differ, nothing can decide but the trainer. Compatible with Python 3.8.
"""

from __future__ import annotations

import itertools
import warnings
from typing import Any, Callable, Collection, Iterator, List, Literal, Mapping, NamedTuple, Sequence

import numpy as np

from tableside_contract.answers import as_array
from tableside_contract.facts import METHODS, attribute, feature_names

MOST_TRIED_IN_FULL = 6
"""With so many open columns every combination of readings is tried: 64 calls."""
MOST_TRIED_IN_PAIRS = 24
MAX_ROWS = 60
MAX_CHECKED_ROWS = 20_000
Decision = Literal["text", "other", "alike", "open"]
Ask = Callable[[Any], List[Any]]
"""Calls the model with a DataFrame. Returns its answers as arrays. Raises whatever the model raises."""


class Choice(NamedTuple):
    """What the model takes, by column. alike: it answers both readings, with the same answers."""

    of: dict[str, Decision]


def asker(estimator: object) -> Ask | None:
    """Return how to call an estimator with a DataFrame; None for one that answers nothing."""
    methods = [name for name in METHODS if callable(attribute(estimator, name))]
    if not methods:
        return None
    has_names = feature_names(estimator) is not None

    def ask(frame: Any) -> list[Any]:
        try:
            return _of_methods(estimator, methods, frame)
        except Exception:
            if has_names:
                raise
        return _of_methods(estimator, methods, np.ascontiguousarray(frame.to_numpy()))  # if it was fitted on an array

    return ask


def _of_methods(estimator: object, methods: Sequence[str], data: Any) -> list[Any]:
    """The answers of all methods, because labels may be equal where probabilities are not.

    Raises what the first method raises; another one that raises has no answer, as in a contract.
    """
    found = _arrays(getattr(estimator, methods[0])(data))
    for method in methods[1:]:
        try:
            found += _arrays(getattr(estimator, method)(data))
        except Exception:  # noqa: BLE001 - a model may raise anything
            found.append(np.array([]))
    return found


def choose(frame: Any, texts: Mapping[str, Any], ask: Ask) -> Choice:
    """Return what the model takes for each column of `texts`.

    frame: the table with the other reading of those columns. texts: the same columns as text.
    """
    answers: dict[frozenset[str], list[Any]] = {}
    rows = _rows(frame, texts)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for as_text in _combinations(list(texts)):
            answered = _answered(ask, _table(frame, texts, as_text, rows))
            if answered is not None:
                answers[as_text] = answered
        found = {name: _decision(name, answers) for name in texts}
        alike = frozenset(name for name, decision in found.items() if decision == "alike")
        if alike and not _is_alike_everywhere(frame, texts, found, alike, ask):
            found.update(dict.fromkeys(alike, "open"))
    return Choice(found)


def _table(frame: Any, texts: Mapping[str, Any], as_text: Collection[str], rows: Any) -> Any:
    """Some rows of the table, with these columns as text."""
    columns = {name: texts[name] if name in as_text else frame[name] for name in frame.columns}
    return type(frame)(columns).iloc[rows].reset_index(drop=True)


def _is_alike_everywhere(
    frame: Any, texts: Mapping[str, Any], found: Mapping[str, Decision], alike: frozenset[str], ask: Ask
) -> bool:
    """Whether the answers to all rows are equal: a code that is rare may be the only one that the model knows."""
    fixed = {name for name, decision in found.items() if decision == "text"}
    rows = np.linspace(0, len(frame) - 1, num=min(MAX_CHECKED_ROWS, len(frame)), dtype=int)
    one, other = (_answered(ask, _table(frame, texts, as_text, rows)) for as_text in (fixed, fixed | alike))
    return one is not None and other is not None and _same(one, other)


def _answered(ask: Ask, frame: Any) -> list[Any] | None:
    """The answers of the model; None if it raises: whatever it raises, it does not take this reading."""
    try:
        return ask(frame)
    except Exception:  # noqa: BLE001 - a model may raise anything
        return None


def _rows(frame: Any, texts: Mapping[str, Any]) -> list[int]:
    """Evenly spaced rows, and for each column one with its shortest and one with its longest text."""
    chosen = set(np.linspace(0, len(frame) - 1, num=min(MAX_ROWS, len(frame)), dtype=int).tolist())
    for series in texts.values():
        lengths = series.fillna("").astype(str).str.len().to_numpy()
        chosen |= {int(lengths.argmin()), int(lengths.argmax())}
    return sorted(chosen)


def _combinations(names: Sequence[str]) -> Iterator[frozenset[str]]:
    """Yield sets of columns to read as text: all sets, or for many columns none, all, each, pairs, and all but each."""
    if len(names) <= MOST_TRIED_IN_FULL:
        for size in range(len(names) + 1):
            yield from map(frozenset, itertools.combinations(names, size))
        return
    yield from (frozenset(), frozenset(names))
    for name in names:
        yield frozenset((name,))
        yield frozenset(names) - {name}
    if len(names) <= MOST_TRIED_IN_PAIRS:
        yield from map(frozenset, itertools.combinations(names, 2))


def _decision(name: str, answers: Mapping[frozenset[str], list[Any]]) -> Decision:
    if not answers:
        return "open"
    as_text = {name in each for each in answers}
    if len(as_text) == 1:
        return "text" if as_text.pop() else "other"
    first = next(iter(answers.values()))
    return "alike" if all(_same(first, each) for each in answers.values()) else "open"


def _arrays(answer: Any) -> list[Any]:
    return [as_array(part) for part in answer] if isinstance(answer, list) else [as_array(answer)]


def _same(one: list[Any], other: list[Any]) -> bool:
    return len(one) == len(other) and all(
        a.shape == b.shape and a.dtype == b.dtype and (np.array_equal(a, b) or _same_floats(a, b))
        for a, b in zip(one, other)
    )


def _same_floats(one: Any, other: Any) -> bool:
    return one.dtype.kind == "f" and bool(np.allclose(one, other, rtol=0, atol=0, equal_nan=True))
