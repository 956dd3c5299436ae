"""Model processes in the real stack: supervised, killed, restarted and stopped under load without a failed request."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.e2e import media_types
from tests.e2e.conftest import BIN, Stack, until
from tests.e2e.traffic import Traffic
from tests.model_environments import RELEASE, old_python, train

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

PATH = "/v1/models/iris:predict"
BODY = {"instances": [[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]]}
EXPECTED = {"predictions": ["setosa", "virginica"]}
PROCESSES = ("model_own:model_own_0", "model_own:model_own_1")


@pytest.fixture(scope="module")
def stack(make_stack: Callable[..., Stack]) -> Iterator[Stack]:
    """A stack whose model iris runs in model processes of this interpreter."""
    made = make_stack(start=False, TABLESIDE__ENVIRONMENTS__OWN__PYTHON=sys.executable)
    (made.folder / "models" / "iris" / "model.toml").write_text('environment = "own"\n')
    config = made.folder / "tableside.toml"
    config.touch()
    made.environ["TABLESIDE_CONFIG"] = str(config)
    made.start()
    made.wait_loaded()
    yield made
    made.stop()


def traffic(stack: Stack) -> Traffic:
    return Traffic(stack.data, PATH, BODY, EXPECTED)


def pid_of(stack: Stack, process: str) -> int:
    return int(stack.ctl("pid", process))


def server_of(stack: Stack, process: str) -> int:
    """The pid of the model process that a keeper has started; 0 while there is none."""
    keeper = pid_of(stack, process)
    children = Path(f"/proc/{keeper}/task/{keeper}/children")
    pids = children.read_text().split() if children.exists() else []
    return int(pids[0]) if pids else 0


def is_up(stack: Stack, count: int = 2) -> bool:
    return f'tableside_model_processes_up{{environment="own"}} {count}.0' in str(stack.call("/metrics", admin=True)[1])


def test_a_model_runs_in_supervised_processes(stack: Stack) -> None:
    """supervisorctl lists them, the metrics count them, and the answers are the model's."""
    assert stack.call(PATH, BODY)[:2] == (200, EXPECTED)
    status = stack.ctl("status")
    for process in PROCESSES:
        assert any(line.split()[:2] == [process, "RUNNING"] for line in status.splitlines()), status
    assert until(lambda: is_up(stack), 120)
    assert stack.cli("verify", "iris").returncode == 0
    assert "own" in stack.cli("env", "list").stdout


UPDATE = """
from tableside.deployment import instances, model_programs
from tableside.settings import load
model_programs.update(instances.settings_of_stack(load()))
"""
"""What `tableside env create` does when the environment is made."""


def test_another_shell_leaves_the_model_processes_alone(stack: Stack) -> None:
    """`tableside env` in a shell that does not know the stack's variables sees its environments and ends none."""
    before = [pid_of(stack, process) for process in PROCESSES]
    listed = json.loads(stack.call_elsewhere(str(BIN / "tableside"), "env", "list", "--json").stdout)
    assert ("own", len(PROCESSES)) in [(each["name"], each["processes"]) for each in listed]
    done = stack.call_elsewhere(sys.executable, "-c", UPDATE)
    assert (done.returncode, done.stderr) == (0, "")
    assert [pid_of(stack, process) for process in PROCESSES] == before


def test_lines_arrays_and_csv(stack: Stack, trained: dict[str, Any]) -> None:
    """Tables of SageMaker's media types reach a model process as those of JSON do."""
    media_types.check(stack, trained)


def test_kill_of_a_model_process_fails_no_request(stack: Stack) -> None:
    """SIGKILL of each process, of both at once, and of their keepers is noticed by no client: others follow."""
    with traffic(stack) as load:
        load.wait_for_more(50)
        for names, find in [((PROCESSES[0],), server_of), (PROCESSES, server_of), (PROCESSES, pid_of)]:
            pids = [find(stack, process) for process in names]
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
            load.wait_for_more(50)

            def are_others(find: Callable[[Stack, str], int] = find, old: frozenset[int] = frozenset(pids)) -> bool:
                now = {find(stack, process) for process in PROCESSES}
                return is_up(stack) and not now & {*old, 0} and len(now) == len(PROCESSES)

            assert until(are_others, 120)
    assert load.failures == []


def test_restart_of_model_processes_fails_no_request(stack: Stack) -> None:
    """`supervisorctl restart` of one process, and of all, waits for the calls that run and loses none."""
    with traffic(stack) as load:
        load.wait_for_more(50)
        for name in (PROCESSES[0], "model_own:*"):
            stack.ctl("restart", name)
            load.wait_for_more(50)
            assert until(lambda: is_up(stack), 120)
    assert load.failures == []


