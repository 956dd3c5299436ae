"""The model repository API: index, load and unload, and the reason for each version that cannot be served."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from flask import Flask
from flask.testing import FlaskClient

from tableside.process import worker_slots
from tableside.process.generation_words import GenerationWords
from tableside.repository import model_toml_edits
from tableside.serving import switching
from tableside.serving.worker_refusals import WorkerRefusals, refusals_file
from tests import skewed_environment
from tests.conftest import BEARER, CONTROL, MakeApp, error_of

CALLS = ["index", "models/iris/load", "models/iris/unload"]
Ask = Callable[..., tuple[int, Any]]


def post(client: FlaskClient, path: str, **more: Any) -> Any:
    return client.post(f"/v2/repository/{path}", environ_overrides=CONTROL, headers=BEARER, **more)


@pytest.fixture
def ask(worker: Flask) -> Ask:
    client = worker.test_client()

    def call(path: str, **more: Any) -> tuple[int, Any]:
        response = post(client, path, **more)
        return response.status_code, response.get_json()

    return call


@pytest.mark.parametrize("path", CALLS)
def test_it_is_on_the_control_plane_and_requires_the_key(client: FlaskClient, path: str) -> None:
    """It answers 404 on the data plane even with the key, 401 without the key, and 405 for a GET."""
    assert client.post(f"/v2/repository/{path}", headers=BEARER).status_code == 404
    assert client.post(f"/v2/repository/{path}", environ_overrides=CONTROL).status_code == 401
    found = client.get(f"/v2/repository/{path}", environ_overrides=CONTROL, headers=BEARER)
    assert (found.status_code, found.headers["Allow"]) == (405, "OPTIONS, POST")


def test_it_is_advertised(client: FlaskClient) -> None:
    """The server metadata lists the extension by the name that V2 clients look for."""
    assert "model_repository" in client.get("/v2").get_json()["extensions"]


@pytest.mark.parametrize("body", [b"", b"{}", b" ", b'{"ready": false}', b'{"ready": true, "other": 1}'])
def test_the_index_is_a_bare_array_of_every_version(client: FlaskClient, body: bytes) -> None:
    """Each version is one entry with state and reason; an empty body and unknown members are allowed."""
    names = ("breast-cancer", "diabetes", "iris", "wine")
    assert post(client, "index", data=body).get_json() == [
        {"name": name, "version": "1", "state": "READY", "reason": ""} for name in names
    ]


@pytest.mark.parametrize("body", [b"[]", b"{", b'{"ready": 1}', b'{"ready": "yes"}'])
def test_a_wrong_index_body_is_refused(client: FlaskClient, body: bytes) -> None:
    """A body that does not fit answers 400 with the error object."""
    response = post(client, "index", data=body)
    assert response.status_code == 400
    assert error_of(response)["error"]


def test_the_index_lists_versions_that_are_not_served(ask: Ask, small_repository: Path) -> None:
    """A version that no worker serves is listed with the reason: unread, left out, unloaded, or a broken model.toml."""
    folder = skewed_environment.next_version(small_repository, "iris")

    def second() -> tuple[str, str]:
        (entry,) = [entry for entry in ask("index")[1] if entry["version"] == "2"]
        return entry["state"], entry["reason"]

    assert second()[0] == "UNAVAILABLE"
    assert "not read yet" in second()[1]
    assert {each["version"] for each in ask("index", json={"ready": True})[1]} == {"1"}
    config = small_repository / "iris" / "model.toml"
    config.write_text("versions = [1]\n")
    assert "`versions` in model.toml leaves it out" in second()[1]
    config.write_text("versions = [\n")
    assert "iris/model.toml" in second()[1]
    config.write_text("enabled = false\n")
    assert "unloaded" in second()[1]
    config.unlink()
    assert ask("models/iris/load") == (200, {"name": "iris", "load": True})
    assert second() == ("READY", "")
    shutil.rmtree(folder)
    assert second() == ("READY", "")  # still served, until a reload
    assert ask("models/iris/load")[0] == 200
    assert [each["version"] for each in ask("index")[1]] == ["1"]


def test_unload_and_load(ask: Ask, worker: Flask, small_repository: Path) -> None:
    """An unloaded model answers 503 with the reason. Both calls may be repeated, and change only `enabled`."""
    client, config = worker.test_client(), small_repository / "iris" / "model.toml"
    written = '# mine\nversions = "all" # all of them\n\n[aliases]\nchampion = 1\n'
    config.write_text(written)
    body = {"instances": [[5.1, 3.5, 1.4, 0.2]]}
    for _ in range(2):
        assert ask("models/iris/unload", json={"parameters": {"unload_dependents": True}})[0] == 200
        response = client.post("/v1/models/iris:predict", json=body)
        assert (response.status_code, "unloaded" in response.get_json()["error"]) == (503, True)
        assert client.get("/v2/models/iris/ready").status_code == 503
        assert "enabled = false" in config.read_text()
        (entry,) = ask("index")[1]
        assert (entry["state"], "unloaded" in entry["reason"]) == ("UNAVAILABLE", True)
    for _ in range(2):
        assert ask("models/iris/load", data=b"")[0] == 200
        assert client.post("/v1/models/iris@champion:predict", json=body).status_code == 200
    assert config.read_text() == written


def test_a_model_without_model_toml_can_be_unloaded(ask: Ask, small_repository: Path) -> None:
    """Unload writes a model.toml when the model has none."""
    (small_repository / "iris" / "model.toml").unlink()
    assert ask("models/iris/unload")[0] == 200
    assert (small_repository / "iris" / "model.toml").read_text() == "enabled = false\n"
    assert ask("models/iris/load")[0] == 200


def test_a_load_that_fails_gives_the_reason_and_the_old_version_answers(
    ask: Ask, worker: Flask, small_repository: Path
) -> None:
    """Load answers 400 with the reason when the newest version cannot be served; the one before it still answers."""
    client, body = worker.test_client(), {"instances": [[5.1, 3.5, 1.4, 0.2]]}
    folder = skewed_environment.next_version(small_repository, "iris")
    skewed_environment.flip_a_bit(folder)
    status, content = ask("models/iris/load")
    assert status == 400
    assert re.match(
        r"iris/2 cannot be served; nothing has changed: worker \d+: iris/2: model.skops is damaged", content["error"]
    )
    assert client.post("/v1/models/iris:predict", json=body).status_code == 200
    metrics = client.get("/metrics", environ_overrides=CONTROL).get_data(as_text=True)
    assert 'tableside_model_problem{model="iris",reason="damaged",version="2"} 1.0' in metrics
    assert 'tableside_model_loads_total{model="iris",result="loaded",version="1"} 1.0' in metrics
    assert 'tableside_model_loads_total{model="iris",result="refused",version="2"} 1.0' in metrics
    shutil.rmtree(folder)
    skewed_environment.flip_a_bit(small_repository / "iris" / "1")
    status, content = ask("models/iris/load")
    assert (status, "still serving what was loaded before" in content["error"]) == (400, True)
    assert client.post("/v1/models/iris:predict", json=body).status_code == 200
    (small_repository / "iris" / "model.toml").write_text("versions = [7]\n")
    status, content = ask("models/iris/load")
    assert (status, "leaves out every published version. Add one of 1" in content["error"]) == (400, True)


def test_unsupported_parameters_and_unknown_models_are_refused(ask: Ask, small_repository: Path) -> None:
    """Configurations and files cannot be sent over HTTP; an unknown model is 404 and a broken model.toml 400."""
    for parameters in ({"config": "{}"}, {"file:1/model.skops": "QUJD"}):
        status, content = ask("models/iris/load", json={"parameters": parameters})
        assert (status, "Publish a version with `tableside publish`" in content["error"]) == (400, True)
    for call in ("load", "unload"):
        for name in ("none", "..", "iris@champion", "x" * 200):
            assert ask(f"models/{name}/{call}")[0] == 404
        assert ask(f"models/iris/{call}", data=b"[1]")[0] == 400
    (small_repository / "iris" / "model.toml").write_text("[aliases\n")
    for call in ("load", "unload"):
        status, content = ask(f"models/iris/{call}")
        assert (status, "iris/model.toml" in content["error"]) == (400, True)


def test_a_worker_that_is_late_is_named(
    ask: Ask, small_repository: Path, hung_worker: worker_slots.WorkerSlot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unload answers 503 with the PID of each worker that has not prepared the new state in time; nothing changes."""
    monkeypatch.setattr(switching, "MARGIN_S", -119.5)
    before = (small_repository / "iris" / "model.toml").read_bytes()
    status, content = ask("models/iris/unload")
    assert (status, content["status"]) == (503, 503)
    assert f"worker {os.getpid()}: has not prepared it after 0.5 s" in content["error"]
    assert (small_repository / "iris" / "model.toml").read_bytes() == before
    hung_worker.release()
    assert ask("models/iris/unload")[0] == 200


