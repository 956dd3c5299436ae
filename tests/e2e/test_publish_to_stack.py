"""Commands beside a running stack: they use its repository, and wait until its workers serve what is published."""

from __future__ import annotations

import subprocess
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
def words(stack: Stack) -> list[str]:
    """The words of a publish, without options."""
    joblib.dump(LogisticRegression().fit(FRAME, LABELS), stack.folder / "m.joblib")
    FRAME.to_csv(stack.folder / "rows.csv", index=False)
    return ["publish", "m", str(stack.folder / "m.joblib"), "--sample", str(stack.folder / "rows.csv"), "--quick"]


def call_elsewhere(stack: Stack, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command that knows only the run folder of the stack, not its other settings."""
    known = ("TABLESIDE__REPOSITORY__PATH", "TABLESIDE__SERVER__LISTEN", "TABLESIDE__SERVER__ADMIN_LISTEN")
    environ = {name: value for name, value in stack.environ.items() if name not in known}
    command = [str(BIN / "tableside"), *words]
    return subprocess.run(command, cwd=PROJECT, env=environ, capture_output=True, text=True, timeout=600)


def answers(stack: Stack) -> Any:
    path = "/v1/models/m:predict?output=predict,predict_proba&classes=true"
    status, content, _ = stack.call(path, {"instances": FRAME.iloc[[0, 39]].to_numpy().tolist()})
    assert status == 200, content
    return content


def test_publish_waits_until_every_worker_serves_it(stack: Stack, words: list[str]) -> None:
    """When `publish --reload` ends, every worker answers. The run folder alone tells the repository and the address."""
    done = call_elsewhere(stack, *words, "--reload")
    assert done.returncode == 0, done.stderr
    assert f"note: using {stack.folder / 'models'}, which the running stack serves" in done.stderr
    assert "served by 2 workers" in done.stdout
    for _ in range(8):
        content = answers(stack)
        assert content["classes"] == {"predict_proba": ["high", "low"]}
        assert [row["predict"] for row in content["predictions"]] == ["low", "high"]
    curl = call_elsewhere(stack, "show", "m", "--curl").stdout
    assert curl.startswith(f"curl -s http://127.0.0.1:{stack.data}/v1/models/m:predict ")


def test_what_is_not_served_is_a_failure(stack: Stack, words: list[str]) -> None:
    """A version that the stack does not serve makes `publish --reload` exit with 1 and the reason."""
    config = stack.folder / "models" / "m" / "model.toml"
    config.write_text("enabled = false\n")
    done = stack.cli(*words, "--reload")
    assert done.returncode == 1
    assert "m/2 is published, but: m/2 is UNAVAILABLE in the running stack: unloaded: enabled is false" in done.stderr
    assert "published m/2 in" in done.stdout
    assert "next:" not in done.stdout, "another reload would not help"
    config.write_text("[aliases]\nchampion = 9\n")
    done = stack.cli("reload")
    assert done.returncode == 1
    assert "m: alias 'champion' in model.toml points at version 9, which does not exist" in done.stderr
    config.unlink()
    done = stack.cli("reload")
    assert (done.returncode, done.stderr) == (0, "")
    answers(stack)
