"""Changes of models through the admin API: in all workers or in none, as operations, recorded, guarded by If-Match."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from flask import Flask
from openapi_spec_validator import OpenAPIV31SpecValidator

from tableside.blueprints.admin import openapi
from tableside.contracts import schema
from tableside.process import worker_slots
from tableside.process.audit_log import FILE
from tableside.repository import model_toml, paths
from tests import skewed_environment
from tests.conftest import BEARER, CONTROL
from tests.unit.test_reloading import copy
from tests.waiting import wait_until


def post(app: Flask, path: str, content: object = None, **headers: str) -> Any:
    url = f"/admin/api/models/iris/{path}?wait=60"
    return app.test_client().post(
        url, json={} if content is None else content, headers={**BEARER, **headers}, environ_overrides=CONTROL
    )


def get(app: Flask, path: str) -> Any:
    return app.test_client().get(f"/admin/api/{path}", headers=BEARER, environ_overrides=CONTROL)


def answers(app: Flask) -> int:
    """The version that answers without a version being named."""
    response = app.test_client().post("/v1/models/iris:predict", json={"instances": [[5.1, 3.5, 1.4, 0.2]]})
    assert response.status_code == 200, response.get_data(as_text=True)
    return int(response.headers["X-Tableside-Served"].partition("/")[2])


@pytest.fixture
def root(small_repository: Path) -> Path:
    """A repository with iris/1 and iris/2, where `default` names the first."""
    copy(small_repository, "iris", 2)
    (small_repository / "iris" / "model.toml").write_text('versions = "all"\n[aliases]\ndefault = 1\n')
    return small_repository


def test_a_release_by_api(root: Path, worker: Flask, tmp_path: Path) -> None:
    """Promote, roll back, alias, retire, serve again and delete; each answers when the workers have switched."""
    assert answers(worker) == 1
    done = post(worker, "promote", {"version": 2})
    assert done.status_code == 200, done.get_json()
    assert (done.get_json()["before"], done.get_json()["after"]) == ("default = 1", "default = 2")
    assert answers(worker) == 2
    assert post(worker, "rollback").get_json()["after"] == "default = 1"
    assert answers(worker) == 1
    assert post(worker, "alias", {"alias": "next", "version": 2}).status_code == 200
    assert get(worker, "models/iris").get_json()["aliases"] == {"default": 1, "next": 2}
    refused = post(worker, "retire", {"version": 2})
    assert (refused.status_code, "alias next points at" in refused.get_json()["error"]) == (409, True)
    assert post(worker, "alias", {"alias": "next", "version": None}).get_json()["after"] == "next removed"
    assert post(worker, "retire", {"version": 2}).status_code == 200
    assert worker.test_client().get("/v2/models/iris/versions/2/ready").status_code == 404
    assert post(worker, "retire", {"version": 2, "undo": True}).status_code == 200
    assert worker.test_client().get("/v2/models/iris/versions/2/ready").status_code == 200
    assert post(worker, "delete", {"version": 2}).status_code == 200
    assert paths.versions(root, "iris") == [1]
    assert [path.name for path in (root / "iris").glob(".deleted*")] == []
    assert post(worker, "unload").status_code == 200
    assert worker.test_client().get("/v2/models/iris/ready").status_code == 503
    assert post(worker, "load").get_json()["after"] == "enabled = true"
    assert answers(worker) == 1
    lines = [json.loads(line) for line in (tmp_path / "run" / FILE).read_text().splitlines()]
    assert [line["event"] for line in lines if line["state"] == "done"] == [
        "promote", "rollback", "alias", "alias", "retire", "retire", "delete", "unload", "load",
    ]  # fmt: skip
    promoted = [line for line in lines if line["event"] == "promote"]
    assert [(line["state"], line["key"], line["before"], line["after"]) for line in promoted] == [
        ("begun", "admin.key", "default = 1", "default = 2"), ("done", "admin.key", "default = 1", "default = 2"),
    ]  # fmt: skip


def test_a_change_for_another_generation_is_refused(root: Path, worker: Flask) -> None:
    """412 with the generation that is served; with that one, the change is made."""
    etag = get(worker, "models").headers["ETag"]
    assert post(worker, "promote", {"version": 2}, **{"If-Match": etag}).status_code == 200
    late = post(worker, "promote", {"version": 1}, **{"If-Match": etag})
    assert late.status_code == 412
    assert answers(worker) == 2
    assert post(worker, "versions", {}, **{"If-Match": etag}).status_code == 412
    now = get(worker, "models/iris").headers["ETag"]
    assert now != etag
    assert post(worker, "promote", {"version": 1}, **{"If-Match": now}).status_code == 200
    assert post(worker, "promote", {"version": 1}, **{"If-Match": "seven"}).status_code == 400


def test_what_a_worker_refuses_changes_nothing(root: Path, worker: Flask) -> None:
    """409 with the reason of each worker, and the file is as it was."""
    artifact = root / "iris" / "2" / "model.skops"
    artifact.chmod(0o644)
    artifact.write_bytes(b"damaged")
    copy(root, "iris", 3)
    (root / "iris" / "3" / "model.skops").chmod(0o644)
    (root / "iris" / "3" / "model.skops").write_bytes(b"damaged")
    before = (root / "iris" / "model.toml").read_bytes()
    refused = post(worker, "promote", {"version": 3}).get_json()
    assert (refused["status"], "nothing has changed" in refused["error"]) == (409, True)
    assert any("is damaged" in reason for reason in refused["reasons"])
    assert refused["operation"]["state"] == "failed"
    assert (root / "iris" / "model.toml").read_bytes() == before
    assert answers(worker) == 1


def test_a_hung_worker_is_a_conflict(root: Path, worker: Flask, hung_worker: worker_slots.WorkerSlot) -> None:
    """202 while it is waited for; the operation shows what is being done."""
    url = "/admin/api/models/iris/promote"
    response = worker.test_client().post(url, json={"version": 2}, headers=BEARER, environ_overrides=CONTROL)
    assert response.status_code == 202
    path = f"operations/{response.get_json()['operation']['id']}"
    step = "waiting until every worker has prepared it"
    assert wait_until(lambda: get(worker, path).get_json()["step"] == step)
    assert get(worker, path).get_json()["state"] == "running"
    assert answers(worker) == 1


def test_a_canary_and_a_shadow_by_api(root: Path, worker: Flask) -> None:
    """Begin, change the part, end; the audit log has both sides."""
    assert post(worker, "traffic", {"version": 2, "percent": 5}).get_json()["after"] == "canary 2 5 %"
    assert post(worker, "traffic", {"percent": 20}).get_json()["before"] == "canary 2 5 %"
    assert get(worker, "models/iris/traffic").get_json()["canary"]["percent"] == 20
    assert post(worker, "traffic", {"stop": True}).get_json()["after"] == "no canary"
    assert post(worker, "shadow", {"version": 2, "percent": 50}).status_code == 200
    assert model_toml.read(root, "iris").shadow is not None
    not_ready = post(worker, "promote", {"version": 2, "if_ready": True})
    assert (not_ready.status_code, "is not ready to promote" in not_ready.get_json()["error"]) == (409, True)
    assert post(worker, "shadow", {"stop": True}).status_code == 200
    assert post(worker, "traffic", {}).status_code == 400


def test_a_trial_that_breaks_clients_is_a_conflict(root: Path, worker: Flask) -> None:
    """A canary goes on with `breaking`; a shadow of other tables never does, because nothing could be compared."""

    def without_a_column(contract: schema.Contract) -> schema.Contract:
        columns = schema.Input(contract.input.form, contract.input.columns[1:])
        return msgspec.structs.replace(contract, input=columns)

    skewed_environment.rewrite(root / "iris" / "2", without_a_column)
    for path in ("traffic", "shadow"):
        refused = post(worker, path, {"version": 2, "percent": 5})
        assert (refused.status_code, "column 'sepal length (cm)' is gone" in refused.get_json()["error"]) == (409, True)
    assert model_toml.read(root, "iris").candidates == {}
    refused = post(worker, "traffic", {"version": 2, "percent": 5, "breaking": True})
    assert "sepal length" not in refused.get_json()["error"], "the edit is made, and the worker finds the damage"
    assert refused.status_code == 409
    assert model_toml.read(root, "iris").candidates == {}


def test_two_versions_are_compared(root: Path, worker: Flask) -> None:
    """Their contracts at once; both are in the answer by name and number."""
    found = get(worker, "models/iris/diff?old=default&new=2").get_json()
    assert (found["old"], found["new"], found["breaking"]) == ("iris/1", "iris/2", False)
    assert get(worker, "models/iris/diff?old=1").status_code == 400
    url = "/admin/api/models/iris/diff?old=1&new=2"
    more: Any = {"headers": BEARER, "environ_overrides": CONTROL}
    wrong = worker.test_client().post(url, data=b"x", content_type="text/plain", **more)
    assert (wrong.status_code, "text/csv" in wrong.get_json()["error"]) == (415, True)
    assert get(worker, "models/iris/diff?old=1&new=9").status_code == 404


@pytest.mark.slow
def test_two_versions_answer_the_same_rows(root: Path, worker: Flask) -> None:
    """Their golden rows are answered by a process of their own, and the versions are the same."""
    answered = get(worker, "models/iris/diff?old=default&new=2&answers=true").get_json()["answers"]
    assert (answered["problem"], answered["compared"] > 0) == ("", True)
    assert all(output["equal_rows"] == output["rows"] for output in answered["outputs"])


@pytest.mark.slow
@pytest.mark.processes
def test_two_versions_are_compared_on_given_rows(root: Path, worker: Flask, trained: Any, tmp_path: Path) -> None:
    """A process answers the rows of the body by both; nothing of the body is left."""
    rows = trained["iris"][1].head(9).to_csv(index=False).encode()
    url = "/admin/api/models/iris/diff?old=1&new=2"
    more: Any = {"headers": BEARER, "environ_overrides": CONTROL}
    found = worker.test_client().post(url, data=rows, content_type="text/csv", **more).get_json()
    assert (found["answers"]["problem"], found["answers"]["rows"], found["answers"]["compared"]) == ("", 9, 9)
    assert list((tmp_path / "run" / "uploads").iterdir()) == []


@pytest.mark.parametrize("action", ["promote", "alias", "retire", "delete", "traffic", "shadow", "rollback", "load"])
def test_a_change_that_is_not_understood_changes_nothing(root: Path, worker: Flask, action: str) -> None:
    """Unknown members, versions and models; and a change that cannot be recorded."""
    before = (root / "iris" / "model.toml").read_bytes()
    assert post(worker, action, {"versoin": 2}).status_code == 400
    assert post(worker, action, {"version": 9, "alias": "x", "percent": 1}).status_code in (400, 404)
    unknown = worker.test_client().post(
        f"/admin/api/models/irs/{action}", json={}, headers=BEARER, environ_overrides=CONTROL
    )
    assert unknown.status_code in (400, 404)
    assert (root / "iris" / "model.toml").read_bytes() == before


def test_what_cannot_be_recorded_is_not_done(root: Path, worker: Flask, tmp_path: Path) -> None:
    """507 for each kind of change, and no operation is begun."""
    (tmp_path / "run" / FILE).unlink(missing_ok=True)
    (tmp_path / "run" / FILE).mkdir(parents=True)
    changes: dict[str, object] = {
        "promote": {"version": 2}, "alias": {"alias": "x", "version": 2}, "retire": {"version": 2},
        "delete": {"version": 2}, "load": {}, "unload": {}, "traffic": {"version": 2, "percent": 5},
        "shadow": {"version": 2, "percent": 5},
    }  # fmt: skip
    for action, content in changes.items():
        assert post(worker, action, content).status_code == 507, action
    assert get(worker, "operations").get_json()["operations"] == []
    assert paths.versions(root, "iris") == [1, 2]


def test_the_document_has_every_route(worker: Flask) -> None:
    """OpenAPI 3.1, valid, with each route and method of the admin API; and its tables name no route that is gone."""
    document = get(worker, "openapi.json").get_json()
    OpenAPIV31SpecValidator(document).validate()
    expected = {
        (rule.rule.replace("<", "{").replace(">", "}"), method.lower())
        for rule in worker.url_map.iter_rules()
        if rule.endpoint.startswith("admin.")
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert {(path, method) for path, found in document["paths"].items() for method in found} == expected
    operations = [found for each in document["paths"].values() for found in each.values()]
    assert all(each["summary"] for each in operations)
    names = {each["operationId"] for each in operations}
    assert len(names) == len(operations)
    assert openapi.BODIES.keys() | openapi.QUERIES.keys() <= names
    changes = {
        each["operationId"] for path in document["paths"].values() for method, each in path.items() if method == "post"
    }
    assert changes == openapi.BODIES.keys()
