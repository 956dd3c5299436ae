"""Copies the stack's listening sockets out of nginx and gunicorn when nobody is left who would hand them on.

Socket holders and keepers offer the sockets. If all of them were killed at once, the servers still have the sockets and
serve, but do not give them away. pidfd_getfd(2) copies a descriptor of another process. It needs the same right as a
debugger: a process of the same user, unless the host restricts that (Yama's ptrace_scope, seccomp in a container).
"""

from __future__ import annotations

import ctypes
import os
import socket
from contextlib import suppress
from pathlib import Path

from tableside.deployment.layout import CONTROL_SOCKET, WEB_SOCKET, socket_addresses
from tableside.deployment.stack_processes import Role, StackProcess, find
from tableside.settings import Settings

_SYS_PIDFD_GETFD = 438
"""The number of the system call, on every architecture."""


def rescue(settings: Settings) -> dict[str, int]:
    """Return descriptors of the listening sockets that servers of this run folder have, by name.

    Sockets that no server has, or that may not be copied, are missing.
    """
    wanted: dict[object, str] = {address: name for name, address in socket_addresses(settings).items()}
    wanted |= {name: name for name in (WEB_SOCKET, CONTROL_SOCKET)}
    found: dict[str, int] = {}
    for process in find(settings.run_dir, Role.NGINX_MASTER, Role.NGINX_WORKER, Role.GUNICORN):
        for descriptor in _copies(process, wanted, found):
            os.close(descriptor)  # of a socket that was found already
    return found


def _copies(process: StackProcess, wanted: dict[object, str], found: dict[str, int]) -> list[int]:
    """Add the wanted sockets of a process to `found`. Return copies that are not needed."""
    spare = []
    try:
        pidfd = os.pidfd_open(process.pid)
        numbers = [int(entry.name) for entry in Path(f"/proc/{process.pid}/fd").iterdir() if _is_socket(entry)]
    except OSError:
        return []
    for number in numbers:
        copy = ctypes.CDLL(None, use_errno=True).syscall(_SYS_PIDFD_GETFD, pidfd, number, 0)
        if copy < 0:
            continue
        name = wanted.get(_listening_address(copy), "")
        if name and name not in found:
            found[name] = copy
        else:
            spare.append(copy)
    os.close(pidfd)
    return spare


def _is_socket(entry: Path) -> bool:
    with suppress(OSError):
        return os.readlink(entry).startswith("socket:")
    return False


def _listening_address(descriptor: int) -> object:
    """Return the address of a socket that listens: host and port, or the path of a unix socket; else None."""
    with socket.socket(fileno=os.dup(descriptor)) as copy:
        if not copy.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return None
        address = copy.getsockname()
    return address if isinstance(address, str) else address[:2]
