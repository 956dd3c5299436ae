"""Artifacts of other releases of scikit-learn, trained in real environments, are refused before they are loaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from tableside.cli import main
from tableside.contracts.environment import environment
from tableside.errors import ContractBroken, PublishFailed
from tableside.preflight.checks import check_version
from tableside.publishing import training_record
from tableside.publishing.publish import publish
from tableside.repository import integrity, paths
from tableside.runtimes.trusted_types import TRUSTED
from tableside.settings import Repository
from tableside_contract.artifact_versions import sklearn_versions
from tests import training_environments
from tests.training_environments import TrainingEnvironment

pytestmark = [pytest.mark.processes, pytest.mark.timeout(1800)]

HERE = environment()["scikit-learn"]
TRAIN = Path(__file__).parent / "train.py"
WARN = {"TABLESIDE__REPOSITORY__ENVIRONMENT_SKEW": "warn"}


@pytest.fixture(scope="module", params=training_environments.chosen(), ids=lambda each: each.name)
def trainer(request: pytest.FixtureRequest) -> TrainingEnvironment:
    each: TrainingEnvironment = request.param
    return each


@pytest.fixture(scope="module")
def trained(trainer: TrainingEnvironment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with what train.py wrote in the environment."""
    folder = tmp_path_factory.mktemp("trained")
    done = trainer.run(TRAIN, folder)
    assert done.returncode == 0, done.stderr
    return folder


def refused(root: Path, *words: object, environ: dict[str, str] | None = None) -> str:
    """Publish on the command line; return the one line of the error. Nothing may be published."""
    command = ["publish", "m", *words, "--repository", root]
    done = CliRunner(env=environ).invoke(main, [str(word) for word in command])
    assert done.exit_code == 2, done.output
    assert paths.versions(root, "m") == []
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("... ")]
    return line


def assert_names_both(line: str, trainer: TrainingEnvironment) -> None:
    assert f"was written with scikit-learn {trainer.release}, but this environment has {HERE}" in line
    for way_out in (f"Train the model again with {HERE}", "python -m tableside_contract", "--environment NAME"):
        assert way_out in line


def test_every_file_says_who_wrote_it(trained: Path, trainer: TrainingEnvironment) -> None:
    """The version is read from joblib files, compressed or not, from pickles of each protocol, and from skops files."""
    files = [file for file in trained.iterdir() if file.suffix not in (".csv", ".json") and file.is_file()]
    assert len(files) >= 15
    assert {file.name: sklearn_versions(file) for file in files} == {file.name: [trainer.release] for file in files}


@pytest.mark.parametrize("file", ["one_vs_rest.joblib", "boosting.joblib", "compressed.zlib", "protocol2.pkl"])
def test_a_file_is_refused_on_the_command_line(
    file: str, trained: Path, trainer: TrainingEnvironment, tmp_path: Path
) -> None:
    """Both versions and the ways out are named, also where the file could not be loaded at all."""
    sample = trained / ("diabetes.csv" if file.startswith("boosting") else "wine.csv")
    line = refused(tmp_path, trained / file, "--sample", sample, "--target", "target")
    assert_names_both(line, trainer)
    assert '"warn" publishes it here if they agree' in line
    warned = refused(tmp_path, trained / file, "--sample", sample, "--target", "target", environ=WARN)
    assert_names_both(warned, trainer)
    assert "needs the trainer's answers: a training record, or --expect FILE" in warned


def test_a_path_is_refused_in_python(trained: Path, trainer: TrainingEnvironment, tmp_path: Path) -> None:
    """`publish` with the path of a file refuses it like the command."""
    with pytest.raises(PublishFailed) as failed:
        publish("m", trained / "one_vs_rest.joblib", trained / "wine.csv", target="target", repository=tmp_path)
    assert_names_both(str(failed.value), trainer)


def test_a_skops_file_is_refused(trained: Path, trainer: TrainingEnvironment, tmp_path: Path) -> None:
    """skops keeps the version in its schema."""
    line = refused(tmp_path, trained / "one_vs_rest.skops", "--sample", trained / "wine.csv", "--target", "target")
    assert_names_both(line, trainer)


@pytest.mark.parametrize("said", [True, False])
def test_an_mlflow_directory_is_refused(
    said: bool, trained: Path, trainer: TrainingEnvironment, tmp_path: Path
) -> None:
    """The pickle in it says the version, whether or not MLmodel does; --allow-pickle does not change that."""
    folder = tmp_path / "mlflow"
    folder.mkdir()
    shutil.copy(trained / "protocol4.pkl", folder / "model.pkl")
    flavor = {"pickled_model": "model.pkl", "serialization_format": "pickle"}
    said_version = {"sklearn_version": trainer.release} if said else {}
    (folder / "MLmodel").write_text(yaml.safe_dump({"flavors": {"sklearn": {**flavor, **said_version}}}))
    line = refused(tmp_path / "r", folder, "--sample", trained / "wine.csv", "--target", "target", "--allow-pickle")
    assert_names_both(line, trainer)


