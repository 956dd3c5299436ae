"""Canary and shadow through the whole application: who answers, what is compared, and what the admin API says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from tableside.repository import model_toml
from tableside.repository.paths import MODEL_TOML
from tableside.serving.traffic import bucket
from tests.conftest import BEARER, CONTROL, MakeApp, error_of, registry_of
from tests.fakes import FailingRuntime
from tests.unit.test_reloading import copy
from tests.waiting import wait_until

DEFAULT = "[aliases]\ndefault = 1\n"
ROWS = [[5.1, 3.5, 1.4, 0.2], [6.3, 3.3, 6.0, 2.5]]
V2 = {"inputs": [{"name": "input", "shape": [2, 4], "datatype": "FP64", "data": ROWS}]}
MakeTried = Callable[[str], Flask]


@pytest.fixture
def make_tried(make_app: MakeApp, small_repository: Path) -> MakeTried:
    """Make an application with iris/1 as default and iris/2, an equal model. The text is more of its model.toml."""
    copy(small_repository, "iris", 2)

    def make(text: str) -> Flask:
        (small_repository / "iris" / MODEL_TOML).write_text(DEFAULT + text)
        app = make_app(load=False)
        registry_of(app).traffic.start(0)
        registry_of(app).reload(1)
        return app

    return make


def version_of(app: Flask, path: str = "/v2/models/iris/infer", user: str = "") -> str:
    answer = app.test_client().post(path, json=V2, headers={"X-User-Id": user} if user else {})
    assert answer.status_code == 200, answer.text
    return str(answer.get_json()["model_version"])


def admin(app: Flask, path: str) -> Any:
    answer = app.test_client().get(f"/admin/api/{path}", headers=BEARER, environ_overrides=CONTROL)
    assert answer.status_code == 200, answer.text
    return answer.get_json()


def flush(app: Flask) -> None:
    registry_of(app).traffic.write()


def test_a_callers_requests_go_to_one_version(make_tried: MakeTried) -> None:
    """By the header's value, in each protocol; the metrics name the version that answered."""
    app = make_tried("[canary]\nversion = 2\npercent = 30\nsticky = 'X-User-Id'\n")
    users = {str(bucket("iris", f"u{number}") < 3000): f"u{number}" for number in range(60)}
    for _ in range(3):
        assert version_of(app, user=users["True"]) == "2"
        assert version_of(app, user=users["False"]) == "1"
    for path, body in (("/v1/models/iris:predict", {"instances": ROWS}), ("/models/iris/invocations", ROWS)):
        assert app.test_client().post(path, json=body, headers={"X-User-Id": users["True"]}).status_code == 200
    metrics = registry_of(app).metrics.registry
    for protocol, count in (("v2", 3.0), ("v1", 1.0), ("invocations", 1.0)):
        labels = {"model": "iris", "version": "2", "protocol": protocol, "code": "200"}
        assert metrics.get_sample_value("tableside_requests_total", labels) == count
    flush(app)
    canary = admin(app, "models/iris/traffic")["canary"]
    assert (canary["candidate"]["requests"], canary["candidate"]["rows"]) == (5, 10)
    assert (canary["others"]["requests"], canary["others"]["rows"]) == (3, 6)


def test_who_names_a_version_gets_it(make_tried: MakeTried) -> None:
    """A canary of all requests changes nothing for those by number or alias, and they do not count."""
    app = make_tried("[canary]\nversion = 2\npercent = 100\n")
    assert version_of(app) == "2"
    assert version_of(app, "/v2/models/iris/versions/1/infer") == "1"
    assert version_of(app, "/v2/models/iris@default/infer") == "1"
    assert version_of(app, "/v2/models/iris/versions/default/infer") == "1"
    flush(app)
    canary = admin(app, "models/iris/traffic")["canary"]
    assert (canary["candidate"]["requests"], canary["others"]["requests"]) == (1, 0)


def test_a_shadow_compares_what_the_client_got(make_tried: MakeTried) -> None:
    """An equal model agrees on each output; the answers are those of the default; the judgement is listed."""
    app = make_tried("[shadow]\nversion = 2\npercent = 100\ncpu_share = 1.0\n[rules]\nrows = 6\n")
    client = app.test_client()
    done, labels = registry_of(app).metrics.registry.get_sample_value, {"model": "iris", "version": "2"}
    for rows in (2.0, 4.0, 6.0):
        assert version_of(app) == "1"
        assert wait_until(lambda rows=rows: done("tableside_shadow_rows_total", labels) == rows)  # type: ignore[misc]
    outputs = [{"name": "predict"}, {"name": "predict_proba"}]
    assert client.post("/v2/models/iris/infer", json={**V2, "outputs": outputs}).status_code == 200
    assert wait_until(lambda: done("tableside_shadow_rows_total", labels) == 8.0)
    flush(app)
    found = admin(app, "models/iris/shadow")
    assert (found["candidate"]["rows"], found["flips"], found["candidate"]["errors"]) == (8, 0, 0)
    assert found["deltas"]["predict_proba"]["numbers"] == 6
    assert found["deltas"]["predict_proba"]["differing"] == 0
    assert found["cpu_s"] > 0
    assert (found["judgement"], found["ready"]) == ("ready to promote", True)
    [iris] = [each for each in admin(app, "models")["models"] if each["name"] == "iris"]
    assert iris["traffic"] == {"2": "shadow 100 %: ready to promote"}
    assert done("tableside_shadow_cpu_seconds_total", labels) == pytest.approx(found["cpu_s"], abs=1e-3)


