"""An environment with an older scikit-learn: `tableside env create` makes it once, in the user's cache folder."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

from tableside import settings as app_settings
from tableside.model_process import known_environments, venvs
from tableside.process.file_locks import try_lock
from tests.waiting import wait_until

RELEASE = "1.2.2"
REQUIREMENTS = f"scikit-learn=={RELEASE}\nnumpy<2\npandas\nskops\n"
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


def cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "tableside" / "model-environments"


@cache
def old_python() -> str:
    """Return the interpreter of the environment with RELEASE."""
    digest = hashlib.sha256((REQUIREMENTS + sys.base_prefix).encode()).hexdigest()[:8]
    folder = cache_folder() / digest
    folder.mkdir(parents=True, exist_ok=True)
    held: list[int | None] = []

    def lock() -> bool:
        held.append(try_lock(folder / "lock"))
        return held[-1] is not None

    assert wait_until(lock, 600)
    try:
        settings = app_settings.load({"TABLESIDE__SERVER__ENVIRONMENTS_DIR": str(folder)})
        if "old" not in known_environments.known(settings):
            shutil.rmtree(folder / "old", ignore_errors=True)
            (folder / "old.txt").write_text(REQUIREMENTS)
            venvs.create(settings, "old", folder / "old.txt", venvs.default_python(), lambda step: None)
            assert "--hash=sha256:" in (folder / "old.locked.txt").read_text()
        return known_environments.known(settings)["old"].python
    finally:
        if held[-1] is not None:
            os.close(held[-1])


def train(folder: Path) -> None:
    """Write what a trainer has: estimators, samples, and the answers in memory."""
    done = subprocess.run([old_python(), "-c", TRAIN, str(folder)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
