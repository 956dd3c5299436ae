"""Access to the control plane, the metrics route, and the admin API."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tableside.factory import create_app
from tableside.process import worker_slots
from tableside.settings import Server
from tableside.web.auth import ACCESS_BY_BLUEPRINT, plane, read_key
from tests.conftest import BEARER, CONTROL, KEY, MakeApp, error_of

ADMIN = [("GET", "/admin/api/models"), ("GET", "/admin/api/workers"), ("POST", "/admin/api/reload")]


def ask(client: FlaskClient, method: str, url: str, **more: Any) -> Any:
    return client.open(url, method=method, environ_overrides=CONTROL, **more)


@pytest.mark.parametrize(("method", "url"), [*ADMIN, ("GET", "/metrics")])
def test_the_data_plane_has_no_control(client: FlaskClient, method: str, url: str) -> None:
    """On the data plane control routes answer 404, with the key too, and no request header changes that."""
    for headers in ({}, BEARER, {**BEARER, "Tableside-Plane": "control", "Tableside.Plane": "control"}):
        response = client.open(url, method=method, headers=headers)
        assert response.status_code == 404
        assert error_of(response)["error"] == f"unknown path: {url}"


@pytest.mark.parametrize(("method", "url"), ADMIN)
@pytest.mark.parametrize(
    "value", ["", "Bearer", "Bearer ", "Bearer wrong", f"Basic {KEY}", KEY, f"Bearer {KEY}x", "Bearer kéy"]
)
def test_the_admin_api_requires_its_key(client: FlaskClient, method: str, url: str, value: str) -> None:
    """Without the right key the admin API answers 401, and the error names the header that carries it."""
    response = ask(client, method, url, headers={"Authorization": value} if value else {})
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert "Authorization: Bearer KEY" in response.get_json()["error"]


def test_without_a_key_file_every_request_is_refused(make_app: MakeApp, tmp_path: Path) -> None:
    """When admin.key is missing or empty, every key is refused, an empty one too."""
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
    """Predictions are counted by model and status; an unknown model name in a request does not become a label."""
    client = make_app().test_client()
    for body in ({"instances": [[1, 2, 3, 4]] * 3}, {"instances": [["x"]]}):
        client.post("/v1/models/iris:predict", json=body)
    for path in ("/v1/models/invented:predict", "/v2/models/iris/versions/9/infer", "/models/invented/invocations"):
        client.post(path, json={})
    client.get("/v2/models/invented")
    response = ask(client, "GET", "/metrics")
    assert response.content_type.startswith("text/plain")
    text = response.get_data(as_text=True)
    assert 'tableside_requests_total{code="200",model="iris",protocol="v1",version="1"} 1.0' in text
    assert 'tableside_requests_total{code="400",model="iris",protocol="v1",version="1"} 1.0' in text
    assert 'tableside_rows_total{model="iris",version="1"} 3.0' in text
    assert 'tableside_model_state{model="iris",state="READY",version="1"} 1.0' in text
    assert 'tableside_requests_in_flight{model="iris"} 0.0' in text
    for protocol in ("v1", "v2", "invocations"):
        assert f'tableside_requests_total{{code="404",model="-",protocol="{protocol}",version="-"}} 1.0' in text
    assert text.count('tableside_requests_total{code="404"') == 3
    assert "invented" not in text


def test_counters_of_alerts_begin_at_0(make_app: MakeApp) -> None:
    """They are there before anything has happened: a counter that begins at its first count shows no increase."""
    text = ask(make_app().test_client(), "GET", "/metrics").get_data(as_text=True)
    for name in ("not_finite", "quarantined_requests"):
        assert f'tableside_{name}_total{{model="iris",version="1"}} 0.0' in text
    assert 'tableside_dropped_total{model="iris",reason="refused",version="1"} 0.0' in text
    assert 'tableside_model_loads_total{model="iris",result="refused",version="1"} 0.0' in text


def test_a_reload_reaches_every_worker(worker: Flask, small_repository: Path) -> None:
    """Reload answers 200 when every worker serves the new generation; the new model answers from then on."""
    client = worker.test_client()
    shutil.copytree(small_repository / "iris", small_repository / "other")
    contract = small_repository / "other" / "1" / "contract.json"
    contract.chmod(0o644)
    contract.write_bytes(contract.read_bytes().replace(b'"name": "iris"', b'"name": "other"', 1))
    assert client.get("/v2/models/other").status_code == 404
    response = ask(client, "POST", "/admin/api/reload", headers=BEARER)
    assert response.status_code == 200, response.get_data(as_text=True)
    got = response.get_json()
    assert (got["generation"], got["complete"], got["late"]) == (2, True, [])
    assert client.get("/v2/models/other/ready").status_code == 200
    (shown,) = ask(client, "GET", "/admin/api/workers", headers=BEARER).get_json()["workers"]
    assert (shown["worker_slot"], shown["generation"], shown["instance"]) == (0, 2, "test")
    assert [(each["name"], each["state"]) for each in shown["models"]] == [("iris", "READY"), ("other", "READY")]


def test_a_blueprint_without_access_is_rejected(
    make_settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The factory raises an error for a blueprint that does not declare who may call it."""
    monkeypatch.delitem(ACCESS_BY_BLUEPRINT, "metrics")
    with pytest.raises(RuntimeError, match="blueprint 'metrics' declares no access"):
        create_app(make_settings(tmp_path, tmp_path / "run"))


