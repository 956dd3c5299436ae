"""Builds the fast backend of an estimator and runs it, with the estimator behind it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.pipeline import Pipeline

from tableside.contracts.answers import MethodAnswer
from tableside.contracts.array_type import Array
from tableside.contracts.object_graph import class_path
from tableside.contracts.schema import Input
from tableside.contracts.table import Table
from tableside.runtimes.base import Runtime
from tableside.runtimes.fast import (
    boosters,
    boosting_categories,
    ensembles,
    linear,
    packed_trees,
    preprocessing,
    treelite,
    trees,
)
from tableside.runtimes.fast.columns import Source, numeric_columns
from tableside.runtimes.fast.encoders import ENCODERS, encoded_categories
from tableside.runtimes.fast.numerics import (
    EstimatorRequired,
    LibraryMissing,
    Method,
    Step,
    Unsupported,
    is_exactly,
    require,
)
from tableside.runtimes.fast.packed_trees import PackedTrees
from tableside.runtimes.sklearn import SklearnRuntime

BACKENDS = (
    "linear", "tree_walk", "sklearn_trees", boosters.BOOSTER, treelite.TREELITE, packed_trees.SHARED_MEMORY,
    ensembles.ENSEMBLE, ensembles.ENSEMBLE_TREELITE,
)  # fmt: skip
"""Names of the fast backends that publish compares with an estimator.

linear: linear models. tree_walk and sklearn_trees: trees and forests (`tableside.runtimes.fast.trees`). booster: the
predictions of XGBoost, LightGBM and CatBoost (`tableside.runtimes.fast.boosters`). treelite: trees, forests and
boosters with the library treelite. shared_memory: forests whose nodes all workers share; used for large artifacts.
ensemble and ensemble_treelite: voting, stacking and calibrated ensembles (`tableside.runtimes.fast.ensembles`).
"""
_OF_MEMBERS = ("linear", "tree_walk", boosters.BOOSTER)
"""The backends of an ensemble's members, in the order in which they are tried."""

TableMethod = Callable[[Table], Array]
_SAMPLING_PIPELINE = "imblearn.pipeline.Pipeline"
"""Its steps that resample do nothing when it answers."""


@dataclass(frozen=True)
class Preparation:
    """What is prepared for a backend, besides the estimator.

    packed: the nodes for the shared-memory backend. least_rows: the smallest number of rows in a call. keep: keeps the
    model that treelite converts.
    """

    packed: PackedTrees | None = None
    least_rows: int = 1
    keep: treelite.Keep = treelite.convert_anew


_NOTHING = Preparation()


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


def build(
    original: SklearnRuntime, schema: Input, backend: str, order: str = "C", least_rows: int = 1,
    keep: treelite.Keep = treelite.convert_anew,
) -> FastRuntime:  # fmt: skip
    """Build a fast backend of a fitted estimator.

    backend: one of BACKENDS. order: the memory order of a frame's numbers, "C" (rows) or "F" (columns); it decides in
    which order BLAS adds. least_rows: the smallest number of rows that it is for; it answers fewer rows too, but more
    slowly. keep: keeps what treelite converts of the last step. Raises Unsupported, which names the first thing that
    the backend cannot do.
    """
    return _build(original, original.estimator, schema, backend, order, Preparation(None, least_rows, keep))


def build_shared(original: Runtime, stub: Any, packed: PackedTrees, schema: Input) -> FastRuntime:
    """Build the shared-memory backend over packed trees.

    stub: the estimator of these trees, or its stub. Raises Unsupported.
    """
    return _build(original, stub, schema, packed_trees.SHARED_MEMORY, "C", Preparation(packed))


def _build(
    original: Runtime, estimator: Any, schema: Input, backend: str, order: str, preparation: Preparation
) -> FastRuntime:
    try:
        if backend in (ensembles.ENSEMBLE, ensembles.ENSEMBLE_TREELITE):
            return FastRuntime(original, _Members(schema, order, backend).all_of(estimator))
        return FastRuntime(original, _table_methods(estimator, schema, backend, order, preparation))
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as strange:
        raise Unsupported(f"a fitted attribute is not as expected: {type(strange).__name__}: {strange}") from strange


def _table_methods(
    estimator: Any, schema: Input, backend: str, order: str, preparation: Preparation
) -> dict[str, TableMethod]:
    source, steps, last = _parts(estimator, schema, order)
    if backend == packed_trees.SHARED_MEMORY:
        require(packed_trees.last_of(estimator) is last, "a forest inside a search")
    methods = _methods(last, source.sparse, backend, preparation)
    return {name: _chain(source, steps, method) for name, method in methods.items()}


