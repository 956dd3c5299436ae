"""Socket holder: binds every listening socket once and passes it to other processes with SCM_RIGHTS (unix(7)).

gunicorn and nginx may end or restart without losing connections: the kernel queues new ones as long as this process
keeps the sockets open. Two holders run. A holder that starts takes the sockets from the other one, so the sockets stay
open when one holder ends. A holder binds new sockets only if the other one is not running.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import signal
import socket
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path

from tableside.deployment.layout import ADMIN, CONTROL_SOCKET, DATA, WEB_SOCKET, addresses
from tableside.settings import Settings, load

BACKLOG = 4096
"""Connections that the kernel queues on each socket while nothing accepts them."""

_PR_SET_PDEATHSIG = 1
_HOLDERS = (0, 1)


def bind(settings: Settings) -> dict[str, socket.socket]:
    """Bind both TCP addresses and both unix sockets, listen on them and return them by name.

    The unix sockets are files in the working directory. Raises OSError if an address is in use.
    """
    held: dict[str, socket.socket] = {}
    with ExitStack() as opened:  # closes them all if one cannot be bound
        for name, (host, port) in addresses(settings).items():
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            tcp = opened.enter_context(socket.socket(family, socket.SOCK_STREAM))
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tcp.bind((host, port))
            held[name] = tcp
        for name in (WEB_SOCKET, CONTROL_SOCKET):
            with suppress(FileNotFoundError):
                os.unlink(name)
            unix = opened.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            unix.bind(name)
            os.chmod(name, 0o600)
            held[name] = unix
        for listener in held.values():
            listener.listen(BACKLOG)
            listener.setblocking(
                False
            )  # nginx does not change the mode of an inherited socket and would block in accept()
        opened.pop_all()
    return held


def fetch(run_dir: Path, timeout_s: float = 30.0) -> dict[str, int]:
    """Return the sockets' file descriptors by name, from any holder.

    Raises TimeoutError if no holder answers within `timeout_s`.
    """
    give_up_at_s = time.monotonic() + timeout_s
    while True:
        for number in _HOLDERS:
            descriptors = _request_descriptors(run_dir / f"sockets-{number}.sock")
            if descriptors:
                return descriptors
        if time.monotonic() >= give_up_at_s:
            raise TimeoutError(
                f"no socket holder in {run_dir} answered within {timeout_s:g} s; see log/sockets.log there"
            )
        time.sleep(0.05)


def _request_descriptors(path: Path) -> dict[str, int]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
        peer.settimeout(2)
        try:
            peer.connect(str(path))
            names, descriptors, _, _ = socket.recv_fds(peer, 4096, 16)
        except OSError:
            return {}
    return dict(zip(json.loads(names), descriptors, strict=True)) if names else {}


def hold(settings: Settings, number: int) -> None:
    """Take the sockets from the other holder, or bind them, and pass them to every process that connects.

    Does not return. number: 0 or 1, which of the two holders this is. Raises OSError if an address is in use.
    """
    ctypes.CDLL(None).prctl(
        _PR_SET_PDEATHSIG, signal.SIGKILL
    )  # end with supervisord: a holder left behind would keep the ports
    run_dir = settings.run_dir
    os.chdir(run_dir)
    os.umask(0o077)
    with open("sockets.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two holders that start at once must not both bind
        descriptors = _request_descriptors(run_dir / f"sockets-{1 - number}.sock")
        held = (
            bind(settings) if not descriptors else {name: socket.socket(fileno=fd) for name, fd in descriptors.items()}
        )
        path = f"sockets-{number}.sock"
        with suppress(FileNotFoundError):
            os.unlink(path)
        requests = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        requests.bind(path)
        requests.listen(16)
    names = json.dumps(list(held)).encode()
    while True:
        client, _ = requests.accept()
        with client, suppress(OSError):
            socket.send_fds(client, [names], [listener.fileno() for listener in held.values()])


def pass_on(descriptors: list[int], first: int) -> None:
    """Renumber the descriptors to `first`, `first + 1`, ... and make the program that is executed next inherit them.

    Every other descriptor from there to 255 is closed.
    """
    # The descriptors are first copied above 100, because a target number may be in use by another of them.
    copies = [fcntl.fcntl(fd, fcntl.F_DUPFD, 100) for fd in descriptors]
    for at, fd in enumerate(copies):
        os.dup2(fd, first + at, inheritable=True)
    os.closerange(first + len(copies), 256)


def for_gunicorn(descriptors: dict[str, int], behind_nginx: bool) -> list[int]:
    """Return the descriptors that gunicorn listens on: data plane first, control plane second.

    Behind nginx these are the unix sockets; without nginx they are the TCP sockets.
    """
    names = (WEB_SOCKET, CONTROL_SOCKET) if behind_nginx else (DATA, ADMIN)
    return [descriptors[name] for name in names]


if __name__ == "__main__":
    hold(load(), int(sys.argv[1]))