def test_a_reload_names_late_workers(
    worker: Flask, hung_worker: worker_slots.WorkerSlot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reload answers 202 when a worker has not prepared the new generation in time, and lists that worker in `late`."""
    monkeypatch.setattr(sys.modules["tableside.blueprints.admin.views"], "RELOAD_TIMEOUT_S", 0.05)
    response = ask(worker.test_client(), "POST", "/admin/api/reload", headers=BEARER)
    hung_worker.release()
    assert response.status_code == 202
    content = response.get_json()
    assert (content["complete"], len(content["workers"])) == (False, 2)
    assert 424242 in [status["pid"] for status in content["late"]]


class Listener:
    """A connection, of which only the address of its listener matters."""

    def __init__(self, address: str | tuple[str, int]) -> None:
        self.address = address

    def getsockname(self) -> str | tuple[str, int]:
        return self.address


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("/run/tableside/ctl.sock", "control"),
        ("ctl.sock", "control"),
        ("/run/tableside/web.sock", "data"),
        ("/run/tableside/ctl.sock.old", "data"),
        ("/ctl.sock/web.sock", "data"),
        ("", "data"),
        (("127.0.0.1", 9100), "control"),
        (("127.0.0.1", 9100, 0, 0), "control"),
        (("127.0.0.1", 9101), "data"),
        (("0.0.0.0", 9100), "data"),
    ],
)
def test_the_listener_decides_the_plane(address: Any, expected: str) -> None:
    """A connection to the control socket, or to `server.admin_listen`, belongs to the control plane."""
    assert plane({"gunicorn.socket": Listener(address)}, Server(admin_listen="127.0.0.1:9100")) == expected


@pytest.mark.parametrize(("port", "expected"), [(9100, "control"), (8080, "data")])
@pytest.mark.parametrize("host", ["192.0.2.1", "127.0.0.1"])
def test_all_addresses_of_the_control_plane_are_its_own(host: str, port: int, expected: str) -> None:
    """On 0.0.0.0 a connection has the address that the client called; the port decides, if the planes differ in it."""
    connection = {"gunicorn.socket": Listener((host, port))}
    assert plane(connection, Server(listen="0.0.0.0:8080", admin_listen="0.0.0.0:9100")) == expected
    assert plane(connection, Server(listen="192.0.2.1:9100", admin_listen="0.0.0.0:9100")) == "data"


def test_without_a_listener_the_plane_is_data() -> None:
    """A server that sets neither the socket nor the plane serves the data plane; a header cannot set the plane."""
    assert plane({}, Server()) == "data"
    assert plane({"HTTP_TABLESIDE_PLANE": "control"}, Server()) == "data"
    assert plane({"tableside.plane": "control", "gunicorn.socket": Listener("/run/web.sock")}, Server()) == "control"


@pytest.mark.parametrize(("content", "key"), [(b"abc\n", "abc"), (b" \n", ""), (b"k\xc3\xa9y", ""), (None, "")])
def test_the_key_file(tmp_path: Path, content: bytes | None, key: str) -> None:
    """Space around the key is ignored; a file that is missing or not ASCII counts as no key."""
    if content is not None:
        (tmp_path / "admin.key").write_bytes(content)
    assert read_key(tmp_path) == key


def test_a_folder_in_place_of_the_key_file_is_no_key(tmp_path: Path) -> None:
    """A key file that cannot be opened counts as no key."""
    (tmp_path / "admin.key").mkdir()
    assert read_key(tmp_path) == ""


def test_a_model_that_failed_is_listed_with_its_reason(make_app: MakeApp, small_repository: Path) -> None:
    """A version whose contract cannot be read has a state and a reason, and no estimator."""
    (small_repository / "iris" / "2").mkdir()
    (small_repository / "iris" / "2" / "contract.json").write_bytes(b"{}")
    got = ask(make_app().test_client(), "GET", "/admin/api/models", headers=BEARER).get_json()
    first, second = got["models"][0]["versions"]
    assert (first["state"], first["reason"], len(first["sha256"])) == ("READY", "", 64)
    assert (second["state"], second["estimator"], second["sha256"]) == ("UNAVAILABLE", "", "")
    assert "contract.json" in second["reason"]