def test_a_restart_of_the_workers_fails_no_request(stack: Stack) -> None:
    """gunicorn restarts while model processes run on."""
    pids = [pid_of(stack, process) for process in PROCESSES]
    with traffic(stack) as load:
        load.wait_for_more(50)
        stack.restart()
        load.wait_for_more(50)
    assert load.failures == []
    assert [pid_of(stack, process) for process in PROCESSES] == pids


def test_an_environment_is_added_to_a_running_stack(stack: Stack) -> None:
    """A new section of tableside.toml has its processes after a restart of web, and a model can name it then."""
    (stack.folder / "tableside.toml").write_text(f"[environments.more]\npython = '{sys.executable}'\nprocesses = 1\n")
    (stack.folder / "models" / "wine" / "model.toml").write_text('environment = "more"\n')
    before = stack.call("/v1/models/wine:predict", body_of("wine", stack))
    stack.restart()
    assert "model_more" in stack.ctl("status")
    assert stack.call("/v1/models/wine:predict", body_of("wine", stack))[:2] == before[:2]
    listed = stack.cli("list").stdout
    assert "environment" not in listed.partition("wine")[2].split("\n")[0], listed


def body_of(name: str, stack: Stack) -> object:
    import msgspec

    contract = msgspec.json.decode(Path(stack.folder / "models" / name / "1" / "contract.json").read_bytes())
    names = [column["name"] for column in contract["input"]["columns"]]
    return {"instances": [dict(zip(names, row, strict=True)) for row in contract["golden"]["rows"][:3]]}


def test_an_unknown_environment_is_a_reason_and_not_a_failure(stack: Stack) -> None:
    """The versions that were loaded before go on answering, and `list` says what to write where."""
    file = stack.folder / "models" / "iris" / "model.toml"
    try:
        file.write_text('environment = "gone"\n')
        stack.cli("reload")
        assert stack.call(PATH, BODY)[:2] == (200, EXPECTED)
        assert "[environments.gone]" in stack.cli("list", "--json").stdout
    finally:
        file.write_text('environment = "own"\n')
        stack.cli("reload")


def test_two_releases_of_scikit_learn_stand_side_by_side(stack: Stack, tmp_path: Path) -> None:
    """In one stack, each model gives its own answers to the bit: one of an older release, and one of this release."""
    old = f"[environments.old]\npython = '{old_python()}'\n"
    (stack.folder / "tableside.toml").write_text(old)
    stack.restart()
    train(tmp_path)
    words = [str(tmp_path / "ovr.joblib"), "--sample", str(tmp_path / "ovr.csv"), "--target", "target"]
    done = stack.cli("publish", "ovr", *words, "--environment", "old", "--reload")
    assert done.returncode == 0, done.stderr
    frame = pd.read_csv(tmp_path / "ovr.csv").drop(columns="target")
    expected = np.load(tmp_path / "ovr.npz")["proba"]
    path = "/v1/models/ovr:predict?output=predict_proba"
    status, answer, _ = stack.call(path, {"instances": frame.to_dict("records")})
    assert status == 200, answer
    assert np.array(answer["predictions"]).tobytes() == expected.tobytes()
    assert stack.call(PATH, BODY)[:2] == (200, EXPECTED)
    assert "model_old:model_old_0" in stack.ctl("status")
    assert RELEASE in stack.cli("env", "list").stdout


def test_a_hung_model_process_is_a_504_and_not_a_frozen_worker(make_stack: Callable[..., Stack]) -> None:
    """While the processes do not answer, requests end at their deadline, and other models and probes are answered.

    In the stack of the other tests, servers whose keeper was killed may answer still.
    """
    stack = make_stack(
        start=False, TABLESIDE__ENVIRONMENTS__OWN__PYTHON=sys.executable, TABLESIDE__SERVER__REQUEST_TIMEOUT_S="2"
    )
    (stack.folder / "models" / "iris" / "model.toml").write_text('environment = "own"\n')
    stack.start()
    stack.wait_loaded()
    pids = [server_of(stack, process) for process in PROCESSES]
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        began_s = time.monotonic()
        assert stack.call(PATH, BODY)[0] == 504
        assert time.monotonic() - began_s < 10
        for _ in range(10):
            assert stack.call("/v2/health/live")[0] == 200
            assert stack.call("/v1/models/wine:predict", body_of("wine", stack))[0] == 200
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    assert until(lambda: stack.call(PATH, BODY)[0] == 200, 120)
    stack.stop()
