"""What `publish --environment` takes besides a file and a sample: types, answers, own code, pickles, MLflow."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result

from tableside.cli import main
from tableside.contracts.consent_digest import PICKLE
from tableside.decoding.json_tables import from_rows
from tableside.model_process.environment_pools import private
from tableside.preflight.checks import check_version
from tableside.repository import consent_file, integrity, model_toml, paths
from tableside.settings import Environment, Repository
from tests.model_environments import RELEASE, old_python

pytestmark = [pytest.mark.processes, pytest.mark.slow, pytest.mark.timeout(900)]

ZIPLIB = '''
def lengths(table):
    """Text in, numbers out: with numbers as codes it would raise."""
    return table.assign(zip=table["zip"].str.count("0"))
'''
HOLDER = '''
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin


class Means(TransformerMixin, BaseEstimator):
    """Keeps a pandas table, which no skops file holds."""

    def fit(self, X, y=None):
        self.means_ = pd.DataFrame(X).mean().to_frame("mean")
        self.n_features_in_ = X.shape[1]
        return self

    def transform(self, X):
        return X - self.means_["mean"].to_numpy()
'''
TRAIN = """
import json, pathlib, pickle, sys
import joblib, numpy as np, pandas as pd, sklearn
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
out = pathlib.Path(sys.argv[1])
sys.path.insert(0, str(out))
import holder, ziplib

chance = np.random.default_rng(0)
y = np.where(chance.random(60) < 0.5, "stay", "leave")
zips = pd.DataFrame({"zip": [f"{n:05d}" for n in chance.integers(0, 99999, 60)], "spend": chance.random(60)})
model = make_pipeline(FunctionTransformer(ziplib.lengths), LogisticRegression(multi_class="ovr")).fit(zips, y)
joblib.dump(model, out / "zips.joblib")
zips.to_csv(out / "zips.csv", index=False)
answers = pd.DataFrame(model.predict_proba(zips), columns=["predict_proba_0", "predict_proba_1"])
answers.insert(0, "predict", model.predict(zips))
answers["decision_function"] = model.decision_function(zips)
answers.to_csv(out / "answers.csv", index=False)
answers.assign(predict_proba_0=0.5, predict_proba_1=0.5).to_csv(out / "other.csv", index=False)

table = chance.random((60, 3))
held = make_pipeline(holder.Means(), LogisticRegression(multi_class="ovr")).fit(table, y)
joblib.dump(held, out / "held.joblib")
pd.DataFrame(table, columns=list("abc")).to_csv(out / "held.csv", index=False)
np.save(out / "held.npy", held.predict_proba(table))

