"""Trains the four example models on data sets that scikit-learn ships, and publishes them.

Run `python -m examples.train [REPOSITORY]`; the default repository is `models`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from tableside.contracts.schema import Contract
from tableside.publishing.example_model import iris
from tableside.publishing.publish import publish

SEED = 20
TrainedModel = tuple[BaseEstimator, pd.DataFrame]
"""A fitted estimator, and its training data as the sample."""


def breast_cancer() -> TrainedModel:
    """Predict benign or malignant from 30 measurements: a forest of 100 trees."""
    data = load_breast_cancer(as_frame=True)
    return RandomForestClassifier(100, random_state=SEED).fit(data.data, data.target), data.data


def diabetes() -> TrainedModel:
    """Predict the progression after a year from ten measurements: gradient boosting, which takes missing values."""
    data = load_diabetes(as_frame=True)
    return HistGradientBoostingRegressor(random_state=SEED).fit(data.data, data.target), data.data


def wine_table() -> pd.DataFrame:
    """Return scikit-learn's wine data with the column types of a real table.

    It has integers, numbers and texts with missing values, and booleans.
    """
    data = load_wine(as_frame=True)
    frame = pd.DataFrame(data.data[["alcohol", "malic_acid", "magnesium", "proline"]])
    shades = pd.cut(data.data["color_intensity"], [0, 3.5, 6, 20], labels=["pale", "ruby", "deep"])
    frame["shade"] = shades.astype(object)
    frame["aromatic"] = data.data["flavanoids"] > 2
    frame["magnesium"] = frame["magnesium"].astype(int)
    rng = np.random.default_rng(SEED)
    frame.loc[rng.random(len(frame)) < 0.1, "malic_acid"] = np.nan
    frame.loc[rng.random(len(frame)) < 0.1, "shade"] = np.nan
    return frame


def wine() -> TrainedModel:
    """Predict one of three vineyards from columns of several types: a ColumnTransformer and a logistic regression."""
    frame = wine_table()
    numbers = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    words = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="error"))
    columns = ColumnTransformer(
        [
            ("numbers", numbers, ["alcohol", "malic_acid", "magnesium", "proline"]),
            ("words", words, ["shade"]),
            ("flags", "passthrough", ["aromatic"]),
        ]
    )
    pipeline = Pipeline([("columns", columns), ("classifier", LogisticRegression(max_iter=2000))])
    return pipeline.fit(frame, load_wine().target), frame


EXAMPLES: dict[str, Callable[[], TrainedModel]] = {
    "iris": iris,
    "breast-cancer": breast_cancer,
    "diabetes": diabetes,
    "wine": wine,
}


def publish_all(repository: Path, *, progress: Callable[[str], None] = lambda step: None) -> list[Contract]:
    """Train and publish every example as the next version of its model, and set the alias `champion` to it."""
    contracts = []
    for name, train in EXAMPLES.items():
        progress(f"training {name}")
        estimator, sample = train()
        # A column accepts missing cells where the estimator answers them, also if the sample has none there.
        contracts.append(publish(name, estimator, sample, repository=repository, alias="champion", nullable="all"))
    return contracts


if __name__ == "__main__":
    import sys

    repository = Path(sys.argv[1] if len(sys.argv) > 1 else "models")
    for contract in publish_all(repository):
        sys.stdout.write(f"published {contract.name}/{contract.version}\n")
