"""What another version changes for clients, and which of these changes break them.

This is the only place that decides it; docs/guide/release.md has the rules as a table. A change breaks clients if a
request that was answered may be refused or read differently, or if a program that reads the answer may read it wrongly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec

from tableside.contracts.schema import Column, Contract, Output
from tableside.decoding import cells, dates
from tableside.repository.model_toml import ColumnConfig

Kind = Literal[
    "gone", "new", "renamed", "type", "missing", "categories", "order", "default", "shape", "classes", "meaning"
]
MOST_SHOWN = 10
"""A message lists so many differences and counts the others."""
_WORDS = {
    "FP64": "a number", "FP32": "a number of 32 bits", "INT64": "a whole number", "BOOL": "a boolean", "BYTES": "text",
    "DATE": "a date", "ID": "an id",
}  # fmt: skip
_WIDER = frozenset((("INT64", "FP64"), ("INT64", "FP32"), ("FP32", "FP64"), ("FP64", "FP32")))
"""Types of a column, before and after, of which the second takes every cell that the first takes."""
_MOST_NAMES = 5
_TOGETHER: dict[tuple[str, bool], str] = {
    ("gone", True): "gone",
    ("gone", False): "gone, and requests that send them are answered",
    ("new", True): "new, and requests must send them",
    ("new", False): "new, and count as missing where a request leaves them out",
}
"""What is said of several columns that are gone or new, breaking or not."""


class Difference(msgspec.Struct, frozen=True):
    """One change for clients. subject: the column or the output; empty for all. text: a sentence for people."""

    breaking: bool
    part: Literal["input", "output"]
    kind: Kind
    subject: str
    text: str


def compare(old: Contract, new: Contract, columns: ColumnConfig = ColumnConfig()) -> list[Difference]:  # noqa: B008 - frozen
    """Return what changes for clients of `old` that get `new`: the breaking differences first.

    columns: how requests of the model are read. An empty list means that clients see the same input and outputs.
    """
    found = [*_of_columns(old, new, columns), *_of_outputs(old, new)]
    return sorted(found, key=lambda each: not each.breaking)


def breaking(found: Sequence[Difference]) -> list[Difference]:
    """Return those that break clients."""
    return [each for each in found if each.breaking]


def in_words(found: Sequence[Difference], most: int = MOST_SHOWN) -> str:
    """Return the differences in one line. Many columns that are gone or new share a sentence; after `most` of them the
    others are counted.
    """
    shown = sentences(found)
    more = f"; and {len(shown) - most} more" if len(shown) > most else ""
    return "; ".join(shown[:most]) + more


def sentences(found: Sequence[Difference]) -> list[str]:
    """Return a sentence for each difference, and one for more than two columns that are gone, or new, alike."""
    shared: dict[tuple[Kind, bool], list[str]] = {}
    for each in found:
        if each.part == "input" and each.kind in ("gone", "new"):
            shared.setdefault((each.kind, each.breaking), []).append(each.subject)
    shown = []
    for each in found:
        names = shared.get((each.kind, each.breaking), []) if each.part == "input" else []
        if len(names) <= 2:
            shown.append(each.text)
        elif names[0] == each.subject:
            shown.append(f"{len(names)} columns are {_TOGETHER[each.kind, each.breaking]}: {_listed(names)}")
    return shown


def _of_columns(old: Contract, new: Contract, rules: ColumnConfig) -> Iterator[Difference]:
    was, now = ({column.name: column for column in each.input.columns} for each in (old, new))
    renamed = _renamed(old.input.columns, new.input.columns)
    for name, other in renamed.items():
        yield Difference(True, "input", "renamed", name, f"column {name!r} is called {other!r} now")
    for name in [name for name in was if name not in now and name not in renamed]:
        yield _gone(name, new, rules)
    known = {*was, *renamed.values()}
    for name in [name for name in now if name not in known]:
        yield _added(now[name], new, rules)
    for name, column in was.items():
        if name in now:
            yield from _of_column(column, now[name])
    yield from _of_order([renamed.get(name, name) for name in was], [*now])


def _renamed(was: Sequence[Column], now: Sequence[Column]) -> dict[str, str]:
    """The columns that have another name at the same place, and nothing else changed for clients."""
    if len(was) != len(now):
        return {}
    old_names, new_names = {each.name for each in was}, {each.name for each in now}
    return {
        old.name: new.name
        for old, new in zip(was, now, strict=True)
        if old.name not in new_names and new.name not in old_names and not [*_of_column(old, new)]
    }


def _by_position(contract: Contract) -> bool:
    """Whether clients usually send the rows of a model as lists: its estimator was trained on an array."""
    return contract.input.form == "matrix"


def _gone(name: str, new: Contract, rules: ColumnConfig) -> Difference:
    if rules.extra == "ignore" and not _by_position(new):
        return Difference(False, "input", "gone", name, f"column {name!r} is gone; requests that send it are answered")
    return Difference(True, "input", "gone", name, f"column {name!r} is gone")


def _added(column: Column, new: Contract, rules: ColumnConfig) -> Difference:
    name, words = column.name, _WORDS[column.kind]
    if rules.missing == "fill" and column.nullable and not _by_position(new):
        text = f"column {name!r} ({words}) is new; it counts as missing where a request leaves it out"
        return Difference(False, "input", "new", name, text)
    return Difference(True, "input", "new", name, f"column {name!r} ({words}) is new, and requests must send it")


def _of_column(old: Column, new: Column) -> Iterator[Difference]:
    name = old.name
    if old.kind != new.kind:
        is_wider = (old.kind, new.kind) in _WIDER
        text = f"column {name!r} was {_WORDS[old.kind]} and is {_WORDS[new.kind]}"
        yield Difference(not is_wider, "input", "type", name, text)
    if (narrower := _narrower(old, new)) is not None:
        yield Difference(narrower, "input", "type", name, f"column {name!r} was {old.dtype} and is {new.dtype}")
    if old.nullable != new.nullable:
        takes = "takes missing cells now" if new.nullable else "takes no missing cells any more"
        yield Difference(old.nullable, "input", "missing", name, f"column {name!r} {takes}")
    yield from _of_categories(old, new)


def _narrower(old: Column, new: Column) -> bool | None:
    """Whether cells that the old dtype takes are refused by the new one of the same kind; None if both take the same.

    Integers have the range of their dtype. A float16 holds less than other floats. Dates have a unit, and each unit has
    dates that others refuse; a column takes either dates with a zone or dates without one.
    """
    if old.dtype == new.dtype:
        return None
    if old.is_date and new.is_date:
        is_same = dates.unit_of(old.dtype) == dates.unit_of(new.dtype)
        return not is_same or dates.has_zone(old.dtype) != dates.has_zone(new.dtype)
    if new.datatype == "INT64" and old.datatype == "INT64":
        (low, high, _), (lowest, highest, _) = cells.limits(old), cells.limits(new)
        return None if (low, high) == (lowest, highest) else lowest > low or highest < high
    if {old.datatype, new.datatype} <= {"FP32", "FP64", "INT64"} and cells.float_dtype(new) == "float16":
        return True
    return None


def _of_categories(old: Column, new: Column) -> Iterator[Difference]:
    name = old.name
    if not new.closed:
        if old.closed:
            yield Difference(False, "input", "categories", name, f"column {name!r} takes other categories, too, now")
        return
    known = dict.fromkeys(new.categories or ())
    if not old.closed:
        text = f"column {name!r} refuses all but {_listed([*known])} now"
        yield Difference(True, "input", "categories", name, text)
        return
    before = dict.fromkeys(old.categories or ())
    if gone := [each for each in before if each not in known]:
        yield Difference(True, "input", "categories", name, f"column {name!r} refuses {_listed(gone)} now")
    if added := [each for each in known if each not in before]:
        yield Difference(False, "input", "categories", name, f"column {name!r} takes {_listed(added)}, too, now")


def _of_order(was: list[str], now: list[str]) -> Iterator[Difference]:
    """The order of the columns that both have: rows without names would be read into other columns without an error."""
    before, after = set(was), set(now)
    was, now = [name for name in was if name in after], [name for name in now if name in before]
    if was != now:
        at = next(at for at, (old, new) in enumerate(zip(was, now, strict=True)) if old != new)
        text = (
            f"the columns have another order: {was[at]!r} came before {now[at]!r}. Rows that are sent without names "
            "would be read into other columns"
        )
        yield Difference(True, "input", "order", "", text)


def _of_outputs(old: Contract, new: Contract) -> Iterator[Difference]:
    was, now = ({output.name: output for output in each.outputs} for each in (old, new))
    if {old.kind, new.kind} <= {"classifier", "regressor", "clusterer", "outlier_detector"} and old.kind != new.kind:
        yield Difference(True, "output", "meaning", "", f"the model was a {_kind(old)} and is a {_kind(new)}")
    for name in [name for name in was if name not in now]:
        yield Difference(True, "output", "gone", name, f"output {name!r} is gone")
    for name in [name for name in now if name not in was]:
        yield Difference(False, "output", "new", name, f"output {name!r} is new")
    first, then = old.default_output.name, new.default_output.name
    if first != then and first in now:
        text = f"requests that name no output get {then!r} in place of {first!r}"
        yield Difference(True, "output", "default", then, text)
    for name, output in was.items():
        if name in now:
            yield from _of_output(output, now[name])


def _kind(contract: Contract) -> str:
    return contract.kind.replace("_", " ")


def _of_output(old: Output, new: Output) -> Iterator[Difference]:
    name = old.name
    if old.datatype != new.datatype:
        text = f"output {name!r} was {_WORDS[old.datatype]} and is {_WORDS[new.datatype]}"
        yield Difference(True, "output", "type", name, text)
    if (old.width, old.flat) != (new.width, new.flat):
        text = f"output {name!r} had {_shape(old)} for each row and has {_shape(new)}"
        yield Difference(True, "output", "shape", name, text)
    if old.classes != new.classes:
        text = f"the classes of {name!r} were {_listed(old.classes or ())} and are {_listed(new.classes or ())}"
        yield Difference(True, "output", "classes", name, text)


def _shape(output: Output) -> str:
    if output.flat:
        return "one value"
    return f"a list of {output.width} value{'' if output.width == 1 else 's'}"


def _listed(values: Sequence[object]) -> str:
    shown = ", ".join(repr(value) for value in values[:_MOST_NAMES])
    more = f" and {len(values) - _MOST_NAMES} more" if len(values) > _MOST_NAMES else ""
    return (shown or "none") + more
