"""Commands beside a running stack: they use its repository, and wait until its workers serve what is published."""

from __future__ import annotations

import http.client
import json
import subprocess
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from tests.e2e.conftest import BIN, PROJECT, Stack

pytestmark = pytest.mark.e2e

FRAME = pd.DataFrame({"a": np.linspace(0, 1, 40), "b": np.linspace(5, 2, 40)})
LABELS = np.where(FRAME["a"] > 0.5, "high", "low")


@pytest.fixture(scope="module")
def stack(shared_stack: Stack) -> Stack:
    """The stack of several files."""
    return shared_stack


@pytest.fixture(scope="module")
def words(stack: Stack) -> list[str]:
    """The words of a publish, without options."""
    joblib.dump(LogisticRegression().fit(FRAME, LABELS), stack.folder / "m.joblib")
    FRAME.to_csv(stack.folder / "rows.csv", index=False)
    return ["publish", "m", str(stack.folder / "m.joblib"), "--sample", str(stack.folder / "rows.csv"), "--quick"]


def answers(stack: Stack, model: str = "m") -> Any:
    path = f"/v1/models/{model}:predict?output=predict,predict_proba&classes=true"
    status, content, _ = stack.call(path, {"instances": FRAME.iloc[[0, 39]].to_numpy().tolist()})
    assert status == 200, content
    return content


def test_publish_waits_until_every_worker_serves_it(stack: Stack, words: list[str]) -> None:
    """When `publish --reload` ends, every worker answers. The run folder alone tells the repository and the address."""
    done = stack.call_elsewhere(str(BIN / "tableside"), *words, "--reload")
    assert done.returncode == 0, done.stderr
    assert f"note: using {stack.folder / 'models'}, which the running stack serves" in done.stderr
    assert "served by 2 workers" in done.stdout
    for _ in range(8):
        content = answers(stack)
        assert content["classes"] == {"predict_proba": ["high", "low"]}
        assert [row["predict"] for row in content["predictions"]] == ["low", "high"]
    curl = stack.call_elsewhere(str(BIN / "tableside"), "show", "m", "--curl").stdout
    assert curl.startswith(f"curl -s http://127.0.0.1:{stack.data}/v1/models/m:predict ")


def test_what_is_not_served_is_a_failure(stack: Stack, words: list[str]) -> None:
    """A version that the stack does not serve makes `publish --reload` exit with 1 and the reason."""
    publish = ["publish", "off", *words[2:], "--reload"]
    assert stack.cli(*publish).returncode == 0
    config = stack.folder / "models" / "off" / "model.toml"
    config.write_text("enabled = false\n")
    done = stack.cli(*publish)
    assert done.returncode == 1
    assert "off/2 is published, but: off/2 is UNAVAILABLE in the running stack: unloaded: enabled is false" in (
        done.stderr
    )
    assert "published off/2 in" in done.stdout
    assert "next:" not in done.stdout, "another reload would not help"
    config.write_text("[aliases]\nchampion = 9\n")
    done = stack.cli("reload")
    assert done.returncode == 1
    assert "off: alias 'champion' in model.toml points at version 9, which does not exist" in done.stderr
    config.unlink()
    done = stack.cli("reload")
    assert (done.returncode, done.stderr) == (0, "")
    answers(stack, "off")


def served(stack: Stack, path: str = "/v2/models/released/infer") -> str:
    """The version that eight connections are answered by: it must be one, whichever worker answers."""
    data = FRAME.iloc[:1].to_numpy().tolist()
    body = {"inputs": [{"name": "input", "shape": [1, 2], "datatype": "FP64", "data": data}]}
    found = set()
    for _ in range(8):
        status, content, _ = stack.call(path, body)
        assert status == 200, content
        found.add(content["model_version"])
    assert len(found) == 1, found
    return found.pop()


