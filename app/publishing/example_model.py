"""The example model that `tableside init` publishes: small, on data that scikit-learn ships."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tableside.contracts.schema import Contract
from tableside.publishing.progress import Progress, silent
from tableside.publishing.publish import publish

if TYPE_CHECKING:
    import pandas as pd
    from sklearn.base import BaseEstimator


def iris() -> tuple[BaseEstimator, pd.DataFrame]:
    """Return an estimator that predicts the name of one of three species from four lengths, and its training data."""
    import numpy as np
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    data = load_iris(as_frame=True)
    names = np.asarray(data.target_names)[data.target]
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(data.data, names), data.data


def publish_iris(repository: Path, progress: Progress = silent) -> Contract:
    """Train the model `iris` and publish it as its next version. Raises PublishFailed."""
    progress("training iris")
    estimator, sample = iris()
    # A column accepts missing cells where the estimator answers them, also if the sample has none there.
    return publish(
        "iris", estimator, sample, repository=repository, alias="champion", nullable="all", progress=progress
    )
