"""Measures which estimators workers share in memory, and how much of the others each worker holds.

`python -m benchmarks.memory_kinds` publishes one estimator of each kind. A first process loads it and writes its shared
files, if the kind has any. A second process loads it and predicts; the growth of its PSS is what each further worker
uses. Mapped pages count in full, because no other process maps them then.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.ensemble import (
    ExtraTreesRegressor,
    GradientBoostingRegressor,
    HistGradientBoostingRegressor,
    RandomForestRegressor,
)  # fmt: skip
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.neighbors import KNeighborsRegressor
from sklearn.neural_network import MLPRegressor
from sklearn.svm import SVR

from benchmarks.processes import clean_environ
from tableside.publishing.publish import publish

COLUMNS = 10
CHILD = """
import json, sys
from pathlib import Path
import numpy as np
from tableside.decoding.json_tables import from_matrix
from tableside.runtimes.shared_store import SharedStore
from tableside.preflight import shared_entries
from tableside.serving.catalog import EMPTY
from tableside.serving.loader import load_catalog
from tableside.runtimes.sklearn import warm_up
from tableside.settings import Repository
from benchmarks.processes import pss_mb
import os, sklearn.ensemble, sklearn.neighbors, sklearn.svm, sklearn.neural_network, sklearn.gaussian_process
root, store = Path(sys.argv[1]), SharedStore(Path(sys.argv[2]))
warm_up()
before = pss_mb([os.getpid()])
one = load_catalog(root, Repository(shared_memory_above_mb=4), 1, EMPTY, None, store).servable("m")
rows = from_matrix(np.random.default_rng(1).normal(size=(500, len(one.contract.input.columns))), one.contract.input)
one.runtime.run("predict", one.runtime.prepare(rows))
after = pss_mb([os.getpid()]) - before
mapped = 0
for line in open("/proc/self/smaps"):
    if line[0] not in "0123456789abcdef" or "-" not in line.split()[0]:
        if inside and line.startswith("Pss:"):
            mapped += int(line.split()[1]) / 1024
    else:
        inside = line.rstrip().endswith(".npy")
print(json.dumps({"shared_store": shared_entries.is_shared(one.runtime), "held": after - mapped, "mapped": mapped}))
"""


def kinds() -> dict[str, Any]:
    """Return one large fitted estimator of each kind, by name."""
    chance = np.random.default_rng(2)
    table = chance.normal(size=(20_000, COLUMNS))
    target = chance.normal(size=20_000)
    both = np.column_stack([target, -target])
    few = table[:1500]
    return {
        "RandomForest": RandomForestRegressor(20, max_features=1, n_jobs=2).fit(table, target),
        "ExtraTrees": ExtraTreesRegressor(16, max_features=1, n_jobs=2).fit(table, target),
        "RandomForest, two targets": RandomForestRegressor(20, max_features=1, n_jobs=2).fit(table, both),
        "GradientBoosting": GradientBoostingRegressor(n_estimators=30, max_depth=13, max_features=1).fit(table, target),
        "HistGradientBoosting": HistGradientBoostingRegressor(
            max_iter=40, max_leaf_nodes=4000, min_samples_leaf=1, early_stopping=False
        ).fit(table, target),
        "KNeighbors": KNeighborsRegressor().fit(np.tile(table, (8, 1)), np.tile(target, 8)),
        "MLP": MLPRegressor(hidden_layer_sizes=(1500, 1500), max_iter=1).fit(few[:200], target[:200]),
        "GaussianProcess": GaussianProcessRegressor().fit(few, target[:1500]),
        "SVR": SVR().fit(np.tile(few, (1, 40)), target[:1500]),
    }  # fmt: skip


def measure(fitted: Any) -> dict[str, Any]:
    """Return the MB that a second process holds of the estimator, and whether it is shared."""
    with tempfile.TemporaryDirectory(prefix="tsbench-") as name:
        root, store = Path(name) / "models", Path(name) / "shared_store"
        publish("m", fitted, np.random.default_rng(1).normal(size=(100, fitted.n_features_in_)), repository=root)
        environ = clean_environ(PYTHONPATH=f"{Path.cwd()}{os.pathsep}{Path.cwd() / 'src'}")
        for _ in range(2):
            command = [sys.executable, "-c", CHILD, str(root), str(store)]
            done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
        found: dict[str, Any] = json.loads(done.stdout)
        return found


def main() -> None:
    """Print a Markdown table."""
    print("| estimator | one copy, MB | held by each worker | mapped by all | shared |\n|---|---|---|---|---|")
    for name, fitted in kinds().items():
        copy, found = len(pickle.dumps(fitted)) / 1e6, measure(fitted)
        sizes = f"{copy:.0f} | {found['held'] * 1.048576:.0f} | {found['mapped'] * 1.048576:.0f}"
        print(f"| {name} | {sizes} | {'yes' if found['shared_store'] else 'no'} |", flush=True)


if __name__ == "__main__":
    main()