def test_a_training_record_is_refused_and_keeps_the_answers(
    trained: Path, trainer: TrainingEnvironment, tmp_path: Path
) -> None:
    """The record holds the trainer's answers to the bit; another minor version is refused all the same."""
    line = refused(tmp_path, trained / "wine_record")
    assert_names_both(line, trainer)
    record = training_record.read(trained / "wine_record")
    answers = json.loads((trained / "answers.json").read_text())
    assert record.trained_with["scikit-learn"] == trainer.release
    assert record.trained_with["python"].startswith(trainer.python_version + ".")
    assert {"numpy", "scipy", "pandas", "joblib"} <= record.trained_with.keys()
    assert record.answers["predict_proba"].rows == answers["predict_proba"]
    assert [row[0] for row in record.answers["predict"].rows] == answers["predict"]
    assert record.facts["methods"] == ["predict", "predict_proba", "decision_function"]
    assert (record.facts["estimator"], record.facts["kind"]) == (
        "Pipeline(StandardScaler, LogisticRegression)",
        "classifier",
    )


def test_other_answers_are_refused_where_skew_is_allowed(trained: Path, tmp_path: Path) -> None:
    """With `warn`, a record whose answers differ here is refused: output, rows, both numbers and their distance."""
    line = refused(tmp_path, trained / "wine_record", "--allow-pickle", environ=WARN)
    loadable = "trainer's answers differ from this environment's" in line
    if loadable:
        assert "predict_proba differs in 178 of 178 rows" in line
        assert " apart" in line
    else:
        assert "cannot be" in line


def test_agreeing_answers_are_published_where_skew_is_allowed(
    trained: Path, trainer: TrainingEnvironment, tmp_path: Path
) -> None:
    """With `warn`, a linear regression's record is published with the trainer's answers, and loads with `warn`."""
    publish("m", trained / "line_record", repository=tmp_path, environment_skew="warn", allow_pickle=True)
    contract = integrity.read_contract(tmp_path, "m", 1)
    assert (contract.golden.origin, contract.trained_with["scikit-learn"]) == ("trainer", trainer.release)
    assert contract.environment["scikit-learn"] == HERE
    with pytest.raises(ContractBroken, match=f"scikit-learn was {trainer.release} in training and is {HERE} here"):
        check_version(tmp_path, "m", 1, Repository())
    check_version(tmp_path, "m", 1, Repository(environment_skew="warn"))
    warning = integrity.check_environment(contract, "warn")
    assert "Served because repository.environment_skew is 'warn'" in warning


def test_the_command_makes_the_same_record(trained: Path, trainer: TrainingEnvironment, tmp_path: Path) -> None:
    """`python -m tableside_contract` writes the answers that `contract` wrote, and names what it made."""
    out = tmp_path / "record"
    words = ["-m", "tableside_contract", trained / "one_vs_rest.joblib", "--sample", trained / "wine.csv"]
    done = trainer.run(*words, "--target", "target", "--out", out)
    assert done.returncode == 0, done.stderr
    assert f"scikit-learn {trainer.release}" in done.stdout
    made, other = training_record.read(out), training_record.read(trained / "wine_record")
    assert (made.answers, made.facts) == (other.answers, other.facts)
    again = trainer.run(*words, "--target", "target", "--out", out)
    assert (again.returncode, "exists already" in again.stderr) == (2, True)


def test_a_record_is_not_made_elsewhere(trainer: TrainingEnvironment, tmp_path: Path) -> None:
    """A file of this environment's scikit-learn is refused in the other one before it is loaded."""
    import joblib
    from sklearn.linear_model import LinearRegression

    frame: Any = np.arange(8.0).reshape(4, 2)
    joblib.dump(LinearRegression().fit(frame, [1.0, 2.0, 3.0, 5.0]), tmp_path / "m.joblib")
    (tmp_path / "s.csv").write_text("a,b\n1,2\n")
    words = ["-m", "tableside_contract", tmp_path / "m.joblib", "--sample", tmp_path / "s.csv"]
    done = trainer.run(*words, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert f"was written with scikit-learn {HERE}, and this environment has {trainer.release}" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "trainer", [*training_environments.chosen(), *training_environments.own_release()], ids=lambda each: each.name
)
def test_every_estimator_of_a_release_is_held_by_trusted_types(trainer: TrainingEnvironment) -> None:
    """What skops of that release writes can be served in an environment of its own without `trusted_types`."""
    done = trainer.run("-W", "ignore", TRAIN.with_name("held_types.py"))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found) >= 20
    unknown = {kind: where for kind, where in found.items() if kind not in TRUSTED}
    assert set(unknown) <= {"FAILED Birch"}, unknown  # skops cannot hold its tree: --as-pickle
