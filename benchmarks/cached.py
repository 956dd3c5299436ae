"""Measures what the response cache saves for requests of one row, inside one process and without a network.

`python -m benchmarks.cached` prints a Markdown table. In each round the same rows are sent to a model without a cache,
to a model with a cache (a miss), and to that model again (a hit). The table shows medians over the rounds; ratios are
computed within a round.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from flask import Flask
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from werkzeug.test import EnvironBuilder

from tableside import settings
from tableside.factory import create_app
from tableside.process.offload import make_offload
from tableside.publishing.publish import publish
from tableside.serving.registry import Registry
from tableside.telemetry import metrics
from tableside.web.extensions import EXTENSION_KEY

ROUNDS, ROWS, COLUMNS = 9, 60, 30


def make_app(root: Path, run_dir: Path) -> Flask:
    """Return an application with three models, each once with and once without a cache.

    The models are a forest answered by scikit-learn, and a forest and a linear model answered by fast backends.
    """
    chance = np.random.default_rng(7)
    table = chance.normal(size=(400, COLUMNS))
    target = (table[:, 0] + table[:, 1] > 0).astype(int)
    forest = RandomForestClassifier(100, random_state=0).fit(table, target)
    linear = LogisticRegression().fit(table, target)
    for name, estimator, runtime in (
        ("forest-itself", forest, "sklearn"),
        ("forest-direct", forest, "auto"),
        ("linear-direct", linear, "auto"),
    ):
        for suffix, config in (("plain", ""), ("cached", "[cache]\nmax_bytes = 100_000_000\n")):
            model = f"{name}-{suffix}"
            publish(model, estimator, table, repository=root, runtime=runtime)  # type: ignore[arg-type]
            (root / model / "model.toml").write_text(config)
    chosen = settings.load(
        {
            "TABLESIDE__REPOSITORY__PATH": str(root), "TABLESIDE__SERVER__RUN_DIR": str(run_dir),
            "TABLESIDE__LOG__LEVEL": "error", "TABLESIDE__PREDICT__INLINE_BELOW_MS": "1000",
        }
    )  # fmt: skip
    app = create_app(chosen, Registry(chosen, metrics.make(), make_offload(1)))
    app.extensions[EXTENSION_KEY].registry.reload(1)
    return app


def seconds(app: Flask, name: str, rows: Any) -> float:
    """Return the median time of the requests, each of one row, in seconds."""
    times_s = []
    for row in rows:
        body = json.dumps({"instances": [row]}).encode()
        environ = EnvironBuilder(f"/v1/models/{name}:predict", method="POST", data=body).get_environ()
        status: list[str] = []
        answer: Callable[..., Any] = lambda line, *_, status=status: status.append(line)  # noqa: E731
        begun_s = time.perf_counter()
        content = b"".join(app(environ, answer))
        times_s.append(time.perf_counter() - begun_s)
        assert status == ["200 OK"], content
    return statistics.median(times_s)


def main() -> None:
    """Run all rounds and print the table."""
    chance = np.random.default_rng(8)
    with tempfile.TemporaryDirectory() as folder:
        app = make_app(Path(folder, "models"), Path(folder, "run"))
        models = sorted(path.name.removesuffix("-cached") for path in Path(folder, "models").glob("*-cached"))
        rounds: dict[str, list[tuple[float, float, float]]] = {name: [] for name in models}
        for _ in range(ROUNDS + 1):
            for name, found in rounds.items():
                rows = chance.normal(size=(ROWS, COLUMNS)).tolist()
                plain, miss = seconds(app, f"{name}-plain", rows), seconds(app, f"{name}-cached", rows)
                found.append((plain, miss, seconds(app, f"{name}-cached", rows)))
    print("| model | without a cache | a miss costs | a hit is faster by |\n|---|---|---|---|")
    for name, found in rounds.items():
        kept = found[1:]  # the first round warms up
        plain_s = statistics.median(plain for plain, _, _ in kept)
        miss = statistics.median(miss / plain for plain, miss, _ in kept)
        ratios = sorted(plain / hit for plain, _, hit in kept)
        spread = f"{statistics.median(ratios):.1f}x ({ratios[0]:.1f} to {ratios[-1]:.1f})"
        print(f"| {name} | {plain_s * 1e6:.0f} us | {miss:.2f}x | {spread} |")


if __name__ == "__main__":
    main()
