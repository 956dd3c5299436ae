"""A delayed call runs once, later, on the event loop."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tableside.process.delayed_calls import make_call_later

PATCHED = """
from gevent import monkey
monkey.patch_all()
import gevent
from tableside.process.delayed_calls import make_call_later
"""


def printed(code: str) -> str:
    """What a process prints that gevent has patched."""
    ended = subprocess.run([sys.executable, "-c", PATCHED + code], capture_output=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.decode()


@pytest.mark.no_greenlets
def test_without_an_event_loop_there_is_none() -> None:
    """The caller has to write its lines at once."""
    assert make_call_later() is None


@pytest.mark.processes
def test_a_call_runs_later_and_once() -> None:
    """The work does not run in the call itself; it runs once, though the event loop goes on."""
    code = """
later = make_call_later(0.001)
later(lambda: print("work"))
print("called")
gevent.sleep(0.1)
print("done")
"""
    assert printed(code) == "called\nwork\ndone\n"


@pytest.mark.processes
def test_a_second_call_replaces_the_first() -> None:
    """Only the work of the last call runs, and the timer can be used again after that."""
    code = """
later = make_call_later(0.001)
later(lambda: print("first"))
later(lambda: print("second"))
gevent.sleep(0.1)
later(lambda: print("third"))
gevent.sleep(0.1)
"""
    assert printed(code) == "second\nthird\n"


@pytest.mark.processes
def test_a_waiting_call_does_not_keep_the_process_alive() -> None:
    """A process may end while a call is waiting: `logs` writes its lines at exit instead."""
    assert printed('make_call_later(3600)(lambda: print("late"))\ngevent.get_hub().join()\nprint("end")') == "end\n"
