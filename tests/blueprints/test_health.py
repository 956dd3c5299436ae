"""Liveness and readiness."""

from __future__ import annotations

import shutil
import sys
import threading
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from tests.conftest import MakeApp, registry_of

READY = ("/v2/health/ready", "/ping")


def not_ready(client: FlaskClient) -> set[str]:
    reasons = set()
    for url in READY:
        response = client.get(url)
        assert response.status_code == 503
        assert response.headers["Retry-After"] == "1"
        content = response.get_json()
        assert content["ready"] is False
        assert content["error"] == f"not ready: {content['reason']}"
        reasons.add(content["reason"])
    return reasons


def test_a_worker_that_serves_is_alive_and_ready(client: FlaskClient) -> None:
    """A worker that serves models answers 200 to every liveness and readiness probe."""
    assert client.get("/").get_json() == {"status": "alive"}
    assert client.get("/v2/health/live").get_json() == {"live": True}
    for url in READY:
        assert client.get(url).get_json() == {"ready": True}


@pytest.mark.parametrize("spot", ["iris", "iris/versions/1", "iris@champion"])
def test_a_model_is_ready(client: FlaskClient, spot: str) -> None:
    """A model is ready by its name, by a version and by an alias."""
    assert client.get(f"/v2/models/{spot}/ready").get_json() == {"name": "iris", "ready": True}


def test_a_loading_worker_is_not_ready(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before its first load a worker is alive but not ready; a prediction answers 503 with Retry-After."""
    monkeypatch.setattr(sys.modules["tableside.blueprints.health.views"], "FIRST_LOAD_WAIT_S", 0.05)
    client = make_app(load=False, server__request_timeout_s="0.05").test_client()
    assert client.get("/v2/health/live").status_code == 200
    assert not_ready(client) == {"loading: the repository is being read"}
    response = client.get("/v2/models/iris/ready")
    assert (response.status_code, response.get_json()["reason"]) == (503, "loading: the repository is being read")
    early = client.post("/v1/models/iris:predict", json={})
    assert (early.status_code, early.headers["Retry-After"]) == (503, "1")


def test_a_probe_waits_for_the_first_load(make_app: MakeApp) -> None:
    """A readiness probe during a worker's first load is answered after the load, so that a restart stays ready."""
    app = make_app(load=False)
    loading = threading.Timer(0.3, lambda: registry_of(app).reload(1))
    loading.start()
    try:
        assert app.test_client().get("/v2/health/ready").get_json() == {"ready": True}
        assert app.test_client().get("/v2/models/iris/ready").status_code == 200
    finally:
        loading.join()


def test_a_draining_worker_is_not_ready(make_app: MakeApp) -> None:
    """A stopping worker is not ready, and still answers requests."""
    app = make_app()
    registry_of(app).draining = True
    client = app.test_client()
    assert not_ready(client) == {"draining: the worker is stopping"}
    assert client.post("/v1/models/iris:predict", json={"instances": [[1, 2, 3, 4]]}).status_code == 200


def test_no_models_is_not_ready(make_app: MakeApp, small_repository: Path) -> None:
    """A worker without models is not ready until a reload finds one."""
    shutil.move(small_repository / "iris", small_repository.parent / "away")
    app = make_app()
    assert not_ready(app.test_client()) == {"no model of the repository can be served"}
    shutil.move(small_repository.parent / "away", small_repository / "iris")
    registry_of(app).reload(2)
    assert app.test_client().get("/ping").status_code == 200


def test_no_repository_is_not_ready(make_app: MakeApp, small_repository: Path) -> None:
    """When the repository folder is missing, readiness gives that as its reason."""
    shutil.rmtree(small_repository)
    (reason,) = not_ready(make_app().test_client())
    assert "does not exist" in reason


def test_an_unavailable_model_is_not_ready(make_app: MakeApp, small_repository: Path) -> None:
    """A version that cannot answer is 503 with its state and reason, while the worker itself is ready."""
    (small_repository / "iris" / "2").mkdir()
    (small_repository / "iris" / "2" / "contract.json").write_bytes(b"{}")
    client = make_app().test_client()
    response = client.get("/v2/models/iris/versions/2/ready")
    assert response.status_code == 503
    content = response.get_json()
    assert (content["name"], content["ready"]) == ("iris", False)
    assert content["error"] == "iris/2 is UNAVAILABLE"
    assert "contract.json" in content["reason"]
    assert client.get("/v2/health/ready").status_code == 200
