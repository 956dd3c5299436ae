"""The repository of the soak: many small models of three kinds, and a large forest.

Rows are taken from a data set that scikit-learn brings. Each model's request and its right answer are kept with it.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tableside.publishing.publish import publish

LARGE_NAME = "large"
_ROWS_OF_A_REQUEST = 2
_SAMPLE_ROWS = 100


@dataclass(frozen=True)
class Target:
    """A request and the answer that it must get. body: a V1 request. predictions: of the estimator in memory."""

    model: str
    body: str
    predictions: list[float] | list[str]


def make(folder: Path, count: int, large_mb: int, progress: Callable[[str], None]) -> list[Target]:
    """Train and publish `count` small models and, if large_mb > 0, a forest of about that size in memory.

    A folder that has them already is used again. Returns one target for each model.
    """
    kept = folder / f"targets-{count}-{large_mb}.json"
    if kept.exists():
        return [Target(**target) for target in json.loads(kept.read_text())]
    features, classes = load_breast_cancer(return_X_y=True, as_frame=True)
    targets = []
    for number in range(count):
        name = f"m{number:04d}"
        progress(f"training and publishing {name} ({number + 1} of {count})")
        estimator = _small(number).fit(features, classes)
        targets.append(_publish(folder / "models", name, estimator, features, number))
    if large_mb:
        progress(f"training and publishing a forest of {large_mb} MB")
        targets.append(_publish(folder / "models", LARGE_NAME, _large(large_mb), features, 0))
    kept.write_text(json.dumps([vars(target) for target in targets]))
    return targets


def _small(number: int) -> object:
    if number % 3 == 0:
        return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, C=1.0 + number))
    if number % 3 == 1:
        return RandomForestClassifier(100, random_state=number)
    return HistGradientBoostingClassifier(max_iter=50, random_state=number)


def _large(megabytes: int) -> RandomForestRegressor:
    """Return a forest whose fitted trees take about `megabytes` in memory."""
    features, _ = load_breast_cancer(return_X_y=True, as_frame=True)
    random = np.random.default_rng(0)
    rows = pd.DataFrame(random.normal(size=(20_000, features.shape[1])), columns=features.columns)
    target = random.normal(size=len(rows))
    one_tree = len(pickle.dumps(RandomForestRegressor(1, random_state=0).fit(rows, target))) / 1e6
    return RandomForestRegressor(max(1, round(megabytes / one_tree)), n_jobs=2, random_state=0).fit(rows, target)


def _publish(root: Path, name: str, estimator: object, features: pd.DataFrame, first: int) -> Target:
    publish(name, estimator, features.head(_SAMPLE_ROWS), repository=root, quick=True)
    first %= len(features) - _ROWS_OF_A_REQUEST
    rows = features.iloc[first : first + _ROWS_OF_A_REQUEST]
    return Target(name, json.dumps({"instances": rows.to_numpy().tolist()}), estimator.predict(rows).tolist())
