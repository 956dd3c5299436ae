"""The lag of the event loop is how late a greenlet wakes while another one keeps the loop busy."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tableside.process import loop_lag
from tableside.process.offload import is_patched

BUSY_S = 0.6
BLOCKED = f"""
from gevent import monkey
monkey.patch_all()
import time
from tableside.process import loop_lag
found = []
assert loop_lag.watch(found.append)
while len(found) < 2:
    time.sleep(0.01)
began_s = time.monotonic()
while time.monotonic() < began_s + {BUSY_S}:  # no greenlet runs meanwhile
    pass
before = len(found)
while len(found) < before + 2:
    time.sleep(0.01)
print(max(found[before:]))
"""


@pytest.mark.processes
def test_a_busy_loop_is_late() -> None:
    """A greenlet that computes delays the timer for as long as it computes beyond the timer's time."""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", BLOCKED]
    done = subprocess.run(command, env=environ, timeout=60, capture_output=True, text=True, check=True)
    assert float(done.stdout) >= BUSY_S - loop_lag.EVERY_S


def test_a_process_without_an_event_loop_measures_nothing() -> None:
    """There is nothing that could be late."""
    assert is_patched() or not loop_lag.watch(lambda _: None)
