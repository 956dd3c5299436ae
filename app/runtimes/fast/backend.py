"""Builds the fast backend of an estimator and runs it, with the estimator behind it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.pipeline import Pipeline

from tableside.contract.answers import MethodAnswer
from tableside.contract.array_type import Array
from tableside.contract.object_graph import class_path
from tableside.contract.schema import Input
from tableside.contract.table import Table
from tableside.runtimes.base import Runtime
from tableside.runtimes.fast import boosters, boosting_categories, linear, packed_trees, preprocessing, treelite, trees
from tableside.runtimes.fast.columns import Source, numeric_columns
from tableside.runtimes.fast.encoders import ENCODERS, encoded_categories
from tableside.runtimes.fast.numerics import EstimatorRequired, Method, Step, Unsupported, is_exactly, require
from tableside.runtimes.fast.packed_trees import PackedTrees
from tableside.runtimes.sklearn import SklearnRuntime

BACKENDS = ("linear", "tree_walk", "sklearn_trees", boosters.BOOSTER, treelite.TREELITE, packed_trees.SHARED_MEMORY)
"""Names of the fast backends that publish compares with an estimator.

linear: linear models. tree_walk and sklearn_trees: trees and forests (`tableside.runtimes.fast.trees`). booster: the
predictions of XGBoost, LightGBM and CatBoost (`tableside.runtimes.fast.boosters`). treelite: trees, forests and
boosters with the library treelite. shared_memory: forests whose nodes all workers share; used for large artifacts.
"""

TableMethod = Callable[[Table], Array]
_SAMPLING_PIPELINE = "imblearn.pipeline.Pipeline"
"""Its steps that resample do nothing when it answers."""


class FastRuntime:
    """Runs the fast backend of each method, and the estimator where the backend raises EstimatorRequired."""

    platform = "scikit-learn_skops"

    def __init__(self, original: Runtime, methods: dict[str, TableMethod]) -> None:
        self.original = original
        self.methods = methods

    def prepare(self, table: Table) -> Table:
        """Return the table unchanged: each backend reads the columns that it needs."""
        return table

    def run(self, method: str, data: Any) -> MethodAnswer:
        """Run `method` on `data`, a Table."""
        answer = self.methods.get(method)
        if answer is not None:
            try:
                return answer(data)
            except EstimatorRequired:
                pass
        return self.original.run(method, data.to_input())


def build(original: SklearnRuntime, schema: Input, backend: str, order: str = "C") -> FastRuntime:
    """Build a fast backend of a fitted estimator.

    backend: one of BACKENDS. order: the memory order of a frame's numbers, "C" (rows) or "F" (columns); it decides in
    which order BLAS adds. Raises Unsupported, which names the first thing that the backend cannot do.
    """
    return _build(original, original.estimator, schema, backend, order, None)


def build_shared(original: Runtime, stub: Any, packed: PackedTrees, schema: Input) -> FastRuntime:
    """Build the shared-memory backend over packed trees.

    stub: the estimator of these trees, or its stub. Raises Unsupported.
    """
    return _build(original, stub, schema, packed_trees.SHARED_MEMORY, "C", packed)


def _build(
    original: Runtime, estimator: Any, schema: Input, backend: str, order: str, packed: PackedTrees | None
) -> FastRuntime:
    try:
        source, steps, last = _parts(estimator, schema, order)
        if backend == packed_trees.SHARED_MEMORY:
            require(packed_trees.last_of(estimator) is last, "a forest inside a search")
        methods = _methods(last, source, backend, packed)
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as strange:
        raise Unsupported(f"a fitted attribute is not as expected: {type(strange).__name__}: {strange}") from strange
    return FastRuntime(original, {name: _chain(source, steps, method) for name, method in methods.items()})


def _methods(last: Any, source: Source, backend: str, packed: PackedTrees | None) -> dict[str, Method]:
    if boosters.is_booster(last):
        return boosters.methods(last, backend, source.sparse)
    require(backend != boosters.BOOSTER, f"no fast backend for {type(last).__name__}")
    if backend == "linear":
        return linear.methods(last, source.sparse)
    require(not source.sparse, "trees over sparse rows")
    if backend == packed_trees.SHARED_MEMORY:
        return packed_trees.methods(last, packed_trees.pack(last) if packed is None else packed)
    return treelite.methods(last) if backend == treelite.TREELITE else trees.methods(last, backend)


def _parts(estimator: Any, schema: Input, order: str) -> tuple[Source, list[Step], Any]:
    require(schema.form != "texts", "texts")
    steps = [step for step in _steps_of(estimator) if not preprocessing.is_passthrough(step)]
    *before, last = steps
    source, before = _source_of(schema, before, last, order)
    found = [preprocessing.step_of(step) for step in before]
    if boosting_categories.has_categories(last):
        found += [] if len(steps) == 1 and boosting_categories.has_text(schema) else [boosting_categories.step_of(last)]
    return source, found, last


def _steps_of(estimator: Any) -> list[Any]:
    """The steps that compute an answer. A search answers with its best estimator."""
    while is_exactly(estimator, GridSearchCV, RandomizedSearchCV):
        estimator = estimator.best_estimator_
    if is_exactly(estimator, Pipeline) or class_path(estimator) == _SAMPLING_PIPELINE:
        return [part for _, step in estimator.steps for part in _steps_of(step) if not hasattr(part, "fit_resample")]
    return [estimator]


def _source_of(schema: Input, before: list[Any], last: Any, order: str) -> tuple[Source, list[Any]]:
    """The first stage, and the steps between it and the last one."""
    names = [column.name for column in schema.columns]
    if before and hasattr(before[0], "transformers_"):
        source, rest = preprocessing.source_of(schema, before[0], order), before[1:]
    elif encoder := next((at for at, step in enumerate(before[:2], 1) if is_exactly(step, *ENCODERS)), 0):
        gather, _, is_sparse = encoded_categories(schema, names, before[:encoder])
        source, rest = Source(gather, is_sparse), before[encoder:]
    elif not before and boosters.is_booster(last):
        source, rest = boosters.source_of(schema, last), []
    elif not before and boosting_categories.has_categories(last) and boosting_categories.has_text(schema):
        source, rest = boosting_categories.source_of(schema, last), []
    else:
        source, rest = Source(numeric_columns(schema, names, order)), before
    require(not (source.sparse and rest), "steps over sparse rows")
    return source, rest


def _chain(source: Source, steps: list[Step], method: Method) -> TableMethod:
    gather = source.gather

    def run(table: Table) -> Array:
        matrix = gather(table)
        for step in steps:
            matrix = step(matrix)
        return method(matrix)

    return run
