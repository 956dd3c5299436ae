"""Trees by treelite's compiled walk (GTIL): the fitted trees again, in a library of its own, where it is installed."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from app.contract.cells import Array
from app.runtimes.direct.parts import Method, Missing, Unsupported, is_exactly, require
from app.runtimes.direct.trees import FORESTS, HISTOGRAM, as_cells, boosted, takes_gaps

TREELITE = "treelite"


def methods(estimator: Any) -> dict[str, Method]:
    """Its methods over a matrix. Raises Missing without treelite, Unsupported for what is not known here."""
    require(is_exactly(estimator, *FORESTS, *HISTOGRAM), f"no way around {type(estimator).__name__}")
    try:
        import treelite
        import treelite.sklearn
    except (ImportError, OSError) as absent:
        raise Missing(TREELITE) from absent
    try:
        return _forest(estimator) if is_exactly(estimator, *FORESTS) else _histogram(estimator)
    except (treelite.TreeliteError, NotImplementedError, AssertionError) as refused:
        raise Unsupported(f"treelite: {refused}") from refused


def _forest(estimator: Any) -> dict[str, Method]:
    """Cells as scikit-learn's trees see them: rounded to single precision, compared in double."""
    import treelite
    from treelite import gtil

    require(estimator.n_outputs_ == 1, "several targets")
    model, gaps = treelite.sklearn.import_model(estimator), takes_gaps(estimator.estimators_[0])

    def said(matrix: Array) -> Array:
        cells = as_cells(matrix, gaps).astype(np.float64)
        found: Array = gtil.predict(model, cells, nthread=1).reshape(len(cells), -1)
        return found

    if not hasattr(estimator, "classes_"):
        return {"predict": lambda matrix: said(matrix)[:, 0]}
    classes = estimator.classes_
    return {"predict_proba": said, "predict": lambda matrix: classes.take(said(matrix).argmax(axis=1), axis=0)}


def _histogram(estimator: Any) -> dict[str, Method]:
    """Raw scores; what boosting makes of them is done as in scikit-learn."""
    from treelite import gtil

    require(estimator.is_categorical_ is None and estimator._preprocessor is None, "categorical features")
    model = _from_baseline(estimator)

    def raw(matrix: Array) -> Array:
        cells = np.ascontiguousarray(matrix, dtype=np.float64)
        found: Array = gtil.predict(model, cells, nthread=1, pred_margin=True).reshape(len(cells), -1)
        return np.asfortranarray(found)

    return boosted(estimator, raw, zero_is_second=False)


def _from_baseline(estimator: Any) -> Any:
    """The trees behind a leaf for each class with its baseline: treelite adds that last, scikit-learn first."""
    import treelite
    from treelite.model_builder import Metadata, ModelBuilder, PostProcessorFunc, TreeAnnotation

    without = copy.copy(estimator)
    without._baseline_prediction = np.zeros_like(estimator._baseline_prediction)
    trees, width = treelite.sklearn.import_model(without), estimator.n_trees_per_iteration_
    classifies = hasattr(estimator, "classes_")
    kind, after = ("kMultiClf", "softmax") if width > 1 else ("kBinaryClf", "sigmoid")
    builder: Any = ModelBuilder(
        threshold_type="float64",
        leaf_output_type="float64",
        metadata=Metadata(
            num_feature=estimator.n_features_in_, task_type=kind if classifies else "kRegressor",
            average_tree_output=False, num_target=1, num_class=[width], leaf_vector_shape=(1, 1),
        ),
        tree_annotation=TreeAnnotation(num_tree=width, target_id=[0] * width, class_id=list(range(width))),
        postprocessor=PostProcessorFunc(name=after if classifies else "identity"),
        base_scores=[0.0] * width,
    )  # fmt: skip
    for start in np.ravel(estimator._baseline_prediction):
        builder.start_tree()
        builder.start_node(0)
        builder.leaf(float(start))
        builder.end_node()
        builder.end_tree()
    return treelite.Model.concatenate([builder.commit(), trees])
