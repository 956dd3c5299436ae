"""The split points of the trees of XGBoost, LightGBM and CatBoost, read from the formats that they document."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from tableside.contracts.array_type import Array
from tableside.contracts.object_graph import package_of

Splits = tuple[Array, Array]
"""The column of each split, and its threshold; both of shape [splits]."""


def of(estimator: Any) -> list[Splits]:
    """Return the splits of each tree of a booster, or of all its trees at once; nothing for other estimators.

    Splits by category are left out. A format that cannot be read, of a later release, gives no splits.
    """
    try:
        return list(_of(estimator))
    except (LookupError, TypeError, ValueError, AttributeError):
        return []


def _of(estimator: Any) -> Iterator[Splits]:
    package = package_of(estimator)
    if package == "xgboost" and hasattr(estimator, "get_booster"):
        yield from _xgboost(json.loads(bytes(estimator.get_booster().save_raw("json"))))
    elif package == "lightgbm":
        yield from _lightgbm(getattr(estimator, "booster_", estimator).model_to_string())
    elif package == "catboost" and hasattr(estimator, "get_borders"):
        for column, borders in estimator.get_borders().items():
            yield np.full(len(borders), column), np.asarray(borders, dtype=np.float64)


def _xgboost(model: Mapping[str, Any]) -> Iterator[Splits]:
    booster = model["learner"]["gradient_booster"]
    for tree in booster.get("gbtree", booster).get("model", {}).get("trees", []):
        inner = (np.array(tree["left_children"]) >= 0) & (np.array(tree.get("split_type", [0])) == 0)
        yield np.array(tree["split_indices"])[inner], np.array(tree["split_conditions"], dtype=np.float64)[inner]


_BY_CATEGORY = 1
"""Bit 0 of LightGBM's `decision_type` is set for a split by category."""


def _lightgbm(text: str) -> Iterator[Splits]:
    """Yield the splits in LightGBM's text format, in which each tree has a line for each property of its nodes."""
    lines: dict[str, Array] = {}
    for line in text.splitlines():
        name, _, values = line.partition("=")
        if name in ("split_feature", "threshold", "decision_type") and values:
            lines[name] = np.array(values.split(), dtype=np.float64)
        if len(lines) == 3:
            numeric = (lines["decision_type"].astype(np.int64) & _BY_CATEGORY) == 0
            yield lines["split_feature"].astype(np.int64)[numeric], lines["threshold"][numeric]
            lines = {}
