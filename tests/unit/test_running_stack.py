"""Commands follow the stack that runs in the run folder, and say so when it serves another repository."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import joblib
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from sklearn.linear_model import LinearRegression

from tableside.cli import main
from tableside.deployment import running_stack
from tableside.process import worker_slots
from tableside.settings import load

FRAME = pd.DataFrame({"a": [1.0, 2.0, 3.0, 4.0], "y": [1.0, 2.0, 3.0, 5.0]})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an estimator, and settings whose repository is `mine`."""
    monkeypatch.setenv("TABLESIDE__SERVER__RUN_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("TABLESIDE__REPOSITORY__PATH", str(tmp_path / "mine"))
    (tmp_path / "run").mkdir()
    joblib.dump(LinearRegression().fit(FRAME[["a"]], FRAME["y"]), tmp_path / "m.joblib")
    FRAME.to_csv(tmp_path / "rows.csv", index=False)
    return tmp_path


@pytest.fixture
def stack(folder: Path) -> Iterator[Path]:
    """A stack that serves `served` and listens on port 18080: its record, and a worker slot that is held."""
    environ = {
        "TABLESIDE__SERVER__RUN_DIR": str(folder / "run"),
        "TABLESIDE__SERVER__LISTEN": "127.0.0.1:18080",
        "TABLESIDE__REPOSITORY__PATH": str(folder / "served"),
    }
    running_stack.record(load(environ))
    slot = worker_slots.acquire(folder / "run" / "worker_slots")
    yield folder / "served"
    slot.release()


def call(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def publish(folder: Path, *more: object) -> Result:
    return call("publish", "m", folder / "m.joblib", "--sample", folder / "rows.csv", "--target", "y", "--quick", *more)


def test_without_a_stack_the_settings_count(folder: Path) -> None:
    """Without a running stack, and after one has ended, the repository is the one of the settings."""
    running_stack.record(load({"TABLESIDE__SERVER__RUN_DIR": str(folder / "run")}))
    assert running_stack.find(load()) is None
    assert publish(folder).exit_code == 0
    assert (folder / "mine" / "m" / "1").is_dir()


def test_the_running_stack_s_repository_is_used(folder: Path, stack: Path) -> None:
    """publish, show, list and client use the repository that the running stack serves, and say so once."""
    note = f"note: using {stack}, which the running stack serves; repository.path is {folder / 'mine'} here"
    for words in (("list",), ("show", "m"), ("client", "m")):
        if words[0] == "list":
            done = publish(folder)
            assert done.exit_code == 0, done.output
            assert done.stderr.count(note) == 1
        done = call(*words)
        assert done.exit_code == 0, done.output
        assert note in done.stderr
    assert (stack / "m" / "1").is_dir()
    assert call("show", "m", "--curl").stdout.startswith("curl -s http://127.0.0.1:18080/v1/models/m:predict ")


def test_a_repository_that_the_stack_does_not_serve_is_said_loudly(folder: Path, stack: Path) -> None:
    """Publishing elsewhere works, and a note says which repository the stack serves; --reload refuses it."""
    done = publish(folder, "--repository", folder / "mine")
    assert done.exit_code == 0, done.output
    assert f"note: the running stack serves {stack}, not {folder / 'mine'}. Publish with --repository" in done.stdout
    refused = publish(folder, "--repository", folder / "mine", "--reload")
    assert refused.exit_code == 2
    assert f"tableside: the running stack serves {stack}" in refused.stderr
    assert not (folder / "mine" / "m" / "2").exists()


def test_reload_needs_a_running_stack(folder: Path) -> None:
    """`publish --reload` without a stack refuses before any work, with what to do."""
    done = publish(folder, "--reload")
    assert done.exit_code == 2
    assert "no stack runs in " in done.stderr
    assert not (folder / "mine").exists()


def test_restart_needs_somebody_who_has_the_sockets(folder: Path, stack: Path) -> None:
    """Without a process that offers the sockets new workers could not listen: nothing is asked for, and it says why."""
    done = call("restart")
    assert done.exit_code == 2
    assert f"tableside: no socket holder runs in {folder / 'run'}" in done.stderr
    assert f"supervisorctl -c {folder / 'run'}/supervisorctl.conf start 'sockets:*'" in done.stderr


@pytest.mark.processes
def test_stacks_in_other_run_folders_are_named(folder: Path, tmp_path: Path) -> None:
    """A stack of the same user with another run folder is found by its supervisord, and named with its repository."""
    other = tmp_path / "other"
    other.mkdir()
    environ = {"TABLESIDE__SERVER__RUN_DIR": str(other), "TABLESIDE__REPOSITORY__PATH": str(tmp_path / "theirs")}
    running_stack.record(load(environ))
    command = [sys.executable, "-c", "import sys; sys.stdin.read()", "supervisord"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, env={**os.environ, "TABLESIDE_RUN_DIR": str(other)}
    ) as process:
        (other / "supervisord.pid").write_text(f"{process.pid}\n")
        while running_stack.supervisor_pid(other) != process.pid:  # its command line is empty for a moment
            assert process.poll() is None
        found = [stack.run_dir for stack in running_stack.others(load())]
        listed = call("list")
        failed = call("reload")
        process.communicate()
    assert str(other) in found
    assert f"{tmp_path / 'theirs'} is served by the stack in {other}" in listed.stderr
    assert f"a stack runs in {other}: set TABLESIDE__SERVER__RUN_DIR={other}" in failed.stderr
