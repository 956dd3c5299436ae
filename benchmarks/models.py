"""The four models that every contestant serves, trained once per run, and the rows that are sent."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from examples.train import wine
from tableside.publishing.publish import publish

SEED, ASKED_ROWS = 7, 48
ARRAY, TABLE = "array", "table"


@dataclass(frozen=True)
class Model:
    """A trained model as files, with rows to send and the estimator's answers to them.

    rows: each a list of numbers, or for a table an object by column name. No cell is missing, because not every
    contestant accepts missing cells in JSON. answers: one class number per row.
    """

    name: str
    kind: str
    joblib_file: Path
    repository: Path
    rows: list[Any]
    answers: list[int]


def train(folder: Path, names: list[str]) -> list[Model]:
    """Train the named models. Publish each in `folder`/models, and save it as `folder`/NAME.joblib for the others."""
    return [_save(folder, name, *TRAINERS[name]()) for name in names]


def _save(folder: Path, name: str, estimator: Any, sample: Any, kind: str) -> Model:
    repository = folder / "models" / name
    repository.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        publish(name, estimator, sample, repository=repository)
    target = folder / f"{name}.joblib"
    joblib.dump(estimator, target)
    if kind == TABLE:
        asked = sample.dropna().sample(ASKED_ROWS, random_state=SEED)
        rows = [{str(key): _plain(cell) for key, cell in row.items()} for row in asked.to_dict("records")]
    else:
        asked = sample[np.random.default_rng(SEED).permutation(len(sample))[:ASKED_ROWS]]
        rows = asked.tolist()
    return Model(name, kind, target, repository, rows, [int(answer) for answer in estimator.predict(asked)])


def _plain(cell: Any) -> Any:
    return cell.item() if isinstance(cell, np.generic) else cell


def _on_breast_cancer(estimator: Any) -> tuple[Any, Any, str]:
    rows, target = load_breast_cancer(return_X_y=True)
    return estimator.fit(rows, target), rows, ARRAY


def _logistic() -> tuple[Any, Any, str]:
    return _on_breast_cancer(make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)))


def _forest() -> tuple[Any, Any, str]:
    return _on_breast_cancer(RandomForestClassifier(100, random_state=SEED))


def _boosting() -> tuple[Any, Any, str]:
    return _on_breast_cancer(HistGradientBoostingClassifier(random_state=SEED))


def _mixed() -> tuple[Any, Any, str]:
    return *wine(), TABLE


TRAINERS = {"logistic": _logistic, "forest": _forest, "boosting": _boosting, "mixed": _mixed}
DESCRIPTIONS = {
    "logistic": "StandardScaler and LogisticRegression, 30 columns",
    "forest": "RandomForestClassifier of 100 trees, the same 30 columns",
    "boosting": "HistGradientBoostingClassifier, the same 30 columns",
    "mixed": "ColumnTransformer (numbers imputed and scaled, one-hot text, a flag) and LogisticRegression, 6 columns",
}
