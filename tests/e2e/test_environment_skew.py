"""Changed versions and environments are not served, and the model repository API works, through the whole stack."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sklearn.datasets import load_iris
from sklearn.dummy import DummyClassifier

from tableside.process.generation_words import GenerationWords
from tableside.publishing.publish import publish
from tableside.repository import paths
from tests import misbehaving_estimators, skewed_environment
from tests.e2e.conftest import PROJECT, Stack, until

pytestmark = pytest.mark.e2e
WORKERS = 2
TIMEOUT_S = 20


def environment(**more: str) -> dict[str, str]:
    return {
        "TABLESIDE__REPOSITORY__TRUSTED_TYPES": misbehaving_estimators.TYPE,
        "TABLESIDE__REPOSITORY__LOAD_TIMEOUT_S": str(TIMEOUT_S),
        "PYTHONPATH": os.pathsep.join([str(PROJECT), str(PROJECT / "src"), os.environ.get("PYTHONPATH", "")]),
        **more,
    }


@pytest.fixture(scope="module")
def skew_stack(make_stack: Callable[..., Stack]) -> Iterator[Stack]:
    stack = make_stack(**environment())
    yield stack
    stack.stop()


def models(stack: Stack) -> Path:
    return stack.folder / "models"


def ask_repository(stack: Stack, path: str, body: Any = None) -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {stack.key}"}
    return stack.call(f"/v2/repository/{path}", body, admin=True, method="POST", headers=headers)[:2]


def index(stack: Stack) -> dict[tuple[str, str], dict[str, str]]:
    status, entries = ask_repository(stack, "index")
    assert status == 200, entries
    return {(entry["name"], entry["version"]): entry for entry in entries}


def listed(stack: Stack) -> dict[tuple[str, int], dict[str, Any]]:
    done = stack.cli("list", "--json")
    assert done.returncode == 0, done.stderr
    return {(row["name"], row["version"]): row for row in json.loads(done.stdout)}


def example(stack: Stack, name: str) -> dict[str, Any]:
    contract = json.loads((models(stack) / name / "1" / "contract.json").read_text())
    names = [column["name"] for column in contract["input"]["columns"]]
    return {"instances": [dict(zip(names, row, strict=True)) for row in contract["golden"]["rows"]]}


def workers(stack: Stack) -> set[int]:
    return {worker["pid"] for worker in stack.admin_call("/admin/api/workers")["workers"]}


def as_infer(instances: list[dict[str, Any]]) -> dict[str, Any]:
    kinds = {float: "FP64", int: "INT64", bool: "BOOL", str: "BYTES"}
    inputs = []
    for column in instances[0]:
        cells = [row[column] for row in instances]
        kind = next(kinds[type(cell)] for cell in cells if cell is not None)
        inputs.append({"name": column, "shape": [len(cells)], "datatype": kind, "data": cells})
    return {"inputs": inputs}


SKEWS: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "iris": (skewed_environment.flip_a_bit, "damaged", "model.skops is damaged: its sha256 is"),
    "breast-cancer": (skewed_environment.move_a_threshold, "golden", "golden row"),
    "wine": (skewed_environment.swap_columns, "golden", "golden row"),
    "diabetes": (skewed_environment.another_minor, "environment", "scikit-learn "),
}


def test_each_skew_is_caught_and_the_old_version_answers(skew_stack: Stack) -> None:
    """A version with a changed bit, threshold, column order or library is not served; version 1 still answers."""
    stack = skew_stack
    asked = {name: example(stack, name) for name in SKEWS}
    before = {name: stack.call(f"/v1/models/{name}:predict", body)[1] for name, body in asked.items()}
    pids = workers(stack)
    for name, (damage, _, _) in SKEWS.items():
        damage(skewed_environment.next_version(models(stack), name))
    assert stack.admin_call("/admin/api/reload", "POST")["complete"] is True
    metrics, shown, rows = stack.call("/metrics", admin=True)[1], index(stack), listed(stack)
    for name, (_, failure_kind, reason) in SKEWS.items():
        for _ in range(6):
            assert stack.call(f"/v1/models/{name}:predict", asked[name])[:2] == (200, before[name])
        inferred = stack.call(f"/v2/models/{name}/infer", as_infer(asked[name]["instances"]))
        assert (inferred[0], inferred[1].get("model_version")) == (200, "1"), inferred[1]
        status, content, _ = stack.call(f"/v1/models/{name}/versions/2:predict", asked[name])
        assert (status, reason in content["error"]) == (503, True), content
        assert (shown[name, "1"]["state"], shown[name, "1"]["reason"]) == ("READY", "")
        assert shown[name, "2"]["state"] == "UNAVAILABLE"
        assert reason in shown[name, "2"]["reason"]
        assert (rows[name, 2]["failure_kind"], reason in rows[name, 2]["problem"]) == (failure_kind, True)
        assert rows[name, 1]["problem"] == ""
        labels = f'model="{name}",reason="{failure_kind}",version="2"'
        assert f"tableside_model_problem{{{labels}}} {WORKERS:.1f}" in metrics
        assert stack.call(f"/v2/models/{name}/versions/2/ready")[0] == 503
    assert workers(stack) == pids
    ready = ask_repository(stack, "index", {"ready": True})[1]
    assert {entry["version"] for entry in ready} == {"1"}


def test_a_load_of_a_skewed_version_is_refused_with_the_reason(skew_stack: Stack) -> None:
    """`load` of a changed version answers 400 with the reason and keeps the old one; a repaired version is loaded."""
    stack, name = skew_stack, "diabetes"
    body = example(stack, name)
    if not (models(stack) / name / "2").exists():
        skewed_environment.another_minor(skewed_environment.next_version(models(stack), name))
    status, content = ask_repository(stack, f"models/{name}/load", {})
    assert status == 400
    assert "scikit-learn" in content["error"]
    assert stack.call(f"/v1/models/{name}:predict", body)[0] == 200
    contract = models(stack) / name / "2" / "contract.json"
    contract.write_bytes(
        (models(stack) / name / "1" / "contract.json").read_bytes().replace(b'"version": 1,', b'"version": 2,', 1)
    )
    assert ask_repository(stack, f"models/{name}/load")[0] == 200
    assert index(stack)[name, "2"]["state"] == "READY"
    status, content, _ = stack.call(f"/v2/models/{name}/infer", as_infer(body["instances"]))
    assert content["model_version"] == "2"


def test_with_warn_a_minor_version_is_served_and_its_answers_still_held(make_stack: Callable[..., Stack]) -> None:
    """With `warn` a version of another minor release is served with a warning, unless the trainer's answers differ."""
    stack = make_stack(start=False, **environment(TABLESIDE__REPOSITORY__ENVIRONMENT_SKEW="warn"))
    skewed_environment.another_minor(agreeing := skewed_environment.next_version(models(stack), "diabetes"))
    skewed_environment.with_the_trainers_answers(agreeing)
    both = skewed_environment.next_version(models(stack), "breast-cancer")
    skewed_environment.another_minor(both)
    skewed_environment.with_the_trainers_answers(both)
    skewed_environment.move_a_threshold(both)
    stack.start()
    assert ask_repository(stack, "models/diabetes/load")[0] == 200
    shown = index(stack)
    assert shown["diabetes", "2"]["state"] == "READY"
    assert "environment_skew is 'warn'" in shown["diabetes", "2"]["reason"]
    assert (shown["breast-cancer", "2"]["state"], shown["breast-cancer", "1"]["state"]) == ("UNAVAILABLE", "READY")
    assert "golden row" in shown["breast-cancer", "2"]["reason"]
    asked = as_infer(example(stack, "diabetes")["instances"])
    assert stack.call("/v2/models/diabetes/infer", asked)[1]["model_version"] == "2"
    log = [json.loads(line) for line in (stack.run_dir / "log" / "web.log").read_text().splitlines() if "warn'" in line]
    assert {(line["level"], line["model"], line["failure_kind"]) for line in log} == {
        ("warning", "diabetes", "environment")
    }
    assert "environment_skew is 'warn'" in listed(stack)["diabetes", 2]["problem"]
    stack.stop()


