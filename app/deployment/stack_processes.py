"""Find the processes of a stack by its run folder, also those that a killed parent has left behind.

A pid file names a process that may have ended, and its number may belong to another program by now. /proc has the
truth: every program of a stack is started with the run folder in its environment, and nginx, which overwrites its
environment with its title, works in that folder.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from tableside.process import process_table
from tableside.process.instance_names import RUN_DIR
from tableside.process.process_table import Process

_PROC = Path("/proc")


class Role(Enum):
    """What a process is in its stack. The value is the name in messages."""

    SUPERVISORD = "supervisord"
    NGINX_KEEPER = "nginx keeper"
    NGINX_MASTER = "nginx"
    NGINX_WORKER = "nginx worker"
    WEB_KEEPER = "web keeper"
    GUNICORN = "gunicorn"
    MODEL = "model process"
    UPLOAD = "upload process"
    HOLDER = "socket holder"


_MODULES = {
    b"supervisor.supervisord": Role.SUPERVISORD,
    b"gunicorn": Role.GUNICORN,
    b"tableside.deployment.gunicorn": Role.GUNICORN,
    b"tableside.deployment.web_keeper": Role.WEB_KEEPER,
    b"tableside.deployment.nginx_keeper": Role.NGINX_KEEPER,
    b"tableside.deployment.socket_holder": Role.HOLDER,
    b"tableside.uploads.child": Role.UPLOAD,
}
"""The modules that Python runs with `-m`, and the roles of their processes."""
_MODEL_SCRIPT = b"/model_process/child/main.py"
_TITLES = {b"nginx: master process": Role.NGINX_MASTER, b"nginx: worker process": Role.NGINX_WORKER}


class StackProcess(NamedTuple):
    """A running process of a stack.

    started: the kernel's time of its start. Together with the pid it names one process for ever.
    words: its command line.
    """

    pid: int
    parent: int
    started: int
    role: Role
    words: tuple[bytes, ...]

    def __str__(self) -> str:
        return f"{self.role.value} (pid {self.pid})"


def find(run_dir: Path, *roles: Role) -> list[StackProcess]:
    """Return the processes of the stack in this run folder, ordered by pid; with `roles`, only those that have one.

    The calling process is not among them. Other users' processes are found only by root.
    """
    found = []
    for pid in _pids():
        process = _read(pid)
        if (
            process is not None
            and pid != os.getpid()
            and (not roles or process.role in roles)
            and _belongs(process, run_dir)
        ):
            found.append(process)
    return sorted(found)


def _pids() -> list[int]:
    return [int(name) for name in os.listdir(_PROC) if name.isdigit()]


def _read(pid: int) -> StackProcess | None:
    """Return a process, None if it is none of a stack, is a zombie or has ended."""
    try:
        words = tuple(_content(f"{_PROC}/{pid}/cmdline").rstrip(b"\0").split(b"\0"))
        role = _role(words)
        if role is None:
            return None
        fields = _content(f"{_PROC}/{pid}/stat").rpartition(b")")[2].split()
    except OSError:
        return None
    if fields[0] in (b"Z", b"X"):
        return None
    return StackProcess(pid, int(fields[1]), int(fields[19]), role, words)


def _content(path: str) -> bytes:
    """Read a file of /proc. There are hundreds of them, and pathlib takes three times as long. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(fd, 1 << 16):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(fd)


def _role(words: tuple[bytes, ...]) -> Role | None:
    if words[0].startswith(b"nginx: "):
        return next((role for title, role in _TITLES.items() if words[0].startswith(title)), None)
    if b"-m" in words[:-1]:
        return _MODULES.get(words[words.index(b"-m") + 1])
    return Role.MODEL if any(word.endswith(_MODEL_SCRIPT) for word in words) else None


def _belongs(process: StackProcess, run_dir: Path) -> bool:
    if process.role in (Role.NGINX_MASTER, Role.NGINX_WORKER):
        return _is_same(_PROC / f"{process.pid}/cwd", run_dir)
    try:
        return has_run_dir(process.pid, run_dir)
    except PermissionError:
        return False


def has_run_dir(pid: int, run_dir: Path) -> bool:
    """Return whether a process was started with this run folder in its environment, by whatever path.

    It has to be the same folder: in another container the same path may be another one. Raises PermissionError if the
    process belongs to another user.
    """
    try:
        variables = _content(f"{_PROC}/{pid}/environ").split(b"\0")
    except PermissionError:
        raise
    except OSError:
        return False
    start = os.fsencode(f"{RUN_DIR}=")
    paths = [os.fsdecode(line.removeprefix(start)) for line in variables if line.startswith(start)]
    return any(_is_same(_PROC / f"{pid}/root{path}", run_dir) for path in paths if path.startswith("/"))


def _is_same(path: Path, folder: Path) -> bool:
    try:
        return path.samefile(folder)
    except OSError:
        return False


def runs(process: StackProcess) -> bool:
    """Return whether this very process still runs; a zombie has ended."""
    return process_table.is_alive(Process(process.pid, process.started))


def send(process: StackProcess, number: signal.Signals) -> bool:
    """Signal this very process. Return whether it still ran."""
    return process_table.send(Process(process.pid, process.started), number)


def leaders(processes: Sequence[StackProcess]) -> list[StackProcess]:
    """Return the processes whose parent is none of these: masters, and workers that a killed master has left behind."""
    pids = {process.pid for process in processes}
    return [process for process in processes if process.parent not in pids]


def children(parent: int) -> list[int]:
    """Return the pids of the children of a process. It is faster than `find`, where the kernel lists them."""
    try:
        return [int(pid) for pid in (_PROC / f"{parent}/task/{parent}/children").read_bytes().split()]
    except OSError:
        found = map(_read, _pids())
        return [process.pid for process in found if process is not None and process.parent == parent]


def has_socket(process: StackProcess, inodes: Collection[int]) -> bool:
    """Return whether the process has one of these sockets open. inodes: their numbers in the kernel."""
    wanted = {f"socket:[{inode}]" for inode in inodes}
    with suppress(OSError):
        for entry in (_PROC / f"{process.pid}/fd").iterdir():
            with suppress(OSError):
                if os.readlink(entry) in wanted:
                    return True
    return False


def wait_until(is_done: Callable[[], bool], timeout_s: float, poll_s: float = 0.02) -> bool:
    """Call `is_done` until it returns True, for `timeout_s` seconds at most. Return its last result."""
    give_up_at_s = time.monotonic() + timeout_s
    while not is_done():
        if time.monotonic() >= give_up_at_s:
            return False
        time.sleep(poll_s)
    return True