class _Members:
    """Builds an ensemble's members: each with the first backend that knows it."""

    def __init__(self, schema: Input, order: str, backend: str) -> None:
        self._schema, self._order = schema, order
        self._with_treelite = backend == ensembles.ENSEMBLE_TREELITE
        self._used: set[str] = set()

    def all_of(self, estimator: Any) -> dict[str, TableMethod]:
        """The methods of an ensemble behind the steps of its pipeline. Raises Unsupported."""
        require(ensembles.is_ensemble(steps_of(estimator)[-1]), "no ensemble of several estimators")
        found = self._of_table(estimator)
        require(not self._with_treelite or treelite.TREELITE in self._used, "no member that treelite computes")
        return found

    def _of_table(self, estimator: Any) -> dict[str, TableMethod]:
        *before, last = [step for step in steps_of(estimator) if not preprocessing.is_passthrough(step)]
        if not ensembles.is_ensemble(last):
            return self._first(last, lambda name: _table_methods(estimator, self._schema, name, self._order, _NOTHING))
        if not before:
            return ensembles.methods(last, self._of_table, self._of_matrix)
        require(self._schema.form != "texts", "texts")
        source, steps = _source_of(self._schema, before, last, self._order)
        require(not source.sparse, "an ensemble over sparse rows")
        found = [preprocessing.step_of(step) for step in steps]
        methods = ensembles.methods(last, self._of_matrix, self._of_matrix)
        return {name: _chain(source, found, method) for name, method in methods.items()}

    def _of_matrix(self, estimator: Any) -> dict[str, Method]:
        *before, last = [step for step in steps_of(estimator) if not preprocessing.is_passthrough(step)]
        require(not boosting_categories.has_categories(last), "categories behind other steps")
        if ensembles.is_ensemble(last):
            methods = ensembles.methods(last, self._of_matrix, self._of_matrix)
        else:
            methods = self._first(last, lambda name: _methods(last, False, name, _NOTHING))
        steps = [preprocessing.step_of(step) for step in before]
        return {name: _after(steps, method) for name, method in methods.items()}

    def _first(self, last: Any, build: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
        """The methods of the first backend that knows the member; what it lacks of a booster, of the next one."""
        found: dict[str, Any] = {}
        for name in (treelite.TREELITE, *_OF_MEMBERS) if self._with_treelite else _OF_MEMBERS:
            try:
                found = {**build(name), **found}
            except LibraryMissing:
                raise
            except Unsupported:
                continue
            self._used.add(name)
            if not boosters.is_booster(last):
                break
        require(bool(found), f"no fast backend for the member {type(last).__name__}")
        return found


def _methods(last: Any, is_sparse: bool, backend: str, preparation: Preparation) -> dict[str, Method]:
    if boosters.is_booster(last):
        return boosters.methods(last, backend, is_sparse)
    require(backend != boosters.BOOSTER, f"no fast backend for {type(last).__name__}")
    if backend == "linear":
        return linear.methods(last, is_sparse)
    require(not is_sparse, "trees over sparse rows")
    if backend == packed_trees.SHARED_MEMORY:
        packed = preparation.packed
        return packed_trees.methods(last, packed_trees.pack(last) if packed is None else packed)
    if backend == treelite.TREELITE:
        return treelite.methods(last, preparation.keep)
    return trees.methods(last, backend, preparation.least_rows)


def _parts(estimator: Any, schema: Input, order: str) -> tuple[Source, list[Step], Any]:
    require(schema.form != "texts", "texts")
    steps = [step for step in steps_of(estimator) if not preprocessing.is_passthrough(step)]
    *before, last = steps
    source, before = _source_of(schema, before, last, order)
    found = [preprocessing.step_of(step) for step in before]
    if boosting_categories.has_categories(last):
        found += [] if len(steps) == 1 and boosting_categories.has_text(schema) else [boosting_categories.step_of(last)]
    return source, found, last


def steps_of(estimator: Any) -> list[Any]:
    """Return the steps that compute an answer. A search answers with its best estimator."""
    while is_exactly(estimator, GridSearchCV, RandomizedSearchCV, FrozenEstimator):
        estimator = estimator.estimator if is_exactly(estimator, FrozenEstimator) else estimator.best_estimator_
    if is_exactly(estimator, Pipeline) or class_path(estimator) == _SAMPLING_PIPELINE:
        return [part for _, step in estimator.steps for part in steps_of(step) if not hasattr(part, "fit_resample")]
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


def _after(steps: list[Step], method: Method) -> Method:
    def run(matrix: Array) -> Array:
        for step in steps:
            matrix = step(matrix)
        return method(matrix)

    return run


def _chain(source: Source, steps: list[Step], method: Method) -> TableMethod:
    gather, rest = source.gather, _after(steps, method) if steps else method

    def run(table: Table) -> Array:
        return rest(gather(table))

    return run
