"""Own code and pickles in model processes: loaded by consent, from the bytes that were hashed, and equal to memory."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from tableside.cli import main
from tableside.contracts.schema import Contract
from tableside.decoding.json_tables import from_rows
from tableside.errors import ContractBroken, FailureKind
from tableside.model_process.child.loaded_versions import Versions
from tableside.model_process.environment_pools import Environments
from tableside.model_process.remote_runtime import RemoteRuntime
from tableside.preflight.checks import check_version
from tableside.repository import integrity
from tableside.runtimes.trusted_types import TRUSTED
from tableside.settings import Repository
from tests.conftest import cells
from tests.own_code_models import Trained
from tests.unit.test_environments import OWN, pool

pytestmark = [pytest.mark.no_greenlets, pytest.mark.processes, pytest.mark.slow]
__all__ = ["pool"]

FRAME = pd.DataFrame({"a": [1.0, 2.0, 3.0, 4.0], "b": [2.0, 1.0, 0.0, 5.0]})
Pool = Callable[..., Environments]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A repository whose model `m` names the environment `own`, with a consent file beside it."""
    monkeypatch.setenv("TABLESIDE__REPOSITORY__CONSENT_FILE", str(tmp_path / "consent.jsonl"))
    (tmp_path / "models" / "m").mkdir(parents=True)
    (tmp_path / "models" / "m" / "model.toml").write_text('environment = "own"\n')
    yield tmp_path / "models"


def publish(root: Path, *words: object) -> Contract:
    done = CliRunner().invoke(main, ["publish", "m", *map(str, words), "--repository", str(root)])
    assert done.exit_code == 0, done.output
    return integrity.read_contract(root, "m", 1)


def load(root: Path, places: Environments) -> RemoteRuntime:
    runtime = check_version(root, "m", 1, Repository(consent_file=str(root.parent / "consent.jsonl")), None, places)
    assert isinstance(runtime, RemoteRuntime)
    return runtime


def answers(runtime: RemoteRuntime, contract: Contract, frame: pd.DataFrame, method: str) -> Any:
    return runtime.run(method, runtime.prepare(from_rows(cells(frame), contract.input)))


@pytest.mark.parametrize("more", [(), ("--as-pickle",)], ids=["skops", "pickle"])
@pytest.mark.parametrize("name", ["ratio", "shares"])
def test_own_code_answers_as_in_memory(
    root: Path, pool: Pool, with_own_code: Trained, name: str, more: tuple[str, ...]
) -> None:
    """A version with own code runs in a model process, as a skops file and as a pickle, and is equal to memory."""
    files = [with_own_code.file(f"{name}.joblib"), "--sample", with_own_code.file(f"{name}.csv")]
    contract = publish(root, *files, *with_own_code.code, *more)
    found = answers(load(root, pool(own=OWN)), contract, with_own_code.rows(name), "predict_proba")
    np.testing.assert_array_equal(found, with_own_code.answers(name)["predict_proba"])


def lambda_pickle(root: Path) -> Contract:
    model = make_pipeline(FunctionTransformer(lambda table: table * 2), LinearRegression())
    (root.parent / "model.pkl").write_bytes(cloudpickle.dumps(model.fit(FRAME, [1.0, 2.0, 3.0, 5.0])))
    FRAME.to_csv(root.parent / "sample.csv", index=False)
    return publish(root, root.parent / "model.pkl", "--sample", root.parent / "sample.csv", "--as-pickle")


def test_a_pickle_runs_in_its_own_process(root: Path, pool: Pool) -> None:
    """What cloudpickle saved by value answers from a model process as in memory."""
    contract = lambda_pickle(root)
    found = answers(load(root, pool(own=OWN)), contract, FRAME, "predict")
    expected = cloudpickle.loads((root.parent / "model.pkl").read_bytes()).predict(FRAME)
    np.testing.assert_array_equal(found, expected)


def test_a_model_process_loads_a_pickle_by_consent_only(root: Path, pool: Pool) -> None:
    """Without consent, the message that would load it is not sent."""
    lambda_pickle(root)
    (root.parent / "consent.jsonl").unlink()
    with pytest.raises(ContractBroken, match="waits for consent: it holds a pickle") as broken:
        load(root, pool(own=OWN))
    assert broken.value.failure_kind is FailureKind.CONSENT


def test_a_pickle_shares_its_processes_with_no_other_model(root: Path, pool: Pool) -> None:
    """Another model that names the same environment makes the pickle unavailable, with what to do."""
    lambda_pickle(root)
    (root / "n" / "1").mkdir(parents=True)
    (root / "n" / "1" / "contract.json").write_text("{}")
    (root / "n" / "model.toml").write_text('environment = "own"\n')
    with pytest.raises(ContractBroken, match="the model n names the environment 'own' too") as broken:
        load(root, pool(own=OWN))
    assert broken.value.failure_kind is FailureKind.ENVIRONMENT


def test_no_other_model_joins_a_pickle(root: Path, pool: Pool, repository: Path) -> None:
    """A model without a pickle is not loaded beside one, whose code could change its answers."""
    lambda_pickle(root)
    shutil.copytree(repository / "iris", root / "iris")
    (root / "iris" / "model.toml").write_text('environment = "own"\n')
    with pytest.raises(ContractBroken, match="an artifact of the model m is a pickle") as broken:
        check_version(root, "iris", 1, Repository(), None, pool(own=OWN))
    assert broken.value.failure_kind is FailureKind.ENVIRONMENT


def test_code_is_not_in_the_state_of_a_process(root: Path, repository: Path) -> None:
    """A process that starts again loads a pickle only when a worker, which checks the consent, asks for it."""
    state = root.parent / "state.json"
    versions = Versions(str(state))
    contract, skops = lambda_pickle(root), integrity.read_contract(repository, "iris", 1)
    plain = {"form": "matrix", "columns": [], "trusted": list(TRUSTED), "code": {}}
    for key, folder, found in (("m", root / "m", contract), ("iris", repository / "iris", skops)):
        path = folder / "1" / found.artifact.file
        kind = "pickle" if found is contract else "skops"
        versions.load({**plain, "key": key, "path": str(path), "sha256": found.artifact.sha256, "format": kind})
    assert [each["key"] for each in json.loads(state.read_text())] == ["iris"]
