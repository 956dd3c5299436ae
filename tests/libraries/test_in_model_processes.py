"""Estimators of other libraries in model processes: what no skops file holds by consent, and boosters."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result

from tableside.cli import main
from tableside.decoding.json_tables import from_rows
from tableside.model_process.environment_pools import private
from tableside.preflight.checks import check_version
from tableside.repository import integrity, model_toml_edits
from tableside.settings import Environment, Repository

pytestmark = [pytest.mark.no_greenlets, pytest.mark.processes, pytest.mark.slow, pytest.mark.timeout(600)]

WRAPPER = Path(__file__).with_name("network_wrapper.py")
TRAIN = """
import joblib, numpy as np, pandas as pd
import category_encoders as ce
from lightgbm import LGBMClassifier
from network_wrapper import NetworkClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

chance = np.random.default_rng(0)
months = chance.integers(1, 60, 120) * 1.0
table = pd.DataFrame({"city": chance.choice(["wien", "graz", "linz"], 120), "months": months})
table["spend"] = chance.random(120)
y = np.where((table.months < 20) & (table.city != "graz"), "leave", "stay")
numbers = table[["months", "spend"]]
for name, model, rows in (
    ("encoded", make_pipeline(ce.TargetEncoder(cols=["city"]), LogisticRegression()), table),
    ("network", make_pipeline(StandardScaler(), NetworkClassifier()), numbers),
    ("boosted", LGBMClassifier(n_estimators=20, verbose=-1, n_jobs=1), numbers),
):
    joblib.dump(model.fit(rows, y), f"{name}.joblib")
    rows.to_csv(f"{name}.csv", index=False)
    np.save(f"{name}.npy", model.predict_proba(rows))
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trainer")
    shutil.copy(WRAPPER, folder)
    done = subprocess.run([sys.executable, "-c", TRAIN], cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "models"
    root.mkdir()
    for key, value in {
        "SERVER__RUN_DIR": tmp_path / "run", "REPOSITORY__PATH": root, "ENVIRONMENTS__OWN__PYTHON": sys.executable,
        "REPOSITORY__CONSENT_FILE": tmp_path / "consent.jsonl", "REPOSITORY__TRUSTED_LIBRARIES": "lightgbm",
    }.items():  # fmt: skip
        monkeypatch.setenv(f"TABLESIDE__{key}", str(value))
    return root


def publish(trained: Path, name: str, *words: object) -> Result:
    given = ["publish", name, trained / f"{name}.joblib", "--sample", trained / f"{name}.csv", "--quick", *words]
    return CliRunner().invoke(main, [*map(str, given)])


def proba(root: Path, trained: Path, name: str) -> Any:
    """The answers of a model process to the sample, sent as JSON would be."""
    contract = integrity.read_contract(root, name, 1)
    environments = private({"own": Environment(sys.executable)}, 120.0)
    try:
        policy = Repository(consent_file=str(root.parent / "consent.jsonl"), trusted_libraries=("lightgbm",))
        runtime: Any = check_version(root, name, 1, policy, None, environments)
        rows = pd.read_csv(trained / f"{name}.csv").astype(object).to_numpy().tolist()
        return runtime.run("predict_proba", runtime.prepare(from_rows(rows, contract.input)))
    finally:
        environments.close()


PICKLED = {
    "encoded": ("step 'targetencoder'", "category_encoders.", ()),
    "network": ("step 'networkclassifier'", "network_wrapper.", ("--code", "network_wrapper.py")),
}


@pytest.mark.parametrize("name", PICKLED)
@pytest.mark.parametrize("there", [("--environment", "own"), ()], ids=["in the environment", "in the server's"])
def test_what_no_skops_file_holds(root: Path, trained: Path, name: str, there: tuple[str, ...]) -> None:
    """Without --as-pickle the refusal names step and class; with it the version runs in a model process, marked."""
    step, library, code = PICKLED[name]
    words = [*there, *(trained / word if word.endswith(".py") else word for word in code)]
    refused = publish(trained, name, *words)
    assert refused.exit_code == 2
    assert step in refused.stderr
    assert library in refused.stderr
    assert "--as-pickle" in refused.stderr
    done = publish(trained, name, *words, "--as-pickle")
    assert done.exit_code == 0, done.output
    model_toml_edits.set_environment(root, name, "own")
    assert "PICKLE" in json.dumps(json.loads(CliRunner().invoke(main, ["list", "--json"]).stdout))
    assert np.array_equal(proba(root, trained, name), np.load(trained / f"{name}.npy"))


def test_a_booster_answers_in_its_environment_as_in_memory(root: Path, trained: Path) -> None:
    """LightGBM needs no pickle: its types are trusted by repository.trusted_libraries, there too."""
    done = publish(trained, "boosted", "--environment", "own")
    assert done.exit_code == 0, done.output
    assert np.array_equal(proba(root, trained, "boosted"), np.load(trained / "boosted.npy"))