@pytest.mark.parametrize(
    ("words", "failure_kind"),
    [("predict segfault", "crashed"), ("load abort", "crashed"), ("predict exit", "crashed"), ("load hang", "timeout")],
)
def test_what_crashes_or_hangs_takes_no_worker(skew_stack: Stack, words: str, failure_kind: str) -> None:
    """A version that crashes or hangs ends one preflight process per host; the workers go on and version 1 answers."""
    stack, root = skew_stack, models(skew_stack)
    name = words.replace(" ", "-")
    misbehaving_estimators.publish_misbehaving(root, name)
    assert ask_repository(stack, f"models/{name}/load")[0] == 200
    pids = workers(stack)
    misbehaving_estimators.publish_misbehaving(root, name, words)
    started = time.monotonic()
    status, content = ask_repository(stack, f"models/{name}/load")
    assert status == 400, content
    assert time.monotonic() - started < TIMEOUT_S + 200
    assert f"{name}/2 cannot be served; nothing has changed: worker " in content["error"]
    body = {"instances": [[1.0, 2.0]]}
    for _ in range(6):
        assert stack.call(f"/v1/models/{name}:predict", body)[:2] == (200, {"predictions": [3.0]})
    assert workers(stack) == pids
    assert len(misbehaving_estimators.pids(root, name, 2)) == 1
    assert misbehaving_estimators.pids(root, name, 2).isdisjoint(map(str, pids))
    assert listed(stack)[name, 2]["failure_kind"] == failure_kind
    labels = f'model="{name}",reason="{failure_kind}",version="2"'
    assert f"tableside_model_problem{{{labels}}} {WORKERS:.1f}" in stack.call("/metrics", admin=True)[1]
    victim = sorted(pids)[0]
    os.kill(victim, signal.SIGKILL)
    wait_for_another(stack, {victim})
    assert len(misbehaving_estimators.pids(root, name, 2)) == 1  # a worker that starts later reads the preflight result
    assert stack.call(f"/v1/models/{name}:predict", body)[:2] == (200, {"predictions": [3.0]})
    shutil.rmtree(root / name / "2")  # what hangs is tried again by `verify`, and waits again for TIMEOUT_S


