"""What supervisord says of a program: whether it runs, is stopped for good, or ends with the whole stack."""

from __future__ import annotations

import os
import socket
from enum import StrEnum
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple
from xmlrpc.client import Error, Fault

from supervisor.xmlrpc import Faults

from tableside.deployment.model_programs import connect

ANSWER_TIMEOUT_S = 5.0


class Says(StrEnum):
    """RUNS: it runs, or is about to. STOPPED: it was stopped, or has ended. SHUTDOWN: the whole stack ends.

    UNREACHABLE: supervisord was killed. GONE: supervisord has ended in an orderly way.
    """

    RUNS = "runs"
    STOPPED = "stopped"
    SHUTDOWN = "shutdown"
    UNREACHABLE = "unreachable"
    GONE = "gone"


class Answer(NamedTuple):
    """What supervisord says, and the pid of the process (0 if there is none)."""

    says: Says
    pid: int = 0


def ask(run_dir: Path, name: str = "") -> Answer:
    """Ask supervisord of this run folder for the state of a process. Takes ANSWER_TIMEOUT_S at most.

    name: such as `nginx` or `sockets:sockets_0`; by default that of this process.
    """
    own = f"{os.environ.get('SUPERVISOR_GROUP_NAME', 'web')}:{os.environ.get('SUPERVISOR_PROCESS_NAME', 'web')}"
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(ANSWER_TIMEOUT_S)
    try:
        info = connect(run_dir).getProcessInfo(name or own)
    except Fault as fault:
        return Answer(Says.SHUTDOWN if fault.faultCode == Faults.SHUTDOWN_STATE else Says.STOPPED)
    except (OSError, HTTPException, Error):
        # supervisord removes its pid file when it ends, but not when it is killed.
        return Answer(Says.UNREACHABLE if (run_dir / "supervisord.pid").exists() else Says.GONE)
    finally:
        socket.setdefaulttimeout(before)
    stopped = info["statename"] in ("STOPPED", "EXITED", "FATAL")
    return Answer(Says.STOPPED if stopped else Says.RUNS, int(info["pid"]))
