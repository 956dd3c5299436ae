"""How a model process follows another one: the next one listens before the last one ends, one at a time.

Runs in other environments: Python 3.8, no import of Tableside (see tableside.model_process.child.wire).
"""

from __future__ import annotations

import fcntl
import os
import select
import socket
import struct
import time
from typing import TYPE_CHECKING, Optional

if TYPE_CHECKING or __package__:
    from tableside.model_process.child import supervisor
else:
    import supervisor

DOWN_S = 3.0
"""A program that supervisord has stopped for longer is not being restarted."""
ORPHAN_S = 5.0
"""A process whose supervisord has ended goes on while workers are connected, and ends this long after the last one."""
ASK_EVERY_S = 1.0
LEAVES_WITHIN_S = 300.0
_CREDENTIALS = struct.Struct("3i")


class Turn:
    """The right to load versions while a predecessor serves: one process of an environment has it at a time."""

    def __init__(self, lock: int, predecessor: int) -> None:
        """lock: a descriptor that holds the lock. predecessor: the pid of the process that listens now."""
        self._lock = lock
        self._predecessor = predecessor

    def finish(self) -> None:
        """Wait until the predecessor has ended, so that no more than one process more than usual takes memory."""
        give_up_at_s = time.monotonic() + LEAVES_WITHIN_S
        while _runs(self._predecessor) and time.monotonic() < give_up_at_s:
            time.sleep(0.1)
        os.close(self._lock)


def wait_for_turn(path: str, state: str) -> Optional[Turn]:
    """Wait while another process of the environment is being replaced. Return None if nothing listens on the path.

    Without a predecessor requests wait, so this process does not. path: of the socket. state: see Versions.
    """
    if not state or not _listener(path):
        return None
    lock = os.open(f"{state}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    predecessor = _listener(path)
    if predecessor:
        return Turn(lock, predecessor)
    os.close(lock)
    return None


def _listener(path: str) -> int:
    """The pid of the process that listens on a unix socket, 0 if none does (SO_PEERCRED in unix(7))."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
            found = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        except OSError:
            return 0
    pid: int = _CREDENTIALS.unpack(found)[0]
    return pid


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


class Successor:
    """Tells a model process when it is no longer needed."""

    def __init__(self, path: str, keeper: Optional[int], supervisor_socket: str, process: str) -> None:
        """path: of the socket. keeper: a pipe that ends with the keeper; None for a process without one. process: the
        keeper's name in supervisord.
        """
        self._path = path
        self._keeper = keeper
        self._supervisor = supervisor_socket
        self._process = process
        self._parent = os.getppid()
        self._next_s = 0.0
        self._needed_s = 0.0

    def reason_to_end(self, inode: int, is_connected: bool) -> str:
        """Return why the process should end now; an empty string if it should go on. Call it often.

        inode: of the socket that it listens on. is_connected: whether a worker is connected.
        """
        if self.is_replaced(inode):
            return "another process listens on its socket"
        now_s = time.monotonic()
        if not self._is_left():
            self._needed_s = now_s
            return ""
        if now_s < self._next_s:
            return ""
        self._next_s = now_s + ASK_EVERY_S
        plan = supervisor.plan(self._supervisor, self._process)
        if plan == supervisor.ENDING:
            return "supervisord ends all programs"
        if plan == supervisor.UP or (plan == supervisor.GONE and is_connected):
            self._needed_s = now_s
        patience_s = ORPHAN_S if plan == supervisor.GONE else DOWN_S
        return f"its keeper has ended and supervisord is {plan}" if now_s - self._needed_s > patience_s else ""

    def is_replaced(self, inode: int) -> bool:
        """Whether another process has taken the name of the socket."""
        try:
            return os.stat(self._path).st_ino != inode
        except OSError:
            return False

    def _is_left(self) -> bool:
        if self._keeper is None:
            return os.getppid() != self._parent
        return bool(select.select([self._keeper], [], [], 0)[0])