def wait_for_another(stack: Stack, dead: set[int]) -> None:
    """Wait until WORKERS workers, none of them in `dead`, serve the newest generation."""
    give_up_at = time.monotonic() + 60
    newest = GenerationWords.open(stack.run_dir / "generations").current
    while True:
        found = stack.admin_call("/admin/api/workers")["workers"]
        alive = {worker["pid"] for worker in found if worker.get("generation", -1) >= newest} - dead
        if len(alive) >= WORKERS:
            return
        assert time.monotonic() < give_up_at, found
        time.sleep(0.1)


def test_verify_survives_what_crashes(skew_stack: Stack) -> None:
    """`tableside verify` reports a version that crashes and verifies the others."""
    stack, root = skew_stack, models(skew_stack)
    misbehaving_estimators.publish_misbehaving(root, "verify-me", "predict segfault")
    done = stack.cli("verify", "verify-me", "--json")
    (result,) = json.loads(done.stdout)
    assert (done.returncode, result["ok"], result["failure_kind"]) == (1, False, "crashed")
    done = stack.cli("verify")
    assert done.returncode == 1
    assert "FAIL  verify-me/1" in done.stdout
    assert "ok    iris/1" in done.stdout


def test_load_and_unload_are_seen_by_all_workers_and_by_those_born_later(skew_stack: Stack) -> None:
    """After a 200 every worker has the new state, and a worker that starts later has it too."""
    stack, body = skew_stack, example(skew_stack, "wine")
    shutil.rmtree(models(stack) / "wine" / "2", ignore_errors=True)

    def answers() -> set[int]:
        return {stack.call("/v1/models/wine:predict", body)[0] for _ in range(12)}

    assert ask_repository(stack, "models/wine/unload", {"parameters": {"unload_dependents": False}})[0] == 200
    assert answers() == {503}
    assert ask_repository(stack, "models/wine/load", {"parameters": {}})[0] == 200
    assert answers() == {200}
    assert ask_repository(stack, "models/wine/unload")[0] == 200
    dead = workers(stack)
    for pid in dead:
        os.kill(pid, signal.SIGKILL)
    wait_for_another(stack, dead)
    assert answers() == {503}
    entry = index(stack)["wine", "1"]
    assert (entry["state"], "unloaded" in entry["reason"]) == ("UNAVAILABLE", True)
    assert "enabled = false" in (models(stack) / "wine" / "model.toml").read_text()
    stack.restart()
    assert answers() == {503}
    assert ask_repository(stack, "models/wine/load")[0] == 200
    assert answers() == {200}
    assert "enabled" not in (models(stack) / "wine" / "model.toml").read_text()


def test_the_repository_api_is_on_the_control_plane_and_wants_the_key(skew_stack: Stack) -> None:
    """The API is on the control plane only and needs the admin key; unknown models are 404 and uploads are 400."""
    stack, key = skew_stack, {"Authorization": f"Bearer {skew_stack.key}"}
    for path in ("index", "models/iris/load", "models/iris/unload"):
        assert stack.call(f"/v2/repository/{path}", b"", headers=key)[0] == 404
        assert stack.call(f"/v2/repository/{path}", b"", admin=True)[0] == 401
    for path in ("models/none/load", "models/none/unload"):
        status, content = ask_repository(stack, path)
        assert (status, "no model 'none'" in content["error"]) == (404, True)
    for parameters in ({"config": "{}"}, {"file:1/model": "AAAA"}):
        assert ask_repository(stack, "models/iris/load", {"parameters": parameters})[0] == 400
    assert "model_repository" in stack.call("/v2")[1]["extensions"]
    rendered = (stack.run_dir / "nginx-control.conf").read_text()
    block = rendered[rendered.index("location ^~ /v2/repository/") :].split("}")[0]
    assert "proxy_next_upstream off" in block
    assert f"proxy_read_timeout {TIMEOUT_S + 60}s" in block


