"""An estimator whose behaviour is read from a file when it is loaded and when it predicts.

It is published while that file does not exist, so that its contract has correct answers; then the file is written.
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

from tableside.contracts.schema import Contract
from tableside.publishing.publish import publish
from tableside.repository import paths

TYPE = "tests.misbehaving_estimators.MisbehavingRegressor"
SECRET_VARIABLE = "MISBEHAVING_TOKEN"
"""A variable whose value the estimator writes to stderr; the log must not have it."""


class MisbehavingRegressor(RegressorMixin, BaseEstimator):
    """Adds up each row. behaviour: the path of its behaviour file; beside it each process notes its pid."""

    def __init__(self, behaviour: str = "") -> None:
        self.behaviour = behaviour

    def fit(self, rows: Any, target: Any) -> MisbehavingRegressor:
        self.n_features_in_ = rows.shape[1]
        return self

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        misbehave(self.behaviour, "load")

    def predict(self, rows: Any) -> Any:
        shift = misbehave(self.behaviour, "predict")
        return np.asarray(rows, dtype=np.float64).sum(axis=1) + shift


def misbehave(file: str, moment: str) -> float:
    """Do what the file says for this moment (`load` or `predict`). Return what is added to every answer."""
    try:
        words = Path(file).read_text().split()
    except OSError:
        return 0.0
    with Path(f"{file}.pids").open("a") as pids:
        pids.write(f"{os.getpid()}\n")
    if moment not in words:
        return 0.0
    sys.stdout.write("output of a model\n")
    sys.stderr.write(f"behaviour {words[1]}, token {os.environ.get(SECRET_VARIABLE)}\n")
    sys.stdout.flush()
    sys.stderr.flush()
    if words[1] == "shift":
        return 1.0
    if words[1] == "raise":
        raise KeyError("misbehaved")
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
    """Return the path of a version's behaviour file."""
    return root.parent / f"{name}-{version}.behaviour"


def set_behaviour(root: Path, name: str, words: str, version: int = 1) -> None:
    """Change the behaviour of a published version: `predict segfault`, `load hang`, ...; other words mean none."""
    behaviour_file(root, name, version).write_text(words)


def publish_misbehaving(root: Path, name: str, words: str = "") -> Contract:
    """Publish the next version of a MisbehavingRegressor, and then set its behaviour."""
    version = (paths.versions(root, name) or [0])[-1] + 1
    rows = pd.DataFrame({"a": [1.0, 2.0, 3.0], "b": [0.5, 0.25, 4.0]})
    estimator = MisbehavingRegressor(str(behaviour_file(root, name, version))).fit(rows, None)
    contract = publish(name, estimator, rows, repository=root, trusted_types=(TYPE,))
    set_behaviour(root, name, words, version)
    return contract


def pids(root: Path, name: str, version: int = 1) -> set[str]:
    """Return the processes that have loaded a version, or predicted with it, since it was published."""
    file = Path(f"{behaviour_file(root, name, version)}.pids")
    return set(file.read_text().split()) if file.exists() else set()
