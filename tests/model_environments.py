"""A trainer's files from an environment with an older scikit-learn: estimators, samples, and the answers in memory."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests import training_environments

TRAIN = """
import sys, pathlib, joblib, numpy as np
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

out = pathlib.Path(sys.argv[1])
X, y = load_wine(return_X_y=True, as_frame=True)
model = make_pipeline(StandardScaler(), LogisticRegression(multi_class="ovr", max_iter=1000)).fit(X, y)
joblib.dump(model, out / "ovr.joblib")
X.assign(target=y).to_csv(out / "ovr.csv", index=False)
np.savez(out / "ovr.npz", proba=model.predict_proba(X))
Z = X[["alcohol", "hue"]].assign(shade=np.where(X["hue"] > 1, "light", "dark"), strong=X["alcohol"] > 13)
columns = make_column_transformer((OneHotEncoder(), ["shade"]), ("passthrough", ["alcohol", "hue", "strong"]))
mixed = make_pipeline(columns, LogisticRegression(multi_class="ovr", max_iter=2000)).fit(Z, y)
joblib.dump(mixed, out / "mixed.joblib")
Z.assign(target=y).to_csv(out / "mixed.csv", index=False)
np.savez(out / "mixed.npz", proba=mixed.predict_proba(Z))
"""
"""LogisticRegression(multi_class="ovr") answers probabilities that no later release gives for the same file."""


OLDEST = training_environments.oldest()
RELEASE = OLDEST.release


def old_python() -> str:
    """Return the interpreter of the environment with RELEASE."""
    return str(OLDEST.python())


def train(folder: Path) -> None:
    """Write what a trainer has: estimators, samples, and the answers in memory."""
    done = subprocess.run([old_python(), "-c", TRAIN, str(folder)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
