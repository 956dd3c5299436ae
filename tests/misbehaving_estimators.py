"""An estimator whose temper is read from a file: it answers, crashes, hangs or changes its mind.

Published while the file is not there, so that the contract is an honest one; then the mood is written.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, RegressorMixin

from tableside.contract.schema import Contract
from tableside.publishing.publish import publish
from tableside.repository import paths

TYPE = "tests.misbehaving_estimators.MisbehavingRegressor"


class MisbehavingRegressor(RegressorMixin, BaseEstimator):
    """Adds up each row. mood: the file that says what to do; each process that asks leaves its pid beside it."""

    def __init__(self, mood: str = "") -> None:
        self.mood = mood

    def fit(self, rows: Any, target: Any) -> MisbehavingRegressor:
        self.n_features_in_ = rows.shape[1]
        return self

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        act(self.mood, "load")

    def predict(self, rows: Any) -> Any:
        shift = act(self.mood, "predict")
        return np.asarray(rows, dtype=np.float64).sum(axis=1) + shift


def act(mood: str, when: str) -> float:
    try:
        words = Path(mood).read_text().split()
    except OSError:
        return 0.0
    with Path(f"{mood}.pids").open("a") as pids:
        pids.write(f"{os.getpid()}\n")
    if when not in words:
        return 0.0
    sys.stdout.write("out of sorts\n")
    sys.stderr.write(f"the mood is {words[1]}, token {os.environ.get('MOODY_TOKEN')}\n")
    sys.stdout.flush()
    sys.stderr.flush()
    if words[1] == "shift":
        return 1.0
    if words[1] == "hang":
        while True:
            time.sleep(0.5)
    if words[1] == "exit":
        os._exit(0)
    if words[1] == "leave":
        sys.exit(3)
    if words[1] == "abort":
        os.abort()
    os.kill(os.getpid(), signal.SIGSEGV)
    return 0.0


def behaviour_file(root: Path, name: str, version: int = 1) -> Path:
    """Where a version's mood is read."""
    return root.parent / f"{name}-{version}.mood"


def set_behaviour(root: Path, name: str, words: str, version: int = 1) -> None:
    """Change the temper of a published version."""
    behaviour_file(root, name, version).write_text(words)


def publish_misbehaving(root: Path, name: str, words: str = "") -> Contract:
    """Publish the next version of a Moody in good temper, then give it `words`: `predict segfault`, `load hang`, ..."""
    version = (paths.versions(root, name) or [0])[-1] + 1
    rows = pd.DataFrame({"a": [1.0, 2.0, 3.0], "b": [0.5, 0.25, 4.0]})
    estimator = MisbehavingRegressor(str(behaviour_file(root, name, version))).fit(rows, None)
    contract = publish(name, estimator, rows, repository=root, trusted_types=(TYPE,))
    set_behaviour(root, name, words, version)
    return contract


def pids(root: Path, name: str, version: int = 1) -> set[str]:
    """The processes that asked a Moody since its mood was first written."""
    file = Path(f"{behaviour_file(root, name, version)}.pids")
    return set(file.read_text().split()) if file.exists() else set()
