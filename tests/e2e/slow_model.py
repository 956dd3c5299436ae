"""A model that is slow by nature: nearest neighbours by brute force over many training rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from sklearn.neighbors import KNeighborsRegressor


def slow_estimator() -> tuple[Any, pd.DataFrame]:
    chance = np.random.default_rng(3)
    data = chance.normal(size=(6000, 20))
    sample = pd.DataFrame(data, columns=[f"x{at}" for at in range(20)])
    return KNeighborsRegressor(5, algorithm="brute", p=3).fit(sample, data.sum(axis=1)), sample.iloc[:200]
