"""The treelite backend: forests and histogram boosting in treelite's compiled tree evaluation (GTIL)."""

from __future__ import annotations

import copy
import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tableside.contracts.array_type import Array
from tableside.runtimes.fast.numerics import EstimatorRequired, LibraryMissing, Method, Unsupported, is_exactly, require
from tableside.runtimes.fast.trees import FORESTS, HISTOGRAM, as_cells, boosted, takes_missing

TREELITE = "treelite"
Convert = Callable[[], Any]
Keep = Callable[[Convert], Any]
"""Returns the model that a conversion makes: by the conversion, or one that it has made before."""


def convert_anew(convert: Convert) -> Any:
    """A Keep that keeps nothing."""
    return convert()


def methods(estimator: Any, keep: Keep = convert_anew) -> dict[str, Method]:
    """The estimator's methods as functions of a matrix. Raises LibraryMissing without treelite, and Unsupported.

    keep: keeps the model converted from this estimator.
    """
    require(is_exactly(estimator, *FORESTS, *HISTOGRAM), f"no fast backend for {type(estimator).__name__}")
    try:
        import treelite
        import treelite.sklearn
    except (ImportError, OSError) as absent:
        raise LibraryMissing(TREELITE) from absent
    try:
        return _forest(estimator, keep) if is_exactly(estimator, *FORESTS) else _histogram(estimator, keep)
    except (treelite.TreeliteError, NotImplementedError, AssertionError) as refused:
        raise Unsupported(f"treelite: {refused}") from refused


def _forest(estimator: Any, keep: Keep) -> dict[str, Method]:
    """A forest. Cells are rounded to float32 and compared in double precision, as scikit-learn's trees do."""
    import treelite

    require(estimator.n_outputs_ == 1, "several targets")
    predict_raw, has_missing = (
        predictor_of(keep(lambda: treelite.sklearn.import_model(estimator)), "default"),
        takes_missing(estimator.estimators_[0]),
    )

    def probabilities(matrix: Array) -> Array:
        return predict_raw(as_cells(matrix, has_missing).astype(np.float64))

    if not hasattr(estimator, "classes_"):
        return {"predict": lambda matrix: probabilities(matrix)[:, 0]}
    classes = estimator.classes_
    return {
        "predict_proba": probabilities,
        "predict": lambda matrix: classes.take(probabilities(matrix).argmax(axis=1), axis=0),
    }


def _histogram(estimator: Any, keep: Keep) -> dict[str, Method]:
    """Histogram boosting. treelite computes raw scores; `boosted` makes labels and probabilities of them."""
    require(estimator.is_categorical_ is None, "categorical features")
    predict_raw = predictor_of(keep(lambda: _from_baseline(estimator)), "raw")

    def raw(matrix: Array) -> Array:
        return np.asfortranarray(predict_raw(np.ascontiguousarray(matrix, dtype=np.float64)))

    return boosted(estimator, raw, zero_is_second=False)


def predictor_of(model: Any, kind: str, dtype: str = "float64") -> Method:
    """A function that runs treelite on a C-ordered matrix of this dtype, of shape [rows, columns].

    kind: "default" for probabilities, "raw" for scores. `gtil.predict` reads the types, shapes and settings of the
    model before each call, which takes longer than the trees for one row. This function reads them once.
    """
    from treelite import core, gtil

    settings, columns = gtil.gtil.GTILConfig(predict_type=kind, nthread=1), model.num_feature
    require(model.input_type == model.output_type == dtype, "trees of another precision")
    width = gtil.predict(model, np.zeros((1, columns), dtype=dtype), nthread=1, pred_margin=kind == "raw").size
    call, check, name = core._LIB.TreeliteGTILPredict, core._check_call, dtype.encode()

    def predict_raw(cells: Array) -> Array:
        rows, wide = cells.shape
        if wide != columns:  # the library would read past their end
            raise EstimatorRequired
        found = np.zeros((rows, width), dtype=dtype)
        read, written = ctypes.c_void_p(cells.ctypes.data), ctypes.c_void_p(found.ctypes.data)
        check(call(model.handle, read, name, ctypes.c_uint64(rows), written, settings.handle))
        return found

    return predict_raw


def _from_baseline(estimator: Any) -> Any:
    """The model with scikit-learn's baseline as its first trees."""
    import treelite

    without = copy.copy(estimator)
    without._baseline_prediction = np.zeros_like(estimator._baseline_prediction)
    trees, width = treelite.sklearn.import_model(without), estimator.n_trees_per_iteration_
    kind, after = ("kMultiClf", "softmax") if width > 1 else ("kBinaryClf", "sigmoid")
    if not hasattr(estimator, "classes_"):
        kind, after = "kRegressor", "identity"
    return constant_trees(trees, np.ravel(estimator._baseline_prediction).tolist(), "float64", kind, after)


def constant_trees(model: Any, starts: Sequence[float], dtype: str, kind: str, after: str) -> Any:
    """The model with a first tree for each class that is one leaf with a constant.

    The libraries of trees start their sums with it and treelite adds it last, which gives other last digits.
    kind, after: the model's task and postprocessor, in treelite's words.
    """
    import treelite
    from treelite.model_builder import Metadata, ModelBuilder, PostProcessorFunc, TreeAnnotation

    width = len(starts)
    builder: Any = ModelBuilder(
        threshold_type=dtype,
        leaf_output_type=dtype,
        metadata=Metadata(
            num_feature=model.num_feature, task_type=kind, average_tree_output=False, num_target=1, num_class=[width],
            leaf_vector_shape=(1, 1),
        ),
        tree_annotation=TreeAnnotation(num_tree=width, target_id=[0] * width, class_id=list(range(width))),
        postprocessor=PostProcessorFunc(name=after),
        base_scores=[0.0] * width,
    )  # fmt: skip
    for start in starts:
        builder.start_tree()
        builder.start_node(0)
        builder.leaf(float(start))
        builder.end_node()
        builder.end_tree()
    return treelite.Model.concatenate([builder.commit(), model])
