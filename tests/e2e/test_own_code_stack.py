"""Versions with code of their own in the real stack: side by side, after HUP, and by consent."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.e2e.conftest import Stack, until
from tests.e2e.test_restarts import workers
from tests.own_code_models import Trained, train

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def trainers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trained, Trained]:
    """Two trainers whose modules have the same names and other content."""
    other = train(tmp_path_factory.mktemp("second"), scale="def factor():\n    return 7.0\n")
    return train(tmp_path_factory.mktemp("first")), other


def publish(stack: Stack, trained: Trained, name: str, model: str | None = None) -> None:
    files = [str(trained.file(f"{name}.{kind}")) for kind in ("joblib", "csv")]
    done = stack.cli("publish", model or name, files[0], "--sample", files[1], *trained.code, "--quick")
    assert done.returncode == 0, done.stderr


def assert_equal_to_memory(stack: Stack, trained: Trained, name: str, version: int) -> None:
    rows = json.loads(trained.rows(name).to_json(orient="values"))
    for _ in range(4):  # both workers
        path = f"/v1/models/{name}/versions/{version}:predict"
        status, reply, _ = stack.call(path, {"signature_name": "predict_proba", "instances": rows})
        assert status == 200, reply
        np.testing.assert_array_equal(np.array(reply["predictions"]), trained.answers(name)["predict_proba"])


def test_a_version_from_another_host_waits_for_consent(stack: Stack, trainers: tuple[Trained, Trained]) -> None:
    """Without consent here the version is unavailable and says what to type; with it, it answers."""
    publish(stack, trainers[0], "ratio", "alone")
    consents = Path(stack.environ["TABLESIDE__REPOSITORY__CONSENT_FILE"])
    consents.unlink()  # the folder was copied here from the host where it was published
    ask = {"instances": [[10.0, 2.0]]}
    reloaded = stack.cli("reload")
    assert reloaded.returncode == 1
    assert "alone/1 is UNAVAILABLE: waits for consent" in reloaded.stderr
    status, reply, _ = stack.call("/v1/models/alone:predict", ask)
    assert status == 503
    assert "`tableside consent alone/1`" in reply["error"]
    assert stack.cli("consent", "alone/1", "--yes").returncode == 0
    stack.cli("reload")
    assert stack.call("/v1/models/alone:predict", ask)[0] == 200
    assert stack.cli("consent", "alone/1", "--revoke").returncode == 0
    stack.cli("reload")
    assert stack.call("/v1/models/alone:predict", ask)[0] == 503
    assert stack.cli("delete", "alone/1", "--yes").returncode == 0


def test_versions_with_other_code_answer_as_in_memory(stack: Stack, trainers: tuple[Trained, Trained]) -> None:
    """Each version answers with its own code to the bit: after a reload, after HUP and after a restart."""
    for trained in trainers:
        for name in ("ratio", "logs", "shares", "tone"):
            publish(stack, trained, name)
    assert stack.cli("reload").returncode == 0
    old = set(workers(stack))
    for event in (None, ("signal", "HUP", "web:*"), ("restart", "web:*")):
        if event is not None:
            stack.ctl(*event)
            assert until(lambda old=old: len(workers(stack)) == 2 and not old & set(workers(stack)), 60), stack.logs()
            old = set(workers(stack))
            stack.wait_loaded()
        for version, trained in enumerate(trainers, 1):
            for name in ("ratio", "logs", "shares", "tone"):
                assert_equal_to_memory(stack, trained, name, version)
