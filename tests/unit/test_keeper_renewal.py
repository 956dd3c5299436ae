"""A keeper that executes itself anew loses no signal, and stays what it is if the new code does not run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.processes
INTERPRETER = """#!/bin/sh
exec "{python}" "{code}" "$@"
"""
CODE = """import os, signal, sys
if "-c" in sys.argv:  # the trial of the code
    sys.exit({status})
print(os.environ["TABLESIDE_ADOPT"], sorted(sign.name for sign in signal.sigpending()), sys.argv[1:])
"""
KEEPER = """
import os, signal, sys
from tableside.deployment import keeper_renewal
from tableside.deployment.releases import Release

arrived = []
for sign in keeper_renewal.SIGNALS:
    signal.signal(sign, lambda number, _: arrived.append(signal.Signals(number)))
os.kill(os.getpid(), signal.SIGHUP)
release = Release(sys.argv[1], sys.argv[2])
reason = keeper_renewal.renew(release, "7-a", lambda: arrived)
print("still here:", reason, signal.sigpending(), [sign.name for sign in arrived])
"""


def renewed(folder: Path, status: int) -> str:
    """Run a keeper that gets SIGHUP and executes itself anew. status: that of the trial of the new code."""
    python, code = folder / "python", folder / "code.py"
    code.write_text(CODE.format(status=status))
    python.write_text(INTERPRETER.format(python=sys.executable, code=code))
    python.chmod(0o700)
    command = [sys.executable, "-c", KEEPER, str(folder), str(python)]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    ended = subprocess.run(command, env=environ, timeout=60, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_a_signal_that_arrived_meanwhile_reaches_the_next_keeper(tmp_path: Path) -> None:
    """It is pending when the next program starts, which is told which instance it goes on with."""
    assert renewed(tmp_path, 0) == "7-a ['SIGHUP'] ['-m', 'tableside.deployment.web_keeper']\n"


def test_code_that_does_not_run_is_not_executed(tmp_path: Path) -> None:
    """The keeper goes on, with its signals unblocked, and knows the reason."""
    said = renewed(tmp_path, 3)
    assert said.startswith("still here: the code in ")
    assert said.endswith("set() ['SIGHUP']\n")
