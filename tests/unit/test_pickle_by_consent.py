"""A pickle is written only when the trainer asks for it, needs consent, and is loaded by no worker."""

from __future__ import annotations

import hashlib
import json
import pickle
import threading
from pathlib import Path
from typing import Any

import cloudpickle
import msgspec
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from tableside.cli import main
from tableside.contracts import schema
from tableside.contracts.consent_digest import PICKLE
from tableside.contracts.schema import Artifact
from tableside.errors import ContractBroken, FailureKind, PublishFailed
from tableside.preflight.checks import check_version
from tableside.publishing.publish import publish
from tableside.repository import consent_file, integrity, paths
from tableside.settings import Repository
from tests.conftest import MakeApp
from tests.own_code_models import Trained

pytestmark = pytest.mark.no_greenlets

FRAME = pd.DataFrame({"a": [1.0, 2.0, 3.0, 4.0], "b": [2.0, 1.0, 0.0, 5.0]})


@pytest.fixture(autouse=True)
def consent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "consent.jsonl"
    monkeypatch.setenv("TABLESIDE__REPOSITORY__CONSENT_FILE", str(path))
    return path


def with_lambda() -> Any:
    return make_pipeline(FunctionTransformer(lambda table: table * 2), LinearRegression()).fit(
        FRAME, [1.0, 2.0, 3.0, 5.0]
    )


def run(root: Path, *words: object) -> Result:
    return CliRunner().invoke(main, [*map(str, words), "--repository", str(root)])


def publish_file(root: Path, folder: Path, *more: object) -> Result:
    """Publish a pipeline with a lambda that cloudpickle saved by value, as a trainer's file."""
    (folder / "model.pkl").write_bytes(cloudpickle.dumps(with_lambda()))
    FRAME.to_csv(folder / "sample.csv", index=False)
    return run(root, "publish", "m", folder / "model.pkl", "--sample", folder / "sample.csv", *more)


def test_what_has_no_name_is_refused_with_the_way_out(tmp_path: Path) -> None:
    """Code that cloudpickle saved by value is refused: it names the step, the reason and --as-pickle."""
    done = publish_file(tmp_path / "r", tmp_path)
    assert done.exit_code == 2
    assert "func of step 'functiontransformer' is a lambda" in done.stderr
    assert "--as-pickle" in done.stderr
    assert paths.versions(tmp_path / "r", "m") == []


def test_the_trainers_file_is_the_artifact(tmp_path: Path, consent: Path) -> None:
    """The pickle is the trainer's own file, in contract and consent by its sha256; no fast backend is used."""
    done = publish_file(tmp_path / "r", tmp_path, "--as-pickle")
    assert done.exit_code == 0, done.output
    contract = integrity.read_contract(tmp_path / "r", "m", 1)
    digest = hashlib.sha256((tmp_path / "model.pkl").read_bytes()).hexdigest()
    assert (contract.artifact.file, contract.artifact.sha256, contract.routes) == (PICKLE, digest, ())
    (entry,) = consent_file.read(consent)
    assert entry.files == (contract.artifact,)


def test_a_pickle_is_marked(tmp_path: Path) -> None:
    """`list`, `show` and `consent` say that the artifact is a pickle."""
    publish_file(tmp_path / "r", tmp_path, "--as-pickle")
    assert json.loads(run(tmp_path / "r", "list", "--json").stdout)[0]["artifact"] == "PICKLE"
    assert "PICKLE" in run(tmp_path / "r", "list").stdout
    assert "PICKLE" in run(tmp_path / "r", "show", "m").stdout
    assert "is a pickle" in run(tmp_path / "r", "consent", "m").stdout


def test_no_worker_and_no_preflight_loads_a_pickle(tmp_path: Path, consent: Path, make_app: MakeApp) -> None:
    """With consent and without a process of its own, the version is unavailable and says what to do."""

    class Payload:
        def __reduce__(self) -> Any:
            return open, (str(tmp_path / "has-run"), "w")

    root = tmp_path / "models"
    publish_file(root, tmp_path, "--as-pickle")
    folder = root / "m" / "1"
    content = pickle.dumps(Payload())
    (folder / PICKLE).chmod(0o644)
    (folder / PICKLE).write_bytes(content)
    contract = integrity.read_contract(root, "m", 1)
    artifact = Artifact(PICKLE, hashlib.sha256(content).hexdigest(), len(content))
    changed = msgspec.structs.replace(contract, artifact=artifact)
    (folder / paths.CONTRACT).chmod(0o644)
    (folder / paths.CONTRACT).write_bytes(schema.encode(changed))
    consent_file.append(consent, [consent_file.entry_of(changed, root, "consent")])
    with pytest.raises(ContractBroken, match="the artifact is a pickle") as broken:
        check_version(root, "m", 1, Repository(consent_file=str(consent)))
    assert broken.value.failure_kind is FailureKind.ENVIRONMENT
    assert "the artifact is a pickle" in run(root, "verify", "m").output
    app = make_app(repository__consent_file=str(consent))
    reply = app.test_client().post("/v1/models/m:predict", json={"instances": [[1.0, 2.0]]})
    assert reply.status_code == 503
    assert not (tmp_path / "has-run").exists()


def test_without_consent_it_waits(tmp_path: Path, consent: Path) -> None:
    """A pickle that came in another way waits for `tableside consent`."""
    publish_file(tmp_path / "r", tmp_path, "--as-pickle")
    consent.unlink()
    with pytest.raises(ContractBroken, match=r"holds a pickle, .*`tableside consent m/1`") as broken:
        check_version(tmp_path / "r", "m", 1, Repository(consent_file=str(consent)))
    assert broken.value.failure_kind is FailureKind.CONSENT


def test_publish_from_python_as_pickle(tmp_path: Path) -> None:
    """Where joblib cannot pickle an estimator, cloudpickle does; what nothing can pickle is refused."""
    contract = publish("m", with_lambda(), FRAME, repository=tmp_path / "r", as_pickle=True)
    content = (tmp_path / "r" / "m" / "1" / PICKLE).read_bytes()
    loaded = pickle.loads(content)
    golden = [row[0] for row in contract.golden.answers["predict"]]
    np.testing.assert_array_equal(loaded.predict(FRAME), golden)
    unpicklable = with_lambda()
    unpicklable[0].lock = threading.Lock()
    with pytest.raises(PublishFailed, match="the estimator cannot be pickled: TypeError"):
        publish("n", unpicklable, FRAME, repository=tmp_path / "r", as_pickle=True)
    assert paths.versions(tmp_path / "r", "n") == []


def test_own_code_and_a_pickle_together(with_own_code: Trained, tmp_path: Path) -> None:
    """A pickle that names modules of the trainer's own is read with the code that is published with it."""
    done = run(
        tmp_path / "r", "publish", "m", with_own_code.file("ratio.joblib"), "--sample", with_own_code.file("ratio.csv"),
        *with_own_code.code, "--as-pickle",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    contract = integrity.read_contract(tmp_path / "r", "m", 1)
    assert contract.artifact.file == PICKLE
    assert len(contract.code) == 7