def test_failed_requests_are_not_replayed_and_a_failing_shadow_counts(make_tried: MakeTried) -> None:
    """A 400 has no answer to compare. What the candidate raises is an error of the shadow, and no client sees it."""
    app = make_tried("[shadow]\nversion = 2\npercent = 100\n[rules]\nrows = 1\n")
    registry_of(app).wait_servable("iris", "2", 0.0).runtime = FailingRuntime(ZeroDivisionError("no"))
    assert app.test_client().post("/v2/models/iris/infer", json={"inputs": []}).status_code == 400
    assert version_of(app) == "1"
    errors, labels = registry_of(app).metrics.registry.get_sample_value, {"model": "iris", "version": "2"}
    assert wait_until(lambda: errors("tableside_shadow_errors_total", labels) == 1.0)
    flush(app)
    found = admin(app, "models/iris/shadow")
    assert (found["candidate"]["requests"], found["candidate"]["rows"], found["candidate"]["errors"]) == (1, 0, 1)


def test_models_without_trials_have_none(make_tried: MakeTried) -> None:
    """The list has no word of it, and `/shadow` is 404 with the command that begins one."""
    app = make_tried("")
    assert all("traffic" not in each for each in admin(app, "models")["models"])
    report = admin(app, "models/iris/traffic")
    assert (report["default"], report["canary"], report["shadow"], report["judgements"]) == (1, None, None, [])
    answer = app.test_client().get("/admin/api/models/iris/shadow", headers=BEARER, environ_overrides=CONTROL)
    assert answer.status_code == 404
    assert "begin one with `tableside shadow iris/N --percent 20`" in error_of(answer)["error"]


def ask(app: Flask, requests: int) -> list[int]:
    client = app.test_client()
    return [client.post("/v2/models/iris/infer", json=V2).status_code for _ in range(requests)]


def test_a_failing_canary_ends_itself(make_tried: MakeTried, small_repository: Path, tmp_path: Path) -> None:
    """Its own requests fail, the others do not; one edit takes it out, with the figures in log, audit log and list."""
    app = make_tried("# Ours.\n[canary]\nversion = 2\npercent = 50\n")
    registry = registry_of(app)

    def metric(name: str) -> float | None:
        return registry.metrics.registry.get_sample_value(name, {"model": "iris", "version": "2"})

    assert metric("tableside_canary_rollbacks_total") == 0.0, "a first value of 1 would be no increase"
    registry.wait_servable("iris", "2", 0.0).runtime = FailingRuntime(ZeroDivisionError("no"))
    statuses = ask(app, 20)
    registry.traffic.write()
    registry.traffic.act()
    assert model_toml.read(small_repository, "iris").canary is not None, "20 requests are too few"
    assert (metric("tableside_release_failing"), metric("tableside_canary_rollbacks_total")) == (1.0, 0.0)
    statuses += ask(app, 150)
    assert set(statuses) == {200, 500}
    registry.traffic.write()
    registry.traffic.act()
    assert (small_repository / "iris" / MODEL_TOML).read_text() == DEFAULT + "# Ours.\n"
    assert metric("tableside_canary_rollbacks_total") == 1.0
    registry.reload(2)
    registry.traffic.judge()
    assert metric("tableside_release_failing") == 0.0, "nothing is tried any more"
    assert ask(app, 20) == [200] * 20
    lines = [json.loads(line) for line in (tmp_path / "run" / "log" / "audit.log").read_text().splitlines()]
    assert [(line["event"], line["key"], line["state"], line["version"]) for line in lines] == [
        ("canary_rolled_back", "tableside", "begun", 2), ("canary_rolled_back", "tableside", "done", 2),
    ]  # fmt: skip
    assert lines[0]["reason"].startswith("errors 100 % of ")
    report = admin(app, "models/iris/traffic")
    assert report["rolled_back"]["reason"] == lines[0]["reason"]
    [iris] = [each for each in admin(app, "models")["models"] if each["name"] == "iris"]
    assert "canary rolled back at " in iris["traffic"]["2"]
    registry.traffic.act()
    assert len((tmp_path / "run" / "log" / "audit.log").read_text().splitlines()) == 2, "it is rolled back once"


def test_without_room_for_the_audit_line_nothing_changes(
    make_tried: MakeTried, small_repository: Path, tmp_path: Path
) -> None:
    """An act that cannot be recorded is not done; the next failure looks again."""
    app = make_tried("[canary]\nversion = 2\npercent = 100\n")
    registry = registry_of(app)
    registry.wait_servable("iris", "2", 0.0).runtime = FailingRuntime(ZeroDivisionError("no"))
    ask(app, 60)
    (tmp_path / "run" / "log").mkdir(exist_ok=True)
    (tmp_path / "run" / "log" / "audit.log").mkdir()
    registry.traffic.write()
    registry.traffic.act()
    assert model_toml.read(small_repository, "iris").canary is not None
    (tmp_path / "run" / "log" / "audit.log").rmdir()
    ask(app, 1)
    registry.traffic.write()
    registry.traffic.act()
    assert model_toml.read(small_repository, "iris").canary is None
