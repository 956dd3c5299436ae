"""Trees of XGBoost and LightGBM in treelite's compiled tree evaluation."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
from scipy.special import expit

from tableside.contracts.array_type import Array
from tableside.runtimes.fast.numerics import LibraryMissing, Method, Unsupported, require, to_float32
from tableside.runtimes.fast.treelite import TREELITE, constant_trees, predictor_of

_IDENTITY = frozenset(
    ("reg:squarederror", "reg:absoluteerror", "reg:pseudohubererror", "reg:quantileerror", "reg:squaredlogerror")
)
_LOGISTIC = frozenset(("binary:logistic", "reg:logistic"))
_SMALLEST_MARGIN = np.float32(-88.7)
"""XGBoost's sigmoid does not go below this score, where its exponential would be infinite."""


def xgboost(booster: Any) -> Method:
    """XGBoost's predictions of numbers or of two classes, in single precision. Raises LibraryMissing, Unsupported.

    XGBoost starts its sums with the base score, treelite would add it last: it becomes the first tree.
    """
    library = _library()
    learner = json.loads(bytes(booster.save_raw("json")))["learner"]
    objective, start = learner["objective"]["name"], learner["learner_model_param"]["base_score"]
    require(objective in _IDENTITY | _LOGISTIC, f"the objective {objective}")
    starts = [np.float32(text) for text in start.strip("[]").split(",")]
    require(len(starts) == 1 and learner["gradient_booster"]["name"] == "gbtree", "several targets, or dart")
    if objective in _LOGISTIC:
        starts = [-np.float32(math.log(np.float32(1) / starts[0] - np.float32(1)))]
    model = _converted(library.frontend.from_xgboost, booster)
    model.get_header_accessor().set_field("base_scores", np.zeros(1))
    kind, after = ("kBinaryClf", "sigmoid") if objective in _LOGISTIC else ("kRegressor", "identity")
    whole = constant_trees(model, [float(start) for start in starts], "float32", kind, after)
    raw = predictor_of(whole, "raw", "float32")

    def values(matrix: Array) -> Array:
        found = raw(to_float32(matrix))[:, 0]
        return expit(np.maximum(found, _SMALLEST_MARGIN)) if objective in _LOGISTIC else found

    return values


def lightgbm(booster: Any) -> tuple[Method, Method]:
    """LightGBM's raw scores, and its predictions of numbers or of two classes. Raises LibraryMissing, Unsupported."""
    library = _library()
    model = _converted(library.frontend.from_lightgbm, booster)
    fields = model.get_header_accessor()
    after, width = str(fields.get_field("postprocessor")), int(np.ravel(fields.get_field("num_class"))[0])
    require(after in ("identity", "sigmoid") and width == 1, f"the function {after} of {width} scores")
    slope = float(np.ravel(fields.get_field("sigmoid_alpha"))[0]) if after == "sigmoid" else 1.0
    scores = predictor_of(model, "raw", "float64")

    def raw(matrix: Array) -> Array:
        found: Array = scores(np.ascontiguousarray(matrix, dtype=np.float64))[:, 0]
        return found

    return raw, (lambda matrix: expit(slope * raw(matrix))) if after == "sigmoid" else raw


def _library() -> Any:
    try:
        import treelite
        import treelite.frontend
    except (ImportError, OSError) as absent:
        raise LibraryMissing(TREELITE) from absent
    return treelite


def _converted(convert: Any, booster: Any) -> Any:
    try:
        return convert(booster)
    except Exception as refused:  # treelite's errors have no common base class
        raise Unsupported(f"treelite: {refused}") from refused