def ask_unnamed(stack: Stack, name: str, rows: list[list[float]], times: int) -> list[int]:
    body = {"instances": rows}
    return [stack.call(f"/v1/models/{name}:predict", body)[0] for _ in range(times)]


def change(stack: Stack, name: str, what: str, **body: Any) -> None:
    """Make a change of a model through the admin API, which is quicker than a command, and wait for its end."""
    headers = {"Authorization": f"Bearer {stack.key}"}
    path = f"/admin/api/models/{name}/{what}?wait=100"
    status, content, _ = stack.call(path, body, admin=True, method="POST", headers=headers)
    assert status == 200, json.dumps(content)


def judged(stack: Stack, rows: list[list[float]], outcome: str) -> str:
    """The judgement of the shadow of iris after so much traffic that it comes to this outcome."""

    def look() -> str:
        assert set(ask_unnamed(stack, "iris", rows, 4)) == {200}
        found = str(stack.admin_call("/admin/api/models/iris/shadow")["judgement"])
        return found if found.startswith(outcome) else ""

    return until(look)


def test_a_good_candidate_is_promoted_and_a_bad_one_is_not(skew_stack: Stack) -> None:
    """The shadow of an equal model becomes ready, that of one with other labels fails, and a pipeline follows that."""
    stack, root = skew_stack, models(skew_stack)
    rows = load_iris(as_frame=True).data.to_numpy().tolist()
    change(stack, "iris", "promote", version=1)
    good, bad = skewed_environment.next_version(root, "iris", of=1), paths.versions(root, "iris")[-1] + 1
    sample = load_iris(as_frame=True).data
    publish("iris", DummyClassifier().fit(sample, ["virginica"] * len(sample)), sample, repository=root, quick=True)
    with (root / "iris" / "model.toml").open("a") as file:
        file.write("[rules]\nrows = 300\n")
    change(stack, "iris", "shadow", version=int(good.name), percent=100, cpu_share=1.0)
    assert judged(stack, rows, "ready") == "ready to promote"
    done = stack.cli("promote", f"iris/{good.name}", "--if-ready")
    assert done.returncode == 0, done.stderr
    assert "shadow" not in (root / "iris" / "model.toml").read_text()
    change(stack, "iris", "shadow", version=bad, percent=100, cpu_share=1.0)
    failing = judged(stack, rows, "failing")
    assert re.fullmatch(r"failing: flips 6\d % \(limit 0.2 %\)", failing), failing
    done = stack.cli("promote", f"iris/{bad}", "--if-ready")
    assert done.returncode == 1
    assert f"not promoted: iris/{bad} is failing: flips " in done.stderr
    assert listed(stack)["iris", bad]["traffic"].startswith("shadow 100 %: failing: flips ")


def test_a_canary_that_fails_too_often_is_taken_out(skew_stack: Stack) -> None:
    """Half of the callers get errors until one worker ends the canary, for all workers; the others never notice."""
    stack, root = skew_stack, models(skew_stack)
    for _ in range(2):
        misbehaving_estimators.publish_misbehaving(root, "sums", "none")
    change(stack, "sums", "promote", version=1)
    change(stack, "sums", "traffic", version=2, percent=50)
    assert set(ask_unnamed(stack, "sums", [[1.0, 2.0]], 20)) == {200}
    misbehaving_estimators.set_behaviour(root, "sums", "predict raise", 2)
    before = (root / "sums" / "model.toml").read_text()
    statuses: set[int] = set()

    def has_ended() -> bool:
        statuses.update(ask_unnamed(stack, "sums", [[1.0, 2.0]], 20))
        assert stack.call("/v1/models/sums/versions/1:predict", {"instances": [[1.0, 2.0]]})[0] == 200
        return "canary" not in (root / "sums" / "model.toml").read_text()

    assert until(has_ended)
    assert statuses == {200, 500}
    assert (root / "sums" / "model.toml").read_text().rstrip() == before[: before.index("[canary]")].rstrip()
    assert until(lambda: set(ask_unnamed(stack, "sums", [[1.0, 2.0]], 20)) == {200})

    def recorded() -> list[dict[str, Any]]:
        audit = [json.loads(line) for line in (stack.run_dir / "log" / "audit.log").read_text().splitlines()]
        return [line for line in audit if line["event"] == "canary_rolled_back"]

    assert until(lambda: len(recorded()) == 2), recorded()
    lines = recorded()
    assert [(line["state"], line["key"], line["model"], line["version"]) for line in lines] == [
        ("begun", "tableside", "sums", 2), ("done", "tableside", "sums", 2),
    ]  # fmt: skip
    assert listed(stack)["sums", 2]["traffic"].endswith(lines[0]["reason"])