folder = out / "mlflow"
(folder / "code").mkdir(parents=True)
(folder / "model.pkl").write_bytes(pickle.dumps(model))
(folder / "code" / "ziplib.py").write_text((out / "ziplib.py").read_text())
signature = [{"type": "string", "name": "zip"}, {"type": "double", "name": "spend"}]
(folder / "MLmodel").write_text(json.dumps({
    "flavors": {
        "python_function": {"code": "code", "loader_module": "mlflow.sklearn"},
        "sklearn": {"pickled_model": "model.pkl", "serialization_format": "pickle", "code": "code",
                    "sklearn_version": sklearn.__version__},
    },
    "signature": {"inputs": json.dumps(signature)},
}))
"""


@pytest.fixture(scope="module")
def trained() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="eo-") as made:
        folder = Path(made)
        (folder / "ziplib.py").write_text(ZIPLIB)
        (folder / "holder.py").write_text(HOLDER)
        done = subprocess.run([old_python(), "-c", TRAIN, made], capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
        yield folder


class Place:
    """A repository, a consent file and settings with the environment `old`."""

    def __init__(self, folder: Path) -> None:
        self.root, self.consent = folder / "models", folder / "consent.jsonl"
        self.root.mkdir()

    def publish(self, name: str, source: Path, *words: object) -> Result:
        given = ["publish", name, source, *words, "--environment", "old", "--quick"]
        return CliRunner().invoke(main, [*map(str, given)])

    def answers(self, name: str, method: str, rows: list[Any]) -> Any:
        """The answers of a model process that has loaded the version as a worker does."""
        contract = integrity.read_contract(self.root, name, 1)
        environments = private({"old": Environment(old_python())}, 300.0)
        try:
            policy = Repository(consent_file=str(self.consent))
            runtime: Any = check_version(self.root, name, 1, policy, None, environments)
            return runtime.run(method, runtime.prepare(from_rows(rows, contract.input)))
        finally:
            environments.close()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    made = Place(tmp_path)
    for key, value in {
        "SERVER__RUN_DIR": tmp_path / "run", "REPOSITORY__PATH": made.root, "REPOSITORY__CONSENT_FILE": made.consent,
        "ENVIRONMENTS__OLD__PYTHON": old_python(),
    }.items():  # fmt: skip
        monkeypatch.setenv(f"TABLESIDE__{key}", str(value))
    return made


def test_types_answers_and_own_code(place: Place, trained: Path) -> None:
    """A text of digits stays text, by --types or because the estimator over there takes no numbers.

    The trainer's answers must agree, and own code comes by --code.
    """
    sample = ["--sample", trained / "zips.csv"]
    code = ["--code", trained / "ziplib.py"]
    refused = place.publish("m", trained / "zips.joblib", *sample, "--types", "zip=str")
    assert "No module named 'ziplib'. If ziplib is your own code, add --code ziplib.py" in refused.stderr
    asked = place.publish("asked", trained / "zips.joblib", *sample, *code)
    assert asked.exit_code == 0, asked.output
    found = integrity.read_contract(place.root, "asked", 1).input.columns
    assert [column.datatype for column in found] == ["BYTES", "FP64"]
    typed = [*sample, *code, "--types", "zip=str"]
    refused = place.publish("m", trained / "zips.joblib", *typed, "--expect", trained / "other.csv")
    assert "differ" in refused.stderr
    refused = place.publish("m", trained / "zips.joblib", *typed, "--tolerance", "0.1")
    assert "--tolerance is for fast backends" in refused.stderr
    assert not paths.versions(place.root, "m")
    done = place.publish("m", trained / "zips.joblib", *typed, "--expect", trained / "answers.csv")
    assert done.exit_code == 0, done.output
    contract = integrity.read_contract(place.root, "m", 1)
    assert [column.datatype for column in contract.input.columns] == ["BYTES", "FP64"]
    assert contract.golden.origin == "trainer"
    assert contract.trained_with["scikit-learn"] == RELEASE
    assert [each.file for each in contract.code] == ["code/ziplib.py"]
    assert len(consent_file.read(place.consent)) == 2
    rows = pd.read_csv(trained / "zips.csv", dtype={"zip": str})
    expected = pd.read_csv(trained / "answers.csv")[["predict_proba_0", "predict_proba_1"]].to_numpy()
    assert np.array_equal(place.answers("m", "predict_proba", rows.to_numpy().tolist()), expected)


def test_a_pickle_by_consent(place: Place, trained: Path) -> None:
    """Without --as-pickle the refusal names step, class and the way; with it only consent lets it run."""
    words = ["--sample", trained / "held.csv", "--code", trained / "holder.py"]
    refused = place.publish("m", trained / "held.joblib", *words)
    assert refused.exit_code == 2
    assert "means_ of step 'means' (pandas.core.frame.DataFrame) cannot be held in a skops file" in refused.stderr
    assert "It is in an estimator of the class holder.Means." in refused.stderr
    assert "--as-pickle" in refused.stderr
    done = place.publish("m", trained / "held.joblib", *words, "--as-pickle")
    assert done.exit_code == 0, done.output
    contract = integrity.read_contract(place.root, "m", 1)
    assert contract.artifact.file == PICKLE
    assert (place.root / "m" / "1" / PICKLE).read_bytes() == (trained / "held.joblib").read_bytes()
    listed = json.loads(CliRunner().invoke(main, ["list", "--json"]).stdout)
    assert "PICKLE" in json.dumps(listed)
    rows = pd.read_csv(trained / "held.csv").to_numpy().tolist()
    assert np.array_equal(place.answers("m", "predict_proba", rows), np.load(trained / "held.npy"))
    again = place.publish("n", trained / "held.joblib", *words, "--as-pickle")
    assert "the model m names the environment 'old' too" in again.stderr
    place.consent.unlink()
    assert "waits for consent" in CliRunner().invoke(main, ["verify", "m"]).output


def test_an_mlflow_directory(place: Place, trained: Path) -> None:
    """Its signature types the sample, its code and its pickle need --allow-code and --allow-pickle."""
    words = ["--sample", trained / "zips.csv"]
    assert "--allow-code" in place.publish("m", trained / "mlflow", *words).stderr
    assert "--allow-pickle" in place.publish("m", trained / "mlflow", *words, "--allow-code").stderr
    done = place.publish("m", trained / "mlflow", *words, "--allow-code", "--allow-pickle")
    assert done.exit_code == 0, done.output
    contract = integrity.read_contract(place.root, "m", 1)
    assert contract.source["format"] == "mlflow"
    assert [column.datatype for column in contract.input.columns] == ["BYTES", "FP64"]
    assert [each.file for each in contract.code] == ["code/ziplib.py"]
    assert model_toml.read(place.root, "m").environment == "old"
    rows = pd.read_csv(trained / "zips.csv", dtype={"zip": str}).to_numpy().tolist()
    expected = pd.read_csv(trained / "answers.csv", dtype=str)["predict"].tolist()
    assert np.asarray(place.answers("m", "predict", rows)).tolist() == expected
