"""The runtime a contract asks for: by the number of rows a proved direct way, or the estimator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from app.contract import answers
from app.contract.answers import Answer
from app.contract.cells import Array
from app.contract.schema import Contract, Input, Output, Way
from app.contract.table import Table
from app.runtimes.base import Runtime
from app.runtimes.direct.compiled import DirectRuntime, build
from app.runtimes.shelved import Shelved
from app.runtimes.sklearn import SklearnRuntime

Answers = Mapping[str, Array]
Range = tuple[int, DirectRuntime | None]
"""Up to how many rows (0: any), and who answers them; None is the estimator."""


class PlannedRuntime:
    """Direct ways in front of the estimator. `retire` takes them out of service for good."""

    platform = "scikit-learn_skops"

    def __init__(self, original: Runtime, ranges: Sequence[Range]) -> None:
        self.original = original
        self.wanted = True
        self._ranges = tuple(ranges)

    @property
    def is_fast(self) -> bool:
        """Whether a direct way is in service: the operator wants it (`wanted`), and it has not been retired."""
        return self.wanted and bool(self._ranges)

    @property
    def is_whole(self) -> bool:
        """Whether the estimator itself is in this worker's memory."""
        return not isinstance(self.original, Shelved) or self.original.is_loaded

    def pick(self, rows: int) -> DirectRuntime | None:
        """Who answers so many rows; None is the estimator."""
        for most, runtime in self._ranges if self.wanted else ():
            if not most or rows <= most:
                return runtime
        return None

    def prepare(self, table: Table) -> Any:
        """The table as it is; what the estimator takes is made of it only if it is asked."""
        return table

    def run(self, method: str, data: Any) -> Answer:
        """See `Runtime.run`; `data` is a Table."""
        direct = self.pick(data.rows)
        if direct is not None:
            return direct.run(method, data)
        return self.original.run(method, data.to_input())

    def retire(self) -> None:
        """From now on the estimator answers everything."""
        self._ranges = ()


def plan(original: SklearnRuntime, contract: Contract) -> Runtime:
    """The runtime of the contract's ways. Raises Unsupported when one of them is not known here."""
    if not contract.ways:
        return original
    return PlannedRuntime(original, ranges(original, contract.input, contract.ways))


def ranges(original: SklearnRuntime, schema: Input, ways: Sequence[Way]) -> list[Range]:
    """The direct runtimes of some ways, each built once. Raises Unsupported."""
    built = {(w.way, w.order): build(original, schema, w.way, w.order) for w in ways if w.way != SKLEARN}
    return [(way.up_to_rows, built.get((way.way, way.order))) for way in ways]


SKLEARN = "sklearn"
"""The way that is no way around: the estimator itself."""


def tolerated(contract: Contract) -> float:
    """How far the ways in use lay apart from the estimator at publish, over all that was compared."""
    return max((each.largest_difference for each in contract.candidates if each.verdict == "used"), default=0.0)


def disagreement(
    planned: PlannedRuntime, table: Table, outputs: Sequence[Output], said: Answers | None = None
) -> float:
    """How far the direct way lies from the estimator on these rows. said: what it answered, if it was asked already."""
    if said is None:
        said = answers.collect(outputs, planned.run, table)
    own = answers.collect(outputs, planned.original.run, table.to_input())
    return max((difference(own[name], array) for name, array in said.items()), default=0.0)


def difference(one: Array, other: Array) -> float:
    """How far two answers lie apart: 0 when they are equal to the bit, infinity when a label, type or shape differs."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return float("inf")
    if one.dtype.kind != "f":
        return 0.0 if bool((one == other).all()) else float("inf")
    if np.ascontiguousarray(one).tobytes() == np.ascontiguousarray(other).tobytes():
        return 0.0
    with np.errstate(all="ignore"):
        apart = np.abs(one - other) / np.maximum(np.maximum(np.abs(one), np.abs(other)), np.finfo(one.dtype).tiny)
    same = (one == other) | (np.isnan(one) & np.isnan(other))
    worst = float(np.where(same, 0.0, apart).max())
    return float("inf") if worst != worst else max(worst, float(np.finfo(one.dtype).eps) / 2)
