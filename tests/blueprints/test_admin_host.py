"""The admin API about the host: merged states, one model, workers, drain, settings, the audit log."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from tableside.process import worker_slots
from tableside.process.audit_log import AuditLog
from tableside.process.hand_file import HandFile, Holder
from tests.conftest import BEARER, CONTROL, MakeApp


def get(app: Flask, path: str) -> Any:
    response = app.test_client().get(f"/admin/api/{path}", headers=BEARER, environ_overrides=CONTROL)
    assert response.status_code == 200, response.get_data(as_text=True)
    return response.get_json()


def post(app: Flask, path: str) -> Any:
    return app.test_client().post(f"/admin/api/{path}", headers=BEARER, environ_overrides=CONTROL)


def test_states_are_those_of_all_workers(worker: Flask, tmp_path: Path) -> None:
    """A version is READY if it is so in every worker; otherwise each worker that has a reason is named by its pid."""
    other = worker_slots.acquire(tmp_path / "run" / "worker_slots")
    entry = {"name": "iris", "version": 1, "state": "UNAVAILABLE", "failure_kind": "damaged", "reason": "model.skops"}
    other.write_status({"pid": 4242, "generation": 3, "models": [entry]})
    (listed,) = get(worker, "models")["models"][0]["versions"]
    shown = get(worker, "models/iris")
    other.release()
    for version in (listed, shown["versions"][0]):
        assert (version["state"], version["workers"]) == ("UNAVAILABLE", {"READY": 1, "UNAVAILABLE": 1})
        assert version["problems"] == [{"pid": 4242, "state": "UNAVAILABLE", "reason": "model.skops"}]
    assert (shown["answers"], shown["aliases"], shown["generation"]) == (1, {"champion": 1}, 1)
    assert "champion = 1" in shown["model_toml"]
    assert shown["versions"][0]["outputs"][:1] == ["predict"]
    missing = worker.test_client().get("/admin/api/models/irs", headers=BEARER, environ_overrides=CONTROL)
    assert missing.status_code == 404


def test_the_generation_is_the_etag(worker: Flask) -> None:
    """What If-Match names: the generation that every worker serves."""
    client = worker.test_client()
    for path in ("models", "models/iris"):
        response = client.get(f"/admin/api/{path}", headers=BEARER, environ_overrides=CONTROL)
        assert response.headers["ETag"] == '"1"'
    assert post(worker, "reload").status_code == 200
    response = client.get("/admin/api/models", headers=BEARER, environ_overrides=CONTROL)
    assert response.headers["ETag"] == f'"{response.get_json()["generation"]}"' != '"1"'


def test_workers_show_age_memory_and_lag(worker: Flask, tmp_path: Path) -> None:
    """The lag is how late the last heartbeat came, or how late the next one is already."""
    hand = worker.extensions["tableside"].hand
    hand.attach(tmp_path / "run", 0, 600.0)
    (shown,) = get(worker, "workers?models=false")["workers"]
    assert (shown["in_flight"], shown["hub_lag_s"]) == (None, None)
    hand.beat()
    held = hand.hold(bytes(16), "r1", "iris/1", False, 1e18)
    (shown,) = get(worker, "workers")["workers"]
    held.end()
    assert shown["age_s"] >= 0
    assert shown["pss_bytes"] > 1 << 20
    assert shown["in_flight"] == 1
    assert shown["cpu_s"] > 0
    assert shown["requests"] is None  # metrics are not in files here
    assert shown["hub_lag_s"] < 60
    assert shown["models"][0]["name"] == "iris"
    assert "models" not in get(worker, "workers?models=false")["workers"][0]


def test_the_host_of_the_workers(worker: Flask, tmp_path: Path) -> None:
    """What the machine has, how busy it is, and since when a stack runs: its supervisord is this process here."""
    host = get(worker, "workers")["host"]
    assert host["processors"] >= 1
    assert 0 < host["processor_busy_s"] <= host["processor_s"]
    assert 0 < host["memory_free_bytes"] <= host["memory_bytes"]
    assert (host["stack_age_s"], host["drained"]) == (None, False)
    (tmp_path / "run" / "supervisord.pid").write_text(f"{os.getpid()}\n")
    post(worker, "drain")
    host = get(worker, "workers?models=false")["host"]
    assert 0 < host["stack_age_s"] < float(Path("/proc/uptime").read_text().split()[0])
    assert host["drained"] is True
    post(worker, "resume")


def test_a_late_heartbeat_is_lag(tmp_path: Path) -> None:
    """A worker whose loop was held up for two seconds is that late, also before it beats again."""
    file = HandFile(tmp_path)
    file.take(0, Holder(1, 1, 0))
    assert file.pulse(0) is None
    file.beat(0, 0, 100.0)
    first = file.pulse(0)
    assert first is not None
    assert (first.lag_s(100.5), first.lag_s(103.0)) == (0.0, 2.0)
    file.beat(0, 0, 103.0)
    second = file.pulse(0)
    assert second is not None
    assert second.lag_s(103.1) == 2.0
    file.close()


def test_a_drained_host_answers_and_is_not_ready(worker: Flask, tmp_path: Path) -> None:
    """Readiness is 503 for the host and not for requests; each change is recorded with what was before."""
    client = worker.test_client()
    assert client.get("/v2/health/ready").status_code == 200
    assert post(worker, "drain").get_json() == {"drained": True, "was_drained": False}
    for probe in ("/v2/health/ready", "/ping", "/health"):
        response = client.get(probe)
        assert (response.status_code, "tableside resume" in response.get_json()["error"]) == (503, True)
    assert client.get("/v2/health/live").status_code == 200
    body = {"instances": [[5.1, 3.5, 1.4, 0.2]]}
    assert client.post("/v1/models/iris:predict", json=body).get_json() == {"predictions": ["setosa"]}
    assert post(worker, "resume").get_json() == {"drained": False, "was_drained": True}
    assert post(worker, "resume").status_code == 200
    assert client.get("/v2/health/ready").status_code == 200
    lines = get(worker, "audit?limit=5")["lines"]
    assert [(line["event"], line["state"], line["before"], line["after"]) for line in lines] == [
        ("drain", "done", "in traffic", "drained"),
        ("resume", "begun", "drained", "in traffic"), ("resume", "done", "drained", "in traffic"),
        ("resume", "begun", "in traffic", "in traffic"), ("resume", "done", "in traffic", "in traffic"),
    ]  # fmt: skip


def test_a_change_of_the_host_that_cannot_be_recorded_is_not_made(make_app: MakeApp, tmp_path: Path) -> None:
    """507, and the host stays in the traffic."""
    app = make_app()
    (tmp_path / "run" / "log" / "audit.log").mkdir(parents=True)
    assert post(app, "drain").status_code == 507
    assert app.test_client().get("/v2/health/ready").status_code == 200


def test_settings_are_shown_with_their_origin(
    make_app: MakeApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a restart would change is pending. Paths of keys are hidden."""
    app = make_app(load=False, predict__max_queue_rows="7", server__keys_file=str(tmp_path / "secret-place"))
    config = tmp_path / "tableside.toml"
    config.write_text("[predict]\nmax_cell_errors = 3\n")
    monkeypatch.setenv("TABLESIDE_CONFIG", str(config))
    monkeypatch.setenv("TABLESIDE__PREDICT__MAX_QUEUE_ROWS", "7")
    response = app.test_client().get("/admin/api/settings", headers=BEARER, environ_overrides=CONTROL)
    assert "secret-place" not in response.get_data(as_text=True)
    shown = {each["name"]: each for each in response.get_json()["settings"]}
    rows = shown["predict.max_queue_rows"]
    assert (rows["value"], rows["origin"], rows["pending"]) == (7, "variable", False)
    errors = shown["predict.max_cell_errors"]
    assert (errors["value"], errors["origin"], errors["pending"]) == (20, "file", True)
    assert shown["server.keys_file"]["value"] == "***"
    assert shown["server.hsts_max_age_s"]["origin"] == "default"


def test_the_audit_log_is_read_back(make_app: MakeApp, tmp_path: Path) -> None:
    """The newest lines, across files that were renamed; a line that a crash has cut off is left out."""
    log = AuditLog(tmp_path / "run", max_bytes=2000)
    for number in range(100):
        log.begin({"event": "x", "number": number})
        time.sleep(0)
    with (tmp_path / "run" / "log" / "audit.log").open("ab") as file:
        file.write(b'{"event": "cut')
    app = make_app(load=False)
    lines = get(app, "audit?limit=90")["lines"]
    assert [line["number"] for line in lines][-50:] == list(range(50, 100))
    assert get(app, "audit?limit=10000")["lines"][0]["number"] == 0