def test_a_release_is_one_command_each(stack: Stack, words: list[str]) -> None:
    """Publish, try by number, promote, roll back, retire, delete: each returns when all workers do as it says."""
    config = stack.folder / "models" / "released" / "model.toml"
    assert stack.cli("publish", "released", *words[2:], "--reload").returncode == 0
    assert stack.cli("promote", "released/1").returncode == 0
    done = stack.cli("copy", "released/1", "released", "--json")
    assert done.returncode == 0, done.stderr
    [new] = json.loads(done.stdout)["versions"]
    assert served(stack) == "1", "a version that is published beside `default` takes no traffic"
    assert served(stack, f"/v2/models/released/versions/{new}/infer") == str(new)
    done = stack.cli("promote", f"released/{new}")
    assert done.returncode == 0, done.stderr
    assert "(2 workers)" in done.stdout
    assert served(stack) == str(new)
    promoted = config.read_text()
    config.write_text(promoted.replace("default = ", "default= 'one' #", 1))
    done = stack.cli("reload")
    assert done.returncode == 1
    assert "released/model.toml: line 2: Expected `int`, got `str` - at `$.aliases.default`" in done.stderr
    assert served(stack) == str(new)
    config.write_text(promoted)
    done = stack.cli("rollback", "released", "--json")
    assert (done.returncode, json.loads(done.stdout)["workers"]) == (0, 2), done.stderr
    assert served(stack) == "1"
    rolled_back = config.read_text()
    damaged = stack.folder / "models" / "released" / str(new) / "model.skops"
    damaged.chmod(0o644)
    damaged.write_bytes(damaged.read_bytes()[:-9])
    done = stack.cli("promote", f"released/{new}")
    assert done.returncode == 1
    assert f"tableside: not changed: released/{new} cannot be served; nothing has changed: worker " in done.stderr
    assert config.read_text() == rolled_back
    assert served(stack) == "1"
    done = stack.cli("delete", f"released/{new}", "--yes")
    assert done.returncode == 0, done.stderr
    assert stack.call(f"/v2/models/released/versions/{new}/ready")[0] == 404


def generation(stack: Stack) -> int:
    status, content, _ = stack.call("/admin/api/models", admin=True, headers={"Authorization": f"Bearer {stack.key}"})
    assert status == 200, content
    return int(content["generation"])


def test_each_command_is_one_generation(stack: Stack) -> None:
    """A command edits and switches in one step, as the admin API does, and the log of the stack has what it did."""
    assert stack.cli("copy", "iris/1", "steps").returncode == 0
    assert stack.cli("copy", "iris/1", "steps").returncode == 0
    commands = (
        ("promote", "steps/1"), ("promote", "steps/2"), ("rollback", "steps"), ("alias", "steps", "candidate", "2"),
        ("traffic", "steps", "--canary", "2", "--percent", "5"), ("traffic", "steps", "--stop"),
        ("alias", "steps", "candidate", "--remove"), ("retire", "steps/2"), ("delete", "steps/2", "--yes"),
    )  # fmt: skip
    took = {}
    for words in commands:
        before = generation(stack)
        done = stack.cli(*words)
        assert done.returncode == 0, done.stderr
        assert "(2 workers)" in done.stdout
        took[" ".join(words)] = generation(stack) - before
    assert set(took.values()) == {1}, took
    lines = [json.loads(line) for line in (stack.run_dir / "log" / "commands.log").read_text().splitlines()]
    reasons = [line["reason"] for line in lines if line.get("event") == "generation_switched"]
    assert "steps@default = 2, by a command" in reasons


def test_a_version_is_pushed_through_nginx(stack: Stack, words: list[str], tmp_path: Path) -> None:
    """As from another machine: nginx passes the body on as it comes, above server.max_body_bytes too, and the workers
    serve the version. Without a key nothing is stored, and above server.max_upload_bytes the error names that setting.
    """
    assert stack.cli(*words, "--repository", str(tmp_path)).returncode == 0
    environ = {name: value for name, value in stack.environ.items() if not name.startswith("TABLESIDE__")}
    environ["TABLESIDE__SERVER__RUN_DIR"] = str(tmp_path / "run")
    to = ["--to", f"http://127.0.0.1:{stack.admin}", "--key-file", str(stack.run_dir / "admin.key")]
    command = [str(BIN / "tableside"), "push", "pushed", str(tmp_path / "m" / "1"), "--next", *to]
    done = subprocess.run(command, cwd=PROJECT, env=environ, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "served by 2 workers" in done.stdout
    assert stack.call("/v2/models/pushed/versions/1/ready")[0] == 200
    path = "/admin/api/models/pushed/versions"
    key = {"Authorization": f"Bearer {stack.key}"}
    status, content, _ = stack.call(path, b"x" * (65 << 20), admin=True, headers=key)
    assert (status, "no tar file" in content["error"] if status == 400 else status) in ((400, True), (202, 202)), (
        content
    )
    assert stack.call(path, b"x" * 1000, admin=True)[0] == 401
    connection = http.client.HTTPConnection("127.0.0.1", stack.admin, timeout=60)
    connection.request("POST", path, headers={**key, "Content-Length": str(3 << 30)})
    answer = connection.getresponse()
    refusal = json.loads(answer.read())
    connection.close()
    assert (answer.status, refusal["max_bytes"]) == (413, 2 << 30)
    assert "server.max_upload_bytes" in refusal["error"]
