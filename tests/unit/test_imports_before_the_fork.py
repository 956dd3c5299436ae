"""What gunicorn's master imports may be used in the workers, which are forked from it."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
SCRIPT = """
import importlib, os, signal, sys
for library in sys.argv[1:]:
    importlib.import_module(library)
import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from treelite import gtil
from treelite.sklearn import import_model
from tableside.runtimes.fast import treelite

features, classes = load_breast_cancer(return_X_y=True)
pid = os.fork()
if pid == 0:
    signal.alarm(120)
    for estimator in (RandomForestClassifier(5), HistGradientBoostingClassifier(max_iter=5)):
        estimator.fit(features, classes)
        found = treelite.methods(estimator)["predict_proba"](features)
        assert np.abs(found - estimator.predict_proba(features)).max() < 1e-12
        gtil.predict(import_model(estimator), features)  # with the library's own number of threads
    os._exit(0)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def imported_by_the_master() -> dict[str, tuple[str, ...]]:
    """The tuples of module names in gunicorn.conf.py."""
    tree = ast.parse((PROJECT / "gunicorn.conf.py").read_text(encoding="utf-8"))
    return {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id.isupper()
    }


@pytest.mark.slow
def test_trees_compute_after_the_fork() -> None:
    """Also with several threads of OpenMP: it hangs only if it has run before the fork."""
    found = imported_by_the_master()
    libraries = (*found["LIBRARIES"], *found["OPTIONAL_LIBRARIES"])
    assert "treelite.sklearn" in libraries
    environ = {**os.environ, "OMP_NUM_THREADS": "3"}
    subprocess.run([sys.executable, "-c", SCRIPT, *libraries], check=True, timeout=240, env=environ)
