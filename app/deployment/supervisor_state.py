"""What supervisord is about to do with a program, as far as the program can know when it gets SIGTERM."""

from __future__ import annotations

from enum import Enum, auto
from http.client import HTTPException
from pathlib import Path
from xmlrpc.client import Error, Fault

from tableside.deployment.model_programs import connect

_SHUTDOWN_STATE = 6
"""supervisor.xmlrpc.Faults.SHUTDOWN_STATE: the answer to every call while supervisord ends."""
_STAYS_DOWN = ("STOPPED", "EXITED", "FATAL", "UNKNOWN")


class Plan(Enum):
    """What happens to a program.

    ENDING: supervisord is ending all programs. GONE: supervisord does not run. DOWN: the program is stopped, and
    supervisord will not start it by itself; the start of a restart may still follow. UP: the program runs, starts or
    ends.
    """

    ENDING = auto()
    GONE = auto()
    DOWN = auto()
    UP = auto()


def plan(run_dir: Path, process: str) -> Plan:
    """Ask supervisord what happens to one of its processes, such as `nginx` or `sockets:sockets_0`."""
    try:
        info = connect(run_dir).getProcessInfo(process)
    except Fault as fault:
        return Plan.ENDING if fault.faultCode == _SHUTDOWN_STATE else Plan.DOWN
    except (OSError, HTTPException, Error):
        return Plan.GONE
    return Plan.DOWN if info["statename"] in _STAYS_DOWN else Plan.UP
