"""Finds where an estimator raised an exception: the step of the pipeline, and the columns if they can be told.

The step comes from the traceback: its frames hold the estimators that were called, and a pipeline names its steps. The
text of the exception is only searched for known phrases. It may quote values of a request, so nothing here returns it.

Runs in other environments too: Python 3.8, no import of Tableside (see tableside.model_process.child.wire).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from tableside.contracts.array_type import Array
    from tableside.contracts.table import Table

_MOST_COLUMNS = 3
_UNKNOWN_CATEGORY = re.compile(r"[Ff]ound unknown categor.* in column (\d+)", re.DOTALL)
_LARGEST_FLOAT32 = float(np.finfo(np.float32).max)


class FailurePlace(NamedTuple):
    """Where it happened. step: the names of the steps from outside to inside; empty if no pipeline names one.

    columns: names of the table's columns; empty if they are not known. reason: what the estimator does not take.
    """

    step: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    reason: str = ""

    def __str__(self) -> str:
        """The place as a part of a sentence that begins with a space, such as ` in step 'model', column 'age'`."""
        parts = []
        if self.step:
            parts.append(f"in step '{' > '.join(self.step)}'")
        if self.columns:
            parts.append(f"column{'s' if len(self.columns) > 1 else ''} {_listed(self.columns)}")
        text = f"{'' if self.step else ','} {', '.join(parts)}" if parts else ""
        return f"{text}: {self.reason}" if self.reason else text


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name[:80]) for name in names[:_MOST_COLUMNS])
    return shown if len(names) <= _MOST_COLUMNS else f"{shown} and {len(names) - _MOST_COLUMNS} more"


class RaisedElsewhere(Exception):
    """An estimator raised an exception in another process.

    raised: the name of its class. place: where it happened. stack_elsewhere: its traceback, without any values.
    """

    def __init__(self, raised: str, text: str, place: FailurePlace, stack: str) -> None:
        super().__init__(f"{raised}: {text}")
        self.raised = raised
        self.place = place
        self.stack_elsewhere = f"{raised} in the model process:\n{stack}"


def class_of(problem: BaseException) -> str:
    """Return the name of the class of an exception, also of one that was raised in another process."""
    return problem.raised if isinstance(problem, RaisedElsewhere) else type(problem).__name__


def find(problem: BaseException, table: Table) -> FailurePlace:
    """Return where an estimator raised `problem` when it was called with the table. Never raises."""
    if isinstance(problem, RaisedElsewhere):
        return problem.place
    step: tuple[str, ...] = ()
    with suppress(Exception):  # whatever a foreign estimator's attributes do, the problem itself is reported
        names = [column.name for column in table.schema.columns]
        step, selected = _step(problem, names)
        columns, reason = _cause(str(problem), table, names, selected)
        return FailurePlace(step, tuple(columns), reason)
    return FailurePlace(step)


def _step(problem: BaseException, names: Sequence[str]) -> tuple[tuple[str, ...], Sequence[str] | None]:
    """Return the names of the steps, and the table's columns that the last one is given; None if that is not known."""
    called = _called_estimators(problem)
    step: list[str] = []
    selected: Sequence[str] | None = names
    for at, outer in enumerate(called):
        for place, (name, child, columns) in enumerate(_children(outer)):
            if not any(child is inner for inner in called[at + 1 :]):
                continue
            step.append(name)
            if columns is not None:
                selected = _selected(columns, names, selected)
            elif place and hasattr(outer, "steps"):
                selected = None  # a later step of a pipeline sees what the earlier ones made of the columns
            break
    return tuple(step), selected


def _called_estimators(problem: BaseException) -> list[Any]:
    """Return the estimators whose methods were running, the outermost first, each once."""
    found: dict[int, Any] = {}
    frames = problem.__traceback__
    # The first frame has caught the error. f_locals makes a dict that its frame keeps: with the error in it, the two
    # would keep each other, and the request's table, until a garbage collection.
    frames = frames and frames.tb_next
    while frames is not None:
        owner = frames.tb_frame.f_locals.get("self")
        if hasattr(owner, "get_params"):
            found.setdefault(id(owner), owner)
        frames = frames.tb_next
    return list(found.values())


def _children(estimator: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield the named parts of a pipeline, column transformer, union or ensemble: name, part, columns that it selects.

    The columns are None for a part that is given whatever the whole is given.
    """
    for name, part in getattr(estimator, "steps", None) or ():
        yield name, part, None
    yield from getattr(estimator, "transformers_", None) or ()
    for name, part in getattr(estimator, "transformer_list", None) or ():
        yield name, part, None
    yield from ((name, part, None) for name, part in (getattr(estimator, "named_estimators_", None) or {}).items())


def _selected(columns: Any, names: Sequence[str], given: Sequence[str] | None) -> Sequence[str] | None:
    """Return the table's columns that a part of a ColumnTransformer selects; None if that is not known."""
    if isinstance(columns, str):
        columns = [columns]
    if isinstance(columns, slice) or callable(columns):
        return None
    wanted = list(columns)
    if all(isinstance(name, str) for name in wanted):
        return wanted if set(wanted) <= set(names) else None
    if given is None or not all(isinstance(at, (int, np.integer)) for at in wanted):
        return None
    return [given[at] for at in wanted]


def _cause(text: str, table: Table, names: Sequence[str], selected: Sequence[str] | None) -> tuple[Sequence[str], str]:
    """Return the columns at fault and what is wrong with them, as far as the exception's text and the table tell."""
    category = _UNKNOWN_CATEGORY.search(text)
    if category:
        at = int(category[1])
        known = [selected[at]] if selected is not None and at < len(selected) else []
        return known, "a category that it was not fitted on"
    if "contains NaN" in text:
        return _where(table, selected or names, _is_missing), "it takes no missing value"
    if "contains infinity" in text or "too large for dtype" in text:
        return _where(table, selected or names, _is_large), "a number that is too large for it"
    return (selected if selected is not None and len(selected) == 1 else ()), ""


def _where(table: Table, names: Sequence[str], has: Callable[[Array], bool]) -> list[str]:
    return [name for name in names if has(_cells(table, name))]


def _cells(table: Table, name: str) -> Array:
    if table.arrays is not None:
        return table.arrays[name]
    assert table.matrix is not None
    found: Array = table.matrix[:, [column.name for column in table.schema.columns].index(name)]
    return found


def _is_missing(cells: Array) -> bool:
    if cells.dtype.kind == "f":
        return bool(np.isnan(cells).any())
    return cells.dtype == object and any(cell is None or cell != cell for cell in cells.tolist())


def _is_large(cells: Array) -> bool:
    if cells.dtype.kind != "f":
        return False
    with np.errstate(invalid="ignore"):
        return bool((np.abs(cells) > _LARGEST_FLOAT32).any())
