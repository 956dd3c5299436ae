"""Sends the bodies of `bodies`, and publishes the models that some of them need."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from benchmarks.attacks import workers
from benchmarks.attacks.bodies import BODIES, WIDE_COLUMNS, Body
from benchmarks.attacks.rows import Limits, refused
from benchmarks.attacks.stage import Outcome, Stage
from tableside.publishing.publish import publish

REPEATS = 10
"""How often a request is sent once more, one after the other: one alone is too short to measure its CPU time."""


def publish_models(repository: Path) -> None:
    """Publish `level`, which has a closed numeric category, and `wide`, which has many columns."""
    levels = pd.DataFrame({"level": [1, 2, 3] * 20})
    encoded = make_pipeline(OneHotEncoder(handle_unknown="error"), LinearRegression())
    publish("level", encoded.fit(levels, levels["level"] * 2.0), levels, repository=repository, quick=True)
    rows = np.random.default_rng(0).normal(size=(200, WIDE_COLUMNS))
    publish("wide", Ridge().fit(rows, rows[:, 0]), rows, repository=repository, quick=True)


def attack(stage: Stage) -> None:
    """Send each body once, to see its peak, and then several times, to see its CPU time."""
    for body in BODIES:
        content, headers = body.make()
        stage.attack(
            body.name, body.before, lambda b=body, c=content, h=headers: _send(stage, b, c, h),  # type: ignore[misc]
            lambda got, b=body: _limits(b, got), body.test,  # type: ignore[misc]
        )  # fmt: skip


def _send(stage: Stage, body: Body, content: bytes, headers: dict[str, str]) -> Outcome:
    peaks = workers.Peaks(stage.all_workers())
    answers = [stage.ask(body.path, content, headers)]
    peak_bytes = peaks.growth()
    while answers[-1].status == body.expected and len(answers) <= REPEATS:
        answers.append(stage.ask(body.path, content, headers))
    is_right = answers[-1].status == body.expected
    return Outcome(len(content), answers[-1].text, is_right, len(answers), peak_bytes)


def _limits(body: Body, got: Outcome) -> Limits:
    return refused(got.bytes_sent, body.inflated_bytes, body.inspect_ms)
