"""Liveness and readiness."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from tableside import __version__
from tableside.preflight.results import PreflightResult
from tableside.serving.loader import Loader
from tableside.serving.scan import PendingVersion
from tableside.serving.servable import Servable
from tests.conftest import MakeApp, registry_of

READY = ("/v2/health/ready", "/ping", "/health")


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


def test_the_version_is_text(client: FlaskClient) -> None:
    """As MLflow's scoring server gives its own."""
    answer = client.get("/version")
    assert (answer.status_code, answer.get_data(as_text=True)) == (200, __version__)
    assert answer.content_type.startswith("text/plain")


@pytest.mark.parametrize("spot", ["iris", "iris/versions/1", "iris@champion"])
def test_a_model_is_ready(client: FlaskClient, spot: str) -> None:
    """A model is ready by its name, by a version and by an alias."""
    assert client.get(f"/v2/models/{spot}/ready").get_json() == {"name": "iris", "ready": True}


def test_a_loading_worker_is_not_ready(make_app: MakeApp) -> None:
    """Before its first load a worker is alive but not ready, and says so at once; a prediction waits, then gets 503."""
    client = make_app(load=False, server__request_timeout_s="0.05").test_client()
    assert client.get("/v2/health/live").status_code == 200
    assert not_ready(client) == {"loading: the repository is being read"}
    response = client.get("/v2/models/iris/ready")
    assert (response.status_code, response.get_json()["reason"]) == (503, "loading: the repository is being read")
    early = client.post("/v1/models/iris:predict", json={})
    assert (early.status_code, early.headers["Retry-After"]) == (503, "1")


def test_a_probe_lists_what_is_missing(make_app: MakeApp, small_repository: Path) -> None:
    """While one of three models loads, probes answer 503 at once and name it; the others answer predictions."""
    for name in ("slow", "other"):
        shutil.copytree(small_repository / "iris", small_repository / name)
        contract = small_repository / name / "1" / "contract.json"
        contract.chmod(0o644)
        contract.write_bytes(contract.read_bytes().replace(b'"name": "iris"', f'"name": "{name}"'.encode(), 1))
    app = make_app(load=False)
    entered, release = threading.Event(), threading.Event()
    load = Loader.load

    def slow(self: Loader, pending: PendingVersion, *rest: PreflightResult) -> Servable:
        if pending.key == ("slow", 1):
            entered.set()
            assert release.wait(60)
        return load(self, pending, *rest)

    client, registry = app.test_client(), registry_of(app)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loader, "load", slow)
        reload = threading.Thread(target=registry.reload, args=(1,))
        reload.start()
        try:
            assert entered.wait(60)
            for name in ("iris", "other"):  # asked for, so that a second thread loads them beside the slow one
                answer = client.post(f"/v1/models/{name}:predict", json={"instances": [[1, 2, 3, 4]]})
                assert answer.status_code == 200
            content = client.get("/v2/health/ready").get_json()
            assert (content["ready"], content["missing"]) == (False, ["slow/1"])
            assert content["reason"] == "loading: 1 of 3 versions are missing: slow/1"
            assert client.get("/v2/models/iris/ready").status_code == 200
            assert client.get("/v2/models/slow/ready").status_code == 503
        finally:
            release.set()
            reload.join()
    assert client.get("/v2/health/ready").get_json() == {"ready": True}


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
