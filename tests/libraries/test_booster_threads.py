"""Boosters keep no threads of their own, and survive a fork of the process that imported their libraries."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tableside.publishing.publish import publish
from tableside.setting_texts import LIBRARIES
from tests.libraries import zoo

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.processes]

CHILD = """
import os, sys, time
from pathlib import Path
import catboost, lightgbm, xgboost  # the code is imported before the fork, no booster is loaded
from tableside.decoding.json_tables import from_rows
from tableside.preflight.checks import check_version
from tableside.repository.integrity import read_contract
from tableside.setting_texts import LIBRARIES
from tableside.settings import Repository

def threads():
    return len(os.listdir("/proc/self/task"))

def threads_beyond(before):
    end_s = time.monotonic() + 30  # the kernel lists a thread for a moment after it has ended
    while threads() > before and time.monotonic() < end_s:
        time.sleep(0.01)
    return threads() - before

if os.fork() == 0:
    before = threads()
    for name in ("xgboost", "lightgbm", "catboost"):
        runtime = check_version(Path(sys.argv[1]), name, 1, Repository(trusted_libraries=LIBRARIES))
        contract = read_contract(Path(sys.argv[1]), name, 1)
        rows = [list(row) for row in contract.golden.rows] * 100
        runtime.run("predict_proba", runtime.prepare(from_rows(rows, contract.input)))
        print(name, threads_beyond(before), flush=True)
    os._exit(0)
print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One version of each library."""
    made = tmp_path_factory.mktemp("models")
    for cases in (zoo.xgboost_cases, zoo.lightgbm_cases, zoo.catboost_cases):
        case = next(cases())
        publish(
            case.library, case.estimator, case.rows, repository=made, runtime="sklearn", trusted_libraries=LIBRARIES
        )
    return made


def test_a_forked_worker_answers_with_one_thread(root: Path) -> None:
    """In the environment of the stack, no call leaves a thread behind, and none hangs after the fork."""
    environ: dict[str, Any] = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-c", CHILD, str(root)]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=200)
    assert done.stdout.split() == ["xgboost", "0", "lightgbm", "0", "catboost", "0", "0"], done.stdout + done.stderr
