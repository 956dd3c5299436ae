"""Each change through the admin and repository APIs is recorded with its key before it is made, or refused."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from tableside.access_keys import KeysFile, Scope
from tableside.process.audit_log import FILE
from tableside.serving import generations, switching
from tests.conftest import BEARER, CONTROL, MakeApp, error_of

CHANGES = {
    "/admin/api/reload": ("reload", None),
    "/v2/repository/models/iris/load": ("load", "iris"),
    "/v2/repository/models/iris/unload": ("unload", "iris"),
}


@pytest.fixture
def app(make_app: MakeApp, hung_worker: object, monkeypatch: pytest.MonkeyPatch) -> Flask:
    """An application beside a worker that hangs: reload ends with 202, load and unload with an error."""
    monkeypatch.setattr(sys.modules["tableside.blueprints.admin.views"], "RELOAD_TIMEOUT_S", 0.01)
    monkeypatch.setattr(switching, "MARGIN_S", 0.05)
    return make_app(repository__load_timeout_s="0.01")


def post(app: Flask, path: str) -> Any:
    return app.test_client().post(path, headers={**BEARER, "X-Request-ID": "r1"}, environ_overrides=CONTROL)


def test_every_change_is_recorded_with_its_end(app: Flask, tmp_path: Path) -> None:
    """What, which model, whose key, the request; and that it ended, or which error ended it. Reading is no change."""
    for path, (action, model) in CHANGES.items():
        post(app, path)
        lines = [json.loads(line) for line in (tmp_path / "run" / FILE).read_text().splitlines()][-2:]
        assert [line["state"] for line in lines] == ["begun", "done" if action == "reload" else "failed"]
        for line in lines:
            named = (line["event"], line.get("model"), line["key"], line["request_id"], line["source"])
            assert named == (action, model, "admin.key", "r1", "audit")
    assert lines[-1]["error"] == "ModelNotReady"
    post(app, "/v2/repository/index")
    post(app, "/v2/repository/models/unknown/load")
    assert len((tmp_path / "run" / FILE).read_text().splitlines()) == 6


def test_a_key_is_recorded_by_its_name(make_app: MakeApp, tmp_path: Path) -> None:
    """The name that `tableside keys list` shows, and nothing of the key itself."""
    file = KeysFile(tmp_path / "keys.json", tmp_path / "models")
    key = file.add("night-shift", Scope.ADMIN, datetime.now(UTC))
    app = make_app(load=False, server__keys_file=str(file.path), repository__load_timeout_s="0.01")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules["tableside.blueprints.admin.views"], "RELOAD_TIMEOUT_S", 0.01)
        bearer = {"Authorization": f"Bearer {key}"}
        assert app.test_client().post("/admin/api/reload", headers=bearer, environ_overrides=CONTROL).status_code < 300
    text = (tmp_path / "run" / FILE).read_text()
    assert text.count('"key": "night-shift"') == 2
    assert key not in text


@pytest.mark.parametrize("path", CHANGES)
def test_a_change_that_cannot_be_recorded_is_not_made(app: Flask, tmp_path: Path, path: str) -> None:
    """507 with Retry-After: no generation is announced, and model.toml stays as it is."""
    (tmp_path / "run" / FILE).mkdir(parents=True)
    toml = tmp_path / "models" / "iris" / "model.toml"
    before = (toml.read_bytes() if toml.exists() else None, generations.newest(tmp_path / "run" / "generations"))
    response = post(app, path)
    assert (response.status_code, response.headers["Retry-After"]) == (507, "10")
    assert "the audit log needs" in error_of(response)["error"]
    after = (toml.read_bytes() if toml.exists() else None, generations.newest(tmp_path / "run" / "generations"))
    assert after == before
