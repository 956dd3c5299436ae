"""A runtime that answers by a fast backend where there is one, and by the estimator where a row is unusual."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sklearn.pipeline import Pipeline

from tableside.contract.answers import MethodAnswer
from tableside.contract.array_type import Array
from tableside.contract.schema import Input
from tableside.contract.table import Table
from tableside.runtimes.base import Runtime
from tableside.runtimes.fast import linear, packed_trees, preprocessing, treelite, trees
from tableside.runtimes.fast.numerics import EstimatorRequired, Method, Step, Unsupported, is_exactly, require
from tableside.runtimes.fast.packed_trees import PackedTrees
from tableside.runtimes.fast.preprocessing import Source
from tableside.runtimes.sklearn import SklearnRuntime

BACKENDS = ("linear", "tree_walk", "sklearn_trees", treelite.TREELITE, packed_trees.SHARED_MEMORY)
"""product: linear models. walk, ask: two backends for trees (`tableside.runtimes.fast.trees`); treelite: a third.
share: over nodes that workers share (`tableside.runtimes.fast.packed_trees`), proved at publish, used where a large
artifact is served.
"""

TableMethod = Callable[[Table], Array]


class FastRuntime:
    """The fast backend, with the estimator behind it."""

    platform = "scikit-learn_skops"

    def __init__(self, original: Runtime, methods: dict[str, TableMethod]) -> None:
        self.original = original
        self.methods = methods

    def prepare(self, table: Table) -> Table:
        """The table as it is: each backend takes of it what it needs."""
        return table

    def run(self, method: str, data: Any) -> MethodAnswer:
        """See `Runtime.run`; `data` is a Table."""
        answer = self.methods.get(method)
        if answer is not None:
            try:
                return answer(data)
            except EstimatorRequired:
                pass
        return self.original.run(method, data.to_input())


def build(original: SklearnRuntime, schema: Input, backend: str, order: str = "C") -> FastRuntime:
    """The direct runtime of a fitted estimator. order: how a frame's numbers lie in memory, C or F.

    Raises Unsupported with the first thing that is not known here.
    """
    return _build(original, original.estimator, schema, backend, order, None)


def build_shared(original: Runtime, shell: Any, packed: PackedTrees, schema: Input) -> FastRuntime:
    """The direct runtime over packed nodes. shell: the estimator they are of, or its `stub`. Raises Unsupported."""
    return _build(original, shell, schema, packed_trees.SHARED_MEMORY, "C", packed)


def _build(
    original: Runtime, estimator: Any, schema: Input, backend: str, order: str, packed: PackedTrees | None
) -> FastRuntime:
    try:
        source, steps, last = _parts(estimator, schema, order)
        methods = _methods(last, source, backend, packed)
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as strange:
        raise Unsupported(f"fitted otherwise than expected: {type(strange).__name__}: {strange}") from strange
    return FastRuntime(original, {name: _chain(source, steps, method) for name, method in methods.items()})


def _methods(last: Any, source: Source, backend: str, packed: PackedTrees | None) -> dict[str, Method]:
    if backend == "linear":
        return linear.methods(last, source.sparse)
    require(not source.sparse, "trees over sparse rows")
    if backend == packed_trees.SHARED_MEMORY:
        return packed_trees.methods(last, packed_trees.pack(last) if packed is None else packed)
    return treelite.methods(last) if backend == treelite.TREELITE else trees.methods(last, backend)


def _parts(estimator: Any, schema: Input, order: str) -> tuple[Source, list[Step], Any]:
    require(schema.form != "texts", "texts")
    steps = [step for _, step in estimator.steps] if is_exactly(estimator, Pipeline) else [estimator]
    *before, last = [step for step in steps if not preprocessing.is_passthrough(step)]
    if before and hasattr(before[0], "transformers_"):
        source = preprocessing.source_of(schema, before[0], order)
        before = before[1:]
        require(not (source.sparse and before), "steps over sparse rows")
    else:
        source = Source(preprocessing.numeric_columns(schema, [column.name for column in schema.columns], order))
    return source, [preprocessing.step_of(step) for step in before], last


def _chain(source: Source, steps: list[Step], method: Method) -> TableMethod:
    gather = source.gather

    def direct(table: Table) -> Array:
        matrix = gather(table)
        for step in steps:
            matrix = step(matrix)
        return method(matrix)

    return direct
