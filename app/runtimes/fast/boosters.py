"""The fast backends of XGBoost, LightGBM and CatBoost, without the scikit-learn wrapper around them.

`booster` calls the library's own prediction with a matrix: the wrapper's tables, validation and conversions are left
out, and what it makes of the booster's numbers is done here. `treelite` and, for CatBoost, `tree_walk` compute these
numbers in other code. Whether a backend is equal is decided at publish, as for every other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tableside.contracts.array_type import Array
from tableside.contracts.object_graph import class_path
from tableside.contracts.schema import Input
from tableside.contracts.table import Table
from tableside.runtimes.fast import oblivious_trees, treelite, treelite_boosters
from tableside.runtimes.fast.columns import Codes, Source, coded_columns
from tableside.runtimes.fast.numerics import EstimatorRequired, Method, require, squares

BOOSTER = "booster"

_MAX_EXACT = 2.0**53
"""Up to this size a double holds every integer, so that an int64 is not rounded before the library rounds it."""
_ALWAYS_EXACT = 2.0**104
"""A sum of squares below this has no cell above `_MAX_EXACT`."""

_XGBOOST = frozenset(
    f"xgboost.sklearn.XGB{name}" for name in ("Classifier", "Regressor", "RFClassifier", "RFRegressor")
)
_LIGHTGBM = frozenset(
    f"lightgbm.{name}" for name in ("sklearn.LGBMClassifier", "sklearn.LGBMRegressor", "basic.Booster")
)
_CATBOOST = frozenset(f"catboost.core.CatBoost{name}" for name in ("", "Classifier", "Regressor"))


def is_booster(estimator: Any) -> bool:
    """Whether the estimator is of a class that these backends know. A subclass does not count."""
    return class_path(estimator) in _XGBOOST | _LIGHTGBM | _CATBOOST


def methods(estimator: Any, backend: str, is_sparse: bool) -> dict[str, Method]:
    """The estimator's methods as functions of a matrix.

    backend: booster, treelite or tree_walk. is_sparse: whether the estimator would be given a sparse matrix. Raises
    LibraryMissing without the backend's library, and Unsupported.
    """
    kind = class_path(estimator)
    if kind in _XGBOOST:
        return _xgboost(estimator, backend, is_sparse)
    if kind in _LIGHTGBM:
        return _lightgbm(estimator, backend)
    require(kind in _CATBOOST, f"no fast backend for {type(estimator).__name__}")
    return _catboost(estimator, backend)


def source_of(schema: Input, estimator: Any) -> Source:
    """The matrix of a table whose columns are the booster's own; categories become the library's numbers for them."""
    kind, text = class_path(estimator), [column.name for column in schema.columns if column.dtype == "category"]
    if kind in _CATBOOST:
        return Source(_catboost_rows(schema, estimator))
    known: list[Any] = [column.categories for column in schema.columns if column.dtype == "category"]
    if kind in _LIGHTGBM and text:
        known = _booster_of(estimator).pandas_categorical
    require(len(known) == len(text), "categories that the booster does not hold")
    codes: Mapping[str, Codes] = {
        name: {cell: float(at) for at, cell in enumerate(cells)} for name, cells in zip(text, known, strict=True)
    }
    return Source(coded_columns(schema, codes, refuses=kind in _XGBOOST))


def _catboost_rows(schema: Input, estimator: Any) -> Callable[[Table], Array]:
    """Numbers as a matrix; with categorical features a matrix of objects, which CatBoost reads cell by cell."""
    require(not estimator.get_text_feature_indices(), "text features")
    require(not estimator.get_embedding_feature_indices(), "embedding features")
    if not estimator.get_cat_feature_indices():
        return coded_columns(schema, {}, refuses=False)
    names = [column.name for column in schema.columns]

    def gather(table: Table) -> Array:
        if table.arrays is None:
            assert table.matrix is not None
            return table.matrix.astype(object)
        found = np.empty((table.rows, len(names)), dtype=object)
        for at, name in enumerate(names):
            found[:, at] = table.arrays[name]
        return found

    return gather


def _check_cells(matrix: Array) -> None:
    """Raise EstimatorRequired for an infinity, and for a number that single precision may round twice."""
    total = squares(matrix)
    if total < _ALWAYS_EXACT:
        return
    with np.errstate(invalid="ignore"):
        if (np.abs(matrix) > _MAX_EXACT).any():
            raise EstimatorRequired


def _xgboost(estimator: Any, backend: str, is_sparse: bool) -> dict[str, Method]:
    require(estimator.booster != "gblinear", "a linear booster")
    require(not callable(estimator.objective), "an objective of its own")
    booster, missing = estimator.get_booster(), estimator.missing
    best = booster.attr("best_iteration")
    rounds, width = (0, 0) if best is None else (0, int(best) + 1), booster.num_features()

    def native(matrix: Array) -> Array:
        found: Array = booster.inplace_predict(matrix, iteration_range=rounds, missing=missing, validate_features=False)
        return found

    if backend == treelite.TREELITE:
        require(missing != missing, "a marker of missing cells")
        compute = treelite_boosters.xgboost(booster[: rounds[1]] if rounds[1] else booster)
    else:
        require(backend == BOOSTER, "trees of XGBoost")
        compute = native

    def values(matrix: Array) -> Array:
        if matrix.shape[1] != width:  # the library would read past the end of a row
            raise EstimatorRequired
        _check_cells(matrix)
        return compute(np.where(matrix == 0, np.nan, matrix) if is_sparse else matrix)

    if not hasattr(estimator, "n_classes_"):
        return {"predict": values}
    require(estimator.objective != "multi:softmax", "the objective multi:softmax")
    several = estimator.n_classes_ > 2

    def predict(matrix: Array) -> Array:
        found = values(matrix)
        return found.argmax(axis=1) if several else (found > 0.5).astype(np.int64)

    def probabilities(matrix: Array) -> Array:
        return values(matrix) if several else _both(values(matrix))

    return {"predict": predict, "predict_proba": probabilities}


def _both(second: Array) -> Array:
    found: Array = np.stack([1.0 - second, second], axis=1)
    return found


def _booster_of(estimator: Any) -> Any:
    return estimator.booster_ if hasattr(estimator, "booster_") else estimator


def _lightgbm(estimator: Any, backend: str) -> dict[str, Method]:
    booster = _booster_of(estimator)
    require(not callable(getattr(estimator, "objective", None)), "an objective of its own")
    if backend == treelite.TREELITE:
        raw, values = treelite_boosters.lightgbm(booster)
    else:
        require(backend == BOOSTER, "trees of LightGBM")

        def raw(matrix: Array) -> Array:
            found: Array = booster.predict(matrix, raw_score=True, num_threads=1)
            return found

        def values(matrix: Array) -> Array:
            found: Array = booster.predict(matrix, num_threads=1)
            return found

    if not hasattr(estimator, "classes_"):
        return {"predict": values}
    classes = estimator.classes_

    def probabilities(matrix: Array) -> Array:
        found = values(matrix)
        return found if found.ndim == 2 else _both(found)

    def predict(matrix: Array) -> Array:
        found: Array = classes[probabilities(matrix).argmax(axis=1)]
        return found

    return {"predict": predict, "predict_proba": probabilities, "decision_function": raw}


def _catboost(estimator: Any, backend: str) -> dict[str, Method]:
    if backend == BOOSTER:
        # `predict` of the loaded estimator uses one thread: tableside.contracts.native_boosters.
        names = [name for name in ("predict", "predict_proba") if hasattr(estimator, name)]
        return {name: getattr(estimator, name) for name in names}
    require(backend == "tree_walk", "trees of CatBoost")
    return oblivious_trees.methods(estimator, _check_cells)
