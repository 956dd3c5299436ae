"""The runtime a contract asks for: by the number of rows a proved direct way, or the estimator."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from app.contract import answers, golden
from app.contract.answers import Answer
from app.contract.cells import Array
from app.contract.schema import Contract, Output, Way
from app.contract.table import Table
from app.runtimes import graph
from app.runtimes.base import Runtime
from app.runtimes.direct.compiled import DirectRuntime, build
from app.runtimes.direct.parts import Missing
from app.runtimes.graph import ONNX
from app.runtimes.shelved import Shelved
from app.runtimes.sklearn import SklearnRuntime

Answers = Mapping[str, Array]
Range = tuple[int, DirectRuntime | None]
"""Up to how many rows (0: any), and who answers them; None is the estimator."""


class PlannedRuntime:
    """Direct ways in front of the estimator, by name in `used`. `retire` takes them out of service for good."""

    platform = "scikit-learn_skops"

    def __init__(self, original: Runtime, ranges: Sequence[Range], used: Collection[str] = ()) -> None:
        self.original = original
        self.used = frozenset(used)
        self._built = tuple(ranges)
        self.wanted = True

    @property
    def wanted(self) -> bool:
        """Whether the operator wants the direct ways."""
        return self._wanted

    @wanted.setter
    def wanted(self, wanted: bool) -> None:
        self._wanted = wanted
        self._serve(self._built if wanted else ())

    def _serve(self, ranges: tuple[Range, ...]) -> None:
        self._ranges = ranges
        self.is_fast = any(runtime is not None for _, runtime in ranges)
        """Whether a direct way is in service: the operator wants it (`wanted`), and it has not been retired."""

    @property
    def is_whole(self) -> bool:
        """Whether the estimator itself is in this worker's memory."""
        return not isinstance(self.original, Shelved) or self.original.is_loaded

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
        self._built = ()
        self._serve(())


def plan(original: SklearnRuntime, contract: Contract, folder: Path) -> Runtime:
    """The runtime of the contract's ways. folder: the version's; its graph is held to its hash elsewhere.

    A way whose library is missing here leaves its rows to the one named instead, or to the estimator. Raises
    Unsupported when one is not known here.
    """
    if not contract.ways:
        return original
    built: dict[Way, DirectRuntime | None] = {}
    for way in contract.ways:
        same = msgspec.structs.replace(way, up_to_rows=0)
        if same not in built:
            built[same] = _build(original, contract, way, folder)
    ranges = [(way.up_to_rows, built[msgspec.structs.replace(way, up_to_rows=0)]) for way in contract.ways]
    used = {way.way for way, runtime in built.items() if runtime is not None}  # under its name, whoever stands in
    return PlannedRuntime(original, ranges, used) if used else original


def _build(original: SklearnRuntime, contract: Contract, way: Way, folder: Path) -> DirectRuntime | None:
    if way.way == SKLEARN:
        return None
    try:
        if way.way == ONNX and contract.graph is not None:
            content, row = (folder / contract.graph.file).read_bytes(), golden.golden_table(contract).take(0, 1)
            return graph.build(original, contract.input, contract.outputs, content, row)
        return build(original, contract.input, way.way, way.order)
    except Missing:
        return _build(original, contract, way.instead, folder) if way.instead is not None else None


SKLEARN = "sklearn"
"""The way that is no way around: the estimator itself."""


def tolerated(contract: Contract) -> float:
    """How far the ways in use may lie apart from the estimator: what publish allowed, or at least saw."""
    return max(contract.tolerance, _seen(contract))


def _seen(contract: Contract) -> float:
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
