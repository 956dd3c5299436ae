"""A runtime that answers by a direct way where there is one, and by the estimator where a row is unusual."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sklearn.pipeline import Pipeline

from app.contract.answers import Answer
from app.contract.cells import Array
from app.contract.schema import Input
from app.contract.table import Table
from app.runtimes.base import Runtime
from app.runtimes.direct import columns, gtil, linear, shared, trees
from app.runtimes.direct.columns import Source
from app.runtimes.direct.parts import Method, Step, Unsupported, Unusual, is_exactly, require
from app.runtimes.direct.shared import Packed
from app.runtimes.sklearn import SklearnRuntime

WAYS = ("product", "walk", "ask", gtil.TREELITE, shared.WAY)
"""product: linear models. walk, ask: two ways over trees (`app.runtimes.direct.trees`); treelite: a third. share: over
nodes that workers share (`app.runtimes.direct.shared`), proved at publish, used where a large artifact is served.
"""

Direct = Callable[[Table], Array]


class DirectRuntime:
    """The direct way, with the estimator behind it."""

    platform = "scikit-learn_skops"

    def __init__(self, original: Runtime, ways: dict[str, Direct]) -> None:
        self.original = original
        self.ways = ways

    def prepare(self, table: Table) -> Table:
        """The table as it is: each way takes of it what it needs."""
        return table

    def run(self, method: str, data: Any) -> Answer:
        """See `Runtime.run`; `data` is a Table."""
        way = self.ways.get(method)
        if way is not None:
            try:
                return way(data)
            except Unusual:
                pass
        return self.original.run(method, data.to_input())


def build(original: SklearnRuntime, schema: Input, way: str, order: str = "C") -> DirectRuntime:
    """The direct runtime of a fitted estimator. order: how a frame's numbers lie in memory, C or F.

    Raises Unsupported with the first thing that is not known here.
    """
    return _build(original, original.estimator, schema, way, order, None)


def build_shared(original: Runtime, shell: Any, packed: Packed, schema: Input) -> DirectRuntime:
    """The direct runtime over packed nodes. shell: the estimator they are of, or its `hollow`. Raises Unsupported."""
    return _build(original, shell, schema, shared.WAY, "C", packed)


def _build(
    original: Runtime, estimator: Any, schema: Input, way: str, order: str, packed: Packed | None
) -> DirectRuntime:
    try:
        source, steps, last = _parts(estimator, schema, order)
        methods = _methods(last, source, way, packed)
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as strange:
        raise Unsupported(f"fitted otherwise than expected: {type(strange).__name__}: {strange}") from strange
    return DirectRuntime(original, {name: _chain(source, steps, method) for name, method in methods.items()})


def _methods(last: Any, source: Source, way: str, packed: Packed | None) -> dict[str, Method]:
    if way == "product":
        return linear.methods(last, source.sparse)
    require(not source.sparse, "trees over sparse rows")
    if way == shared.WAY:
        return shared.methods(last, shared.pack(last) if packed is None else packed)
    return gtil.methods(last) if way == gtil.TREELITE else trees.methods(last, way)


def _parts(estimator: Any, schema: Input, order: str) -> tuple[Source, list[Step], Any]:
    require(schema.form != "texts", "texts")
    steps = [step for _, step in estimator.steps] if is_exactly(estimator, Pipeline) else [estimator]
    *before, last = [step for step in steps if not columns.is_passthrough(step)]
    if before and hasattr(before[0], "transformers_"):
        source = columns.source_of(schema, before[0], order)
        before = before[1:]
        require(not (source.sparse and before), "steps over sparse rows")
    else:
        source = Source(columns.numbers(schema, [column.name for column in schema.columns], order))
    return source, [columns.step_of(step) for step in before], last


def _chain(source: Source, steps: list[Step], method: Method) -> Direct:
    gather = source.gather

    def direct(table: Table) -> Array:
        matrix = gather(table)
        for step in steps:
            matrix = step(matrix)
        return method(matrix)

    return direct
