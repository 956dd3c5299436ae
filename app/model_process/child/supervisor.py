"""Asks supervisord what it is about to do with a program.

Runs in other environments: Python 3.8, no import of Tableside (see tableside.model_process.child.wire).
"""

from __future__ import annotations

import socket
from http.client import HTTPConnection, HTTPException
from typing import Any
from xmlrpc.client import Error, Fault, ServerProxy, Transport

UP, DOWN, ENDING, GONE = "up", "down", "ending", "gone"
"""UP: the program runs, starts or ends. DOWN: it is stopped; the start of a restart may still follow. ENDING:
supervisord is ending all programs. GONE: supervisord does not run.
"""
_SHUTDOWN_STATE = 6
"""supervisor.xmlrpc.Faults.SHUTDOWN_STATE: the answer to every call while supervisord ends."""
_STAYS_DOWN = ("STOPPED", "EXITED", "FATAL", "UNKNOWN")
_TIMEOUT_S = 5.0


class _Connection(HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class _Transport(Transport):
    def __init__(self, path: str) -> None:
        super().__init__()
        self._made = _Connection(path)

    def make_connection(self, host: Any) -> HTTPConnection:
        return self._made

    def close(self) -> None:
        super().close()
        self._made.close()


def connect(path: str) -> ServerProxy:
    """Return supervisord's XML-RPC API on its unix socket; close it by a `with` statement."""
    return ServerProxy("http://localhost", transport=_Transport(path))


def plan(path: str, process: str) -> str:
    """Return UP, DOWN, ENDING or GONE. path: supervisord's unix socket. process: such as `model_old:model_old_0`."""
    try:
        with connect(path) as server:
            info: Any = server.supervisor.getProcessInfo(process)
    except Fault as fault:
        return ENDING if fault.faultCode == _SHUTDOWN_STATE else DOWN
    except (OSError, HTTPException, Error):
        return GONE
    return DOWN if info["statename"] in _STAYS_DOWN else UP
