"""What the response cache saves: whole requests of one row, answered by the worker's own code, in turn.

`python -m benchmarks.cached` prints a Markdown table: the same rows sent to a model without a cache, with one for the
first time (a miss) and with one again (a hit). Medians over rounds; ratios are taken within a round.
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
    """A forest asked as it is, a forest and a linear model answered by their direct ways; each with and without."""
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
        for suffix, words in (("plain", ""), ("cached", "[cache]\nmax_bytes = 100_000_000\n")):
            known = f"{name}-{suffix}"
            publish(known, estimator, table, repository=root, runtime=runtime)  # type: ignore[arg-type]
            (root / known / "model.toml").write_text(words)
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
    """The median time of a request, one row each."""
    found = []
    for row in rows:
        body = json.dumps({"instances": [row]}).encode()
        environ = EnvironBuilder(f"/v1/models/{name}:predict", method="POST", data=body).get_environ()
        status: list[str] = []
        answer: Callable[..., Any] = lambda line, *_, status=status: status.append(line)  # noqa: E731
        begun_s = time.perf_counter()
        content = b"".join(app(environ, answer))
        found.append(time.perf_counter() - begun_s)
        assert status == ["200 OK"], content
    return statistics.median(found)


def main() -> None:
    """Print the table."""
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
