"""Models with code of their own that ends its worker for some rows, and the requests that ask for it.

The OOM killer is played by SIGKILL and a copy of /proc/vmstat: a real one would choose among all processes of the host.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.attacks.rows import Limits
from benchmarks.attacks.stage import Outcome, Stage

MISDEEDS = '''"""A transformer that ends its worker for some rows."""
import ctypes
import os
import signal

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin


class Misdeed(TransformerMixin, BaseEstimator):
    def fit(self, X, y=None):
        self.n_features_in_ = X.shape[1]
        return self

    def transform(self, X):
        table = np.asarray(X, dtype=float)
        row = int(table[:, 0].max())
        if 100 <= row < 200:
            ctypes.string_at(0)
        if 200 <= row < 300:
            vmstat = os.environ["TABLESIDE_VMSTAT"]
            with open(vmstat) as file:
                kills = int(file.read().split()[1])
            with open(vmstat, "w") as file:
                file.write(f"oom_kill {kills + 1}\\n")
            os.kill(os.getpid(), signal.SIGKILL)
        if 300 <= row < 400:
            while True:
                ctypes.CDLL(None).pause()
        return table
'''
TRAIN = """
import joblib, pandas as pd
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from misdeeds import Misdeed
sample = pd.DataFrame({"x": [float(n) for n in range(40)]})
joblib.dump(make_pipeline(Misdeed(), LinearRegression()).fit(sample, 2.0 * sample["x"]), "model.joblib")
sample.to_csv("sample.csv", index=False)
"""
MODELS = ("faulty", "hungry", "stuck")
BEFORE = "four workers in turn, neighbours waited 9 to 60 s"
TEST = "tests/e2e/test_killer_requests.py"
QUARANTINED, GRACE_S, RETRY_S = "500 quarantined", 8.0, 60.0
_ATTACKS = {
    "a row that ends its worker by SIGSEGV": ("faulty", 150.0, 502),
    "a row for which the OOM killer ends the worker": ("hungry", 250.0, 502),
    "a row whose call never returns": ("stuck", 350.0, 504),
}


def train(folder: Path) -> dict[str, str]:
    """Train the model in `folder`, and make the copy of /proc/vmstat. Return the setting that names it."""
    (folder / "misdeeds.py").write_text(MISDEEDS)
    subprocess.run([sys.executable, "-c", TRAIN], cwd=folder, check=True, timeout=120)
    (folder / "vmstat").write_text("oom_kill 7\n")
    return {"TABLESIDE_VMSTAT": str(folder / "vmstat")}


def publish_words(folder: Path, name: str) -> list[str]:
    """Return the arguments of `tableside` that publish the trained model under `name`."""
    return ["publish", name, str(folder / "model.joblib"), "--sample", str(folder / "sample.csv"), "--code",
            str(folder / "misdeeds.py")]  # fmt: skip


def attack(stage: Stage) -> None:
    """Send each of the requests twice: the second time it is quarantined."""
    for name, (model, row, expected) in _ATTACKS.items():
        path, body = f"/v1/models/{model}:predict", json.dumps({"instances": [[row]]}).encode()

        def act(path: str = path, body: bytes = body, expected: int = expected) -> Outcome:
            first = stage.ask(path, body)
            again = _again(stage, path, body)
            is_right = first.status == expected and again.endswith(QUARANTINED)
            return Outcome(len(body), f"{first.text}, then {again}", is_right)

        stage.attack(name, BEFORE, act, lambda _: Limits(lost=2), TEST)


def _again(stage: Stage, path: str, body: bytes) -> str:
    """Send the request again until it is quarantined.

    A call that does not end counts 5 s after its deadline. If it ran in a thread from the beginning, the first try has
    ended no worker, and the second one quarantines it. A worker that loads its models answers 503.
    """
    until_s, texts = time.monotonic() + RETRY_S, list[str]()
    while not texts or (texts[-1][:3] in ("503", "504") and time.monotonic() < until_s):
        time.sleep(GRACE_S)
        texts.append(stage.ask(path, body).text)
    time.sleep(GRACE_S)  # until workers that have lost a thread to a call are replaced
    return ", then ".join(dict.fromkeys(texts))
