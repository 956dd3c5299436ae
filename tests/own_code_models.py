"""Models with code of their own, trained in a process that can import that code, as a trainer would do."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

CHURNLIB = {
    "churnlib/__init__.py": "from .ratio import Ratio\n",
    "churnlib/ratio.py": '''"""A transformer that imports relatively, absolutely, and when it answers."""
import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin

import churnlib.scale
from churnlib.scale import factor


class Ratio(TransformerMixin, BaseEstimator):
    """Spend per month, times a factor."""

    def __init__(self, power=1.0):
        self.power = power

    def fit(self, X, y=None):
        self.factor_ = factor() * churnlib.scale.factor()
        self.n_features_in_ = X.shape[1]
        return self

    def transform(self, X):
        from churnlib import late
        from . import late as again
        import churnlib.late as third
        import helpers

        assert late is again is third
        return late.ratio(np.asarray(X, dtype=float), self.factor_) ** self.power + helpers.OFFSET
''',
    "churnlib/scale.py": "def factor():\n    return FACTOR\n\n\nFACTOR = 3.0\n",
    "churnlib/late.py": '''"""Imported for the first time by a prediction."""
import numpy as np


def ratio(table, factor):
    return np.column_stack([factor * table[:, 0] / (1.0 + table[:, 1]), table[:, 1]])
''',
    "churnlib/broken.py": "raise RuntimeError('this module is never imported')\n",
    "churnlib/data/stop.txt": "the\na\n",
    "helpers.py": '''"""Functions that steps of scikit-learn call."""
from importlib.resources import files

import numpy as np

OFFSET = 0.25


def log_amount(table):
    return np.log1p(np.asarray(table, dtype=float))


def with_share(table):
    return table.assign(share=table["spend"] / (1 + table["months"]))


def words(text):
    import churnlib

    stop = files(churnlib).joinpath("data", "stop.txt").read_text().split()
    return [word for word in text.lower().split() if word not in stop]
''',
}
"""The trainer's files: a package and a module, which import each other."""

TRAINER = """
import sys, joblib, numpy as np, pandas as pd
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
import helpers
from churnlib import Ratio

rng = np.random.default_rng(0)
frame = pd.DataFrame({"spend": rng.gamma(3.0, 20.0, 200).round(2), "months": rng.integers(1, 60, 200)})
churned = np.where(frame["spend"] / (1 + frame["months"]) + rng.normal(0, 1, 200) > 4, "leaves", "stays")
texts = pd.Series([" ".join(rng.choice("the a cat dog sat ran far".split(), 5)) for _ in range(120)], name="text")
tone = rng.integers(0, 2, 120)


class Local:
    def __call__(self, table):
        return table


def save(name, model, rows):
    joblib.dump(model, f"{name}.joblib")
    data = rows if isinstance(rows, pd.DataFrame) else rows.to_frame()
    data.to_csv(f"{name}.csv", index=False)
    answers = {"predict": model.predict(rows), "predict_proba": model.predict_proba(rows)}
    plain = {key: each.astype(str) if each.dtype == object else each for key, each in answers.items()}
    np.savez(f"{name}.npz", **plain)


save("ratio", make_pipeline(Ratio(), LogisticRegression(max_iter=500)).fit(frame, churned), frame)
logs = make_pipeline(FunctionTransformer(helpers.log_amount), LogisticRegression(max_iter=500))
save("logs", logs.fit(frame, churned), frame)
shares = make_pipeline(FunctionTransformer(helpers.with_share), LogisticRegression(max_iter=500))
save("shares", shares.fit(frame, churned), frame)
words = make_pipeline(TfidfVectorizer(tokenizer=helpers.words, token_pattern=None), LogisticRegression())
save("tone", words.fit(texts, tone), texts)
main = make_pipeline(FunctionTransformer(Local()), LogisticRegression(max_iter=500)).fit(frame, churned)
joblib.dump(main, "main.joblib")
"""


@dataclass(frozen=True)
class Trained:
    """What the trainer has: `ratio`, `logs`, `shares`, `tone` with .joblib, .csv and .npz; and `main.joblib`."""

    folder: Path

    @property
    def code(self) -> list[str]:
        """The options that publish the trainer's code."""
        return ["--code", str(self.folder / "churnlib"), "--code", str(self.folder / "helpers.py")]

    def file(self, name: str) -> Path:
        return self.folder / name

    def rows(self, name: str) -> pd.DataFrame:
        return pd.read_csv(self.folder / f"{name}.csv")

    def answers(self, name: str) -> dict[str, Any]:
        with np.load(self.folder / f"{name}.npz") as kept:
            return dict(kept)


def write_code(folder: Path, **changed: str) -> None:
    """Write the trainer's files. changed: other content for `scale`, `late` or `helpers`."""
    for path, text in CHURNLIB.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(changed.get(file.stem, text))


def train(folder: Path, **changed: str) -> Trained:
    """Train the models in a process of its own, in which `churnlib` and `helpers` are what `write_code` wrote."""
    write_code(folder, **changed)
    (folder / "train.py").write_text(TRAINER)
    environ = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "train.py"], cwd=folder, env=environ, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return Trained(folder)
