"""`tableside publish --from`: many models in one process; what fails is named at the end and stops nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import joblib
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from sklearn.linear_model import LinearRegression

from tableside.cli import main, manifest
from tableside.errors import PublishFailed
from tableside.repository import integrity, model_toml, paths

FRAME = pd.DataFrame({"a": [1.0, 2.0, 3.0, 4.0], "b": [4.0, 3.0, 1.0, 1.0], "y": [1.0, 2.0, 3.0, 5.0]})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two estimators and their sample."""
    monkeypatch.setenv("TABLESIDE__SERVER__RUN_DIR", str(tmp_path / "run"))
    for name in ("one", "two"):
        joblib.dump(LinearRegression().fit(FRAME[["a", "b"]], FRAME["y"]), tmp_path / f"{name}.joblib")
    FRAME.to_csv(tmp_path / "rows.csv", index=False)
    return tmp_path


def write(folder: Path, text: str) -> Path:
    path = folder / "manifest.toml"
    path.write_text(text)
    return path


def publish(folder: Path, *words: str) -> Result:
    path, root = folder / "manifest.toml", folder / "models"
    return CliRunner().invoke(main, ["publish", "--from", str(path), "--repository", str(root), *words])


BOTH = """
[defaults]
sample = "rows.csv"
target = "y"

[[model]]
name = "one"
estimator = "one.joblib"
alias = "champion"

[[model]]
name = "two"
estimator = "two.joblib"
runtime = "sklearn"
"""


def test_every_model_is_published(folder: Path) -> None:
    """Each model is published with its own options and the defaults; paths are relative to the manifest."""
    write(folder, BOTH)
    done = publish(folder, "--quick")
    assert done.exit_code == 0, done.output
    root = folder / "models"
    assert paths.models(root) == ["one", "two"]
    assert model_toml.read(root, "one").aliases == {"champion": 1}
    assert all(integrity.read_contract(root, name, 1).quick for name in ("one", "two"))
    assert "published one/1 in " in done.stdout
    assert "... 2/2 two: learning the contract" in done.stderr


def test_a_file_of_types_is_relative_to_the_manifest(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`types` is a path as `sample` is; a text with COLUMN=DTYPE is none."""
    (folder / "types.json").write_text('{"a": "float32"}')
    head = '[[model]]\nestimator = "one.joblib"\nsample = "rows.csv"\ntarget = "y"\n'
    write(folder, f'{head}name = "one"\ntypes = "types.json"\n{head}name = "two"\ntypes = "a=float32"\n')
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    done = publish(folder, "--quick")
    assert done.exit_code == 0, done.output
    for name in ("one", "two"):
        contract = integrity.read_contract(folder / "models", name, 1)
        assert [column.datatype for column in contract.input.columns] == ["FP32", "FP64"]


def test_a_failure_stops_nothing_else(folder: Path) -> None:
    """A model that fails is a line at the end, the others are published, and the exit code is 1."""
    write(folder, BOTH.replace("one.joblib", "none.joblib"))
    done = publish(folder, "--json")
    assert done.exit_code == 1
    assert paths.models(folder / "models") == ["two"]
    content = json.loads(done.stdout)
    assert [row["name"] for row in content["published"]] == ["two"]
    assert content["failed"] == [f"one: {folder / 'none.joblib'}: no such file"]
    errors = [line for line in done.stderr.splitlines() if not line.startswith("... ")]
    assert errors == [f"tableside: one: {folder / 'none.joblib'}: no such file", "tableside: 1 of 2 failed"]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "write a [[model]] with name and estimator for each model to publish"),
        ("[[models]]\nname = 'm'\n", "unknown key 'models'. A manifest has [defaults] and a [[model]] for each model"),
        ("[model]\nname = 'm'\n", "write a [[model]] with name and estimator"),
        ("[[model]]\nestimator = 'm.joblib'\n", "model 1: Object missing required field `name`"),
        ("[[model]]\nname = 'm'\n", "model 1 (m): Object missing required field `estimator`"),
        (
            "[[model]]\nname = 'm'\nestimator = 'm.joblib'\nsampel = 'x.csv'\n",
            "model 1 (m): Object contains unknown field `sampel`",
        ),
        (
            "[[model]]\nname = 'm'\nestimator = 'm.joblib'\nversion = 'x'\n",
            "model 1 (m): version: Expected `int | null`, got `str`",
        ),
        ("[[model]\n", "manifest.toml: "),
    ],
)
def test_a_manifest_that_is_wrong(folder: Path, text: str, error: str) -> None:
    """A mistake in the manifest is one line that names the entry and the key, and nothing is published."""
    with pytest.raises(PublishFailed) as caught:
        manifest.read(write(folder, text))
    assert error in str(caught.value)
    done = publish(folder)
    assert done.exit_code == 2
    assert not (folder / "models").exists()


def test_a_missing_manifest(folder: Path) -> None:
    """A manifest that does not exist is one line."""
    done = publish(folder)
    assert (done.exit_code, done.stderr) == (2, f"tableside: {folder / 'manifest.toml'}: No such file or directory\n")


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["publish"], "name a model and its estimator: tableside publish NAME ESTIMATOR, or --from MANIFEST"),
        (["publish", "m"], "name a model and its estimator"),
        (["publish", "m", "e", "--from", "x.toml"], "--from x.toml names the models itself. Leave out 'm', or --from"),
        (["publish", "--from", "x.toml", "--alias", "a"], "only --quick and --sign go with --from"),
    ],
)
def test_arguments_that_do_not_go_together(words: list[str], error: str) -> None:
    """A manifest replaces the arguments and the options of one model."""
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 2
    assert error in done.stderr
