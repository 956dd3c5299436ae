"""A model with code of its own whose behaviour is in the row: what it does wrong can be asked for, one at a time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.e2e.conftest import Stack

CODE = '''"""A regressor that answers 2 x, and misbehaves for large x; one that raises from 50 on does so below 60."""
import ctypes
import time

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin


class Moody(RegressorMixin, BaseEstimator):
    def __init__(self, raises_from=1000.0):
        self.raises_from = raises_from

    def fit(self, X, y=None):
        self.n_features_in_ = X.shape[1]
        return self

    def predict(self, X):
        x = np.asarray(X, dtype=float)[:, -1]
        highest = x.max()
        if 100 <= highest < 200:
            ctypes.string_at(0)
        if 200 <= highest < 300:
            time.sleep(1.0)
        if highest >= 1000 or self.raises_from <= highest < 60:
            raise KeyError("moody")
        return np.where((x >= 90) & (x < 100), np.inf, 2 * x)
'''
TRAIN = """
import joblib, pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from moody import Moody
sample = pd.DataFrame({"shop": ["north", "south"] * 20, "x": [float(n) for n in range(40)]})
for version, raises_from in ((1, 1000.0), (2, 50.0)):
    shops = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["shop"]), remainder="passthrough"
    )
    model = make_pipeline(shops, Moody(raises_from)).fit(sample, 2.0 * sample["x"])
    joblib.dump(model, f"moody-{version}.joblib")
sample.to_csv("sample.csv", index=False)
"""
CRASHES, SLEEPS, RAISES, NOT_FINITE, RAISES_IN_2 = 150.0, 250.0, 2000.0, 95.0, 55.0
"""Values of x: the process ends; the answer takes a second; 500; infinity; 500 of version 2 only."""


def rows(x: float, count: int = 1, shop: str = "north") -> dict[str, object]:
    """A body of the protocol V1 with rows of this x."""
    return {"instances": [{"shop": shop, "x": x}] * count}


def publish(stack: Stack, folder: Path) -> None:
    """Train two versions in `folder` and publish them as `moody`; the first one answers."""
    (folder / "moody.py").write_text(CODE)
    subprocess.run([sys.executable, "-c", TRAIN], cwd=folder, check=True, timeout=120)
    for version in (1, 2):
        words = (str(folder / f"moody-{version}.joblib"), "--sample", str(folder / "sample.csv"))
        done = stack.cli("publish", "moody", *words, "--code", str(folder / "moody.py"), "--quick")
        assert done.returncode == 0, done.stderr
    done = stack.cli("promote", "moody/1")
    assert done.returncode == 0, done.stderr
