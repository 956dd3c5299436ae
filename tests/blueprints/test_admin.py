"""The control plane: metrics for its listener, the admin API for its key."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tableside.factory import create_app
from tests.conftest import CONTROL, KEY, MakeApp

BEARER = {"Authorization": f"Bearer {KEY}"}
ADMIN = [("GET", "/admin/api/models"), ("GET", "/admin/api/workers"), ("POST", "/admin/api/reload")]


def ask(client: FlaskClient, method: str, url: str, **more: Any) -> Any:
    return client.open(url, method=method, environ_overrides=CONTROL, **more)


@pytest.mark.parametrize(("method", "url"), [*ADMIN, ("GET", "/metrics")])
def test_the_data_plane_has_no_control(client: FlaskClient, method: str, url: str) -> None:
    """Control routes do not exist on the data plane, key or no key, whatever header claims otherwise."""
    for headers in ({}, BEARER, {**BEARER, "Tableside-Plane": "control", "Tableside.Plane": "control"}):
        response = client.open(url, method=method, headers=headers)
        assert response.status_code == 404
        assert response.get_json()["error"] == f"nothing at {url}"


@pytest.mark.parametrize(("method", "url"), ADMIN)
@pytest.mark.parametrize(
    "given", ["", "Bearer", "Bearer ", "Bearer wrong", f"Basic {KEY}", KEY, f"Bearer {KEY}x", "Bearer kéy"]
)
def test_the_admin_api_wants_its_key(client: FlaskClient, method: str, url: str, given: str) -> None:
    """Without the right key the admin API answers 401 and how to send it."""
    response = ask(client, method, url, headers={"Authorization": given} if given else {})
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert "Authorization: Bearer KEY" in response.get_json()["error"]


def test_no_key_file_lets_nobody_in(make_app: MakeApp, tmp_path: Path) -> None:
    """Where there is no key, or an empty one, nobody is let in."""
    client = make_app(load=False).test_client()
    file = tmp_path / "run" / "admin.key"
    file.write_text("\n")
    assert ask(client, "GET", "/admin/api/workers", headers={"Authorization": "Bearer "}).status_code == 401
    file.unlink()
    assert ask(client, "GET", "/admin/api/workers", headers=BEARER).status_code == 401


def test_models_are_listed(client: FlaskClient) -> None:
    """The admin API shows every version with its state."""
    got = ask(client, "GET", "/admin/api/models", headers=BEARER).get_json()
    assert got["generation"] == 1
    assert [model["name"] for model in got["models"]] == ["breast-cancer", "diabetes", "iris", "wine"]
    iris = got["models"][2]
    assert iris["aliases"] == {"champion": 1}
    assert (iris["versions"][0]["state"], iris["versions"][0]["reason"]) == ("READY", "")
    assert iris["versions"][0]["estimator"] == "Pipeline(StandardScaler, LogisticRegression)"


def test_metrics_count_what_was_served(make_app: MakeApp) -> None:
    """Predictions are counted by model and status; a name a client invented is no label."""
    client = make_app().test_client()
    for body in ({"instances": [[1, 2, 3, 4]] * 3}, {"instances": [["x"]]}):
        client.post("/v1/models/iris:predict", json=body)
    client.post("/v1/models/invented:predict", json={})
    response = ask(client, "GET", "/metrics")
    assert response.content_type.startswith("text/plain")
    text = response.get_data(as_text=True)
    assert 'tableside_requests_total{code="200",model="iris",protocol="v1",version="1"} 1.0' in text
    assert 'tableside_requests_total{code="400",model="iris",protocol="v1",version="1"} 1.0' in text
    assert 'tableside_rows_total{model="iris",version="1"} 3.0' in text
    assert 'tableside_model_state{model="iris",state="READY",version="1"} 1.0' in text
    assert 'tableside_in_flight{model="iris"} 0.0' in text
    assert "invented" not in text


def test_a_reload_reaches_every_worker(worker: Flask, small_repository: Path) -> None:
    """Reload answers when every worker serves the new generation, and the new model is there at once."""
    client = worker.test_client()
    shutil.copytree(small_repository / "iris", small_repository / "other")
    contract = small_repository / "other" / "1" / "contract.json"
    contract.chmod(0o644)
    contract.write_bytes(contract.read_bytes().replace(b'"name": "iris"', b'"name": "other"', 1))
    assert client.get("/v2/models/other").status_code == 404
    response = ask(client, "POST", "/admin/api/reload", headers=BEARER)
    assert response.status_code == 200, response.get_data(as_text=True)
    got = response.get_json()
    assert (got["generation"], got["complete"], got["late"]) == (1, True, [])
    assert client.get("/v2/models/other/ready").status_code == 200
    (shown,) = ask(client, "GET", "/admin/api/workers", headers=BEARER).get_json()["workers"]
    assert (shown["worker_slot"], shown["generation"], shown["instance"]) == (0, 1, "test")
    assert [(each["name"], each["state"]) for each in shown["models"]] == [("iris", "READY"), ("other", "READY")]


def test_a_face_without_access_is_refused(make_settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The factory mounts no blueprint that does not say who may call it."""
    from tableside.web.auth import ACCESS_BY_BLUEPRINT

    monkeypatch.delitem(ACCESS_BY_BLUEPRINT, "metrics")
    with pytest.raises(RuntimeError, match="blueprint 'metrics' declares no access"):
        create_app(make_settings(tmp_path, tmp_path / "run"))
