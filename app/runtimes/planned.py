"""The runtime a contract asks for: by the number of rows a proved direct way, or the estimator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from app.contract.answers import Answer
from app.contract.schema import Contract, Input, Way
from app.contract.table import Table
from app.runtimes.base import Runtime
from app.runtimes.direct.compiled import DirectRuntime, build
from app.runtimes.sklearn import SklearnRuntime

Range = tuple[int, DirectRuntime | None]
"""Up to how many rows (0: any), and who answers them; None is the estimator."""


class PlannedRuntime:
    """Direct ways in front of the estimator. `retire` takes them out of service for good."""

    platform = "scikit-learn_skops"

    def __init__(self, original: SklearnRuntime, ranges: Sequence[Range]) -> None:
        self.original = original
        self._ranges = tuple(ranges)

    @property
    def is_fast(self) -> bool:
        """Whether a direct way is in service."""
        return bool(self._ranges)

    def pick(self, rows: int) -> DirectRuntime | None:
        """Who answers so many rows; None is the estimator."""
        for most, runtime in self._ranges:
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
