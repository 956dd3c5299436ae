"""Train the four example models from data that scikit-learn ships, and publish them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris, load_wine
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from tableside.contract.schema import Contract
from tableside.publishing.publish import publish

SEED = 20


def iris() -> tuple[Any, pd.DataFrame]:
    """Three species by four lengths: a scaled logistic regression that answers the species' name."""
    data = load_iris(as_frame=True)
    names = np.asarray(data.target_names)[data.target]
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(data.data, names), data.data


def breast_cancer() -> tuple[Any, pd.DataFrame]:
    """Benign or malignant by 30 measurements: a forest of 100 trees."""
    data = load_breast_cancer(as_frame=True)
    return RandomForestClassifier(100, random_state=SEED).fit(data.data, data.target), data.data


def diabetes() -> tuple[Any, pd.DataFrame]:
    """Progression after a year by ten measurements: histogram gradient boosting, which takes missing cells."""
    data = load_diabetes(as_frame=True)
    return HistGradientBoostingRegressor(random_state=SEED).fit(data.data, data.target), data.data


def wine_table() -> pd.DataFrame:
    """Scikit-learn's wine data as tables look in life: numbers with missing values, a text column with missing values,
    a boolean.
    """
    data = load_wine(as_frame=True)
    frame = pd.DataFrame(data.data[["alcohol", "malic_acid", "magnesium", "proline"]])
    shades = pd.cut(data.data["color_intensity"], [0, 3.5, 6, 20], labels=["pale", "ruby", "deep"])
    frame["shade"] = shades.astype(object)
    frame["aromatic"] = data.data["flavanoids"] > 2
    frame["magnesium"] = frame["magnesium"].astype(int)
    chance = np.random.default_rng(SEED)
    frame.loc[chance.random(len(frame)) < 0.1, "malic_acid"] = np.nan
    frame.loc[chance.random(len(frame)) < 0.1, "shade"] = np.nan
    return frame


def wine() -> tuple[Any, pd.DataFrame]:
    """Which of three vineyards: numeric, text and boolean columns with missing values through a ColumnTransformer."""
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


EXAMPLES: dict[str, Callable[[], tuple[Any, pd.DataFrame]]] = {
    "iris": iris,
    "breast-cancer": breast_cancer,
    "diabetes": diabetes,
    "wine": wine,
}


def publish_all(repository: Path, *, progress: Callable[[str], None] = lambda step: None) -> list[Contract]:
    """Train and publish every example into `repository`; each becomes the next version of its model."""
    contracts = []
    for name, train in EXAMPLES.items():
        progress(f"training {name}")
        estimator, sample = train()
        contracts.append(publish(name, estimator, sample, repository=repository, alias="champion"))
    return contracts


if __name__ == "__main__":
    import sys

    where = Path(sys.argv[1] if len(sys.argv) > 1 else "models")
    for contract in publish_all(where):
        sys.stdout.write(f"published {contract.name}/{contract.version}\n")