def test_without_workers_nothing_is_loaded(make_app: MakeApp) -> None:
    """When no worker runs on this host, load answers 503, because no worker has read the repository."""
    response = post(make_app(load=False).test_client(), "models/iris/load")
    assert response.status_code == 503
    assert "no worker is running to serve generation 1" in error_of(response)["error"]
    assert response.headers["Retry-After"] == "1"


def test_a_worker_that_cannot_prepare_fails_the_load(
    ask: Ask, hung_worker: worker_slots.WorkerSlot, tmp_path: Path
) -> None:
    """The failure that a worker reports is the error of the load."""
    folder = tmp_path / "run" / "generations"
    failure = WorkerRefusals(2, 424242, {}, "OSError: no space left on device")
    refusals_file(folder, hung_worker.number).write_bytes(msgspec.json.encode(failure))
    GenerationWords.open(folder).prepared(hung_worker.number, 2, refused=True)
    status, content = ask("models/iris/load")
    assert status == 400
    assert "worker 424242: OSError: no space left on device" in content["error"]


def test_an_unwritable_model_toml_is_503(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    """When model.toml cannot be written, unload names the file, gives the reason and says what to do."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(model_toml_edits, "set_enabled", full)
    status, content = ask("models/iris/unload")
    assert status == 503
    assert content["error"].startswith("cannot write iris/model.toml: No space left on device. Make room on the disk")
