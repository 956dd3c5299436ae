"""MLflow directories with code of their own (`code_paths`): it is published with the model, if the caller trusts it."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pandas as pd
import pytest

from tableside.contracts.schema import Contract
from tableside.preflight.checks import check_version
from tableside.settings import Repository
from tests.unit.test_mlflow import DATA, EXPECTED, assert_agree, error_of_publish, published

pytestmark = pytest.mark.no_greenlets


@pytest.fixture(autouse=True)
def consent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "consent.jsonl"
    monkeypatch.setenv("TABLESIDE__REPOSITORY__CONSENT_FILE", str(path))
    return path


def assert_answers(contract: Contract, name: str, root: Path, consent: Path) -> None:
    assert [file.file for file in contract.code] == ["code/churn_steps.py"]
    known = EXPECTED["models"][name]
    runtime = check_version(root, "m", contract.version, Repository(consent_file=str(consent)))
    frame = pd.DataFrame(known["rows"], columns=known["columns"])
    for method, answers in known["answers"].items():
        assert_agree(runtime.run(method, frame), answers)
    assert "churn_steps" not in sys.modules


@pytest.mark.parametrize("option", ["--allow-code", "--allow-pickle"])
def test_a_skops_model_with_code_is_published(option: str, tmp_path: Path, consent: Path) -> None:
    """The modules of `code_paths` go into the version, and the answers are those from before MLflow saved the model."""
    contract = published(DATA / "own_code_skops", tmp_path / "r", option)
    assert_answers(contract, "own_code_skops", tmp_path / "r", consent)


def test_a_cloudpickle_model_with_code_is_published(tmp_path: Path, consent: Path) -> None:
    """--allow-pickle covers the code too: the pickle could hold any."""
    contract = published(DATA / "own_code_cloudpickle", tmp_path / "r", "--allow-pickle")
    assert_answers(contract, "own_code_cloudpickle", tmp_path / "r", consent)


@pytest.mark.parametrize("name", ["own_code_skops", "own_code_cloudpickle"])
def test_a_directory_cannot_allow_its_own_code(name: str, tmp_path: Path) -> None:
    """Without an option the code is named and not run."""
    line = error_of_publish(DATA / name, tmp_path / "r")
    assert "brings own code (code/churn_steps.py)" in line
    assert "--allow-code" in line
    assert ("--allow-pickle, which the cloudpickle file needs, covers the code too" in line) == ("cloudpickle" in name)


def test_an_allowed_pickle_does_not_allow_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sha256 of a pickle in the settings says nothing about the modules beside it."""
    digest = hashlib.sha256((DATA / "own_code_cloudpickle" / "model.pkl").read_bytes()).hexdigest()
    monkeypatch.setenv("TABLESIDE__REPOSITORY__ALLOWED_PICKLES", digest)
    assert "brings own code" in error_of_publish(DATA / "own_code_cloudpickle", tmp_path / "r")
    contract = published(DATA / "own_code_cloudpickle", tmp_path / "r", "--allow-code")
    assert len(contract.code) == 1


def test_given_code_is_used_in_place_of_the_directorys(tmp_path: Path, consent: Path) -> None:
    """`--code` needs no --allow-code: the caller has named the file."""
    contract = published(DATA / "own_code_skops", tmp_path / "r", "--code", DATA / "trainer" / "churn_steps.py")
    assert_answers(contract, "own_code_skops", tmp_path / "r", consent)
