"""The socket holder: binds every listening socket once and hands it out over SCM_RIGHTS (unix(7)).

Whoever serves a socket may die or restart; the kernel goes on queueing connections, because this process holds it open.
Two holders run. Each starts by asking the other, so the death of one loses nothing; only both gone means binding anew.
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
from contextlib import suppress
from pathlib import Path

from tableside.deployment.layout import ADMIN, CONTROL_SOCKET, DATA, WEB_SOCKET, addresses
from tableside.settings import Settings, load

BACKLOG = 4096
_PR_SET_PDEATHSIG = 1
_HOLDERS = (0, 1)


def bind(settings: Settings) -> dict[str, socket.socket]:
    """Listen on both TCP addresses and both unix sockets; unix paths are relative to the working directory."""
    held: dict[str, socket.socket] = {}
    for name, (host, port) in addresses(settings).items():
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        tcp = socket.socket(family, socket.SOCK_STREAM)
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        tcp.bind((host, port))
        held[name] = tcp
    for name in (WEB_SOCKET, CONTROL_SOCKET):
        with suppress(FileNotFoundError):
            os.unlink(name)
        unix = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        unix.bind(name)
        os.chmod(name, 0o600)
        held[name] = unix
    for listener in held.values():
        listener.listen(BACKLOG)
        listener.setblocking(False)  # nginx leaves an inherited socket as it is and would freeze in accept()
    return held


def fetch(run_dir: Path, timeout_s: float = 30.0) -> dict[str, int]:
    """The sockets' descriptors from any holder, by name. Raises TimeoutError when none answers in time."""
    give_up_at_s = time.monotonic() + timeout_s
    while True:
        for number in _HOLDERS:
            found = _request_descriptors(run_dir / f"sockets-{number}.sock")
            if found:
                return found
        if time.monotonic() >= give_up_at_s:
            raise TimeoutError(f"no socket holder answers in {run_dir}")
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
    """Get the sockets (from the other holder, else by binding) and hand them out until killed."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # goes with supervisord, else it keeps the ports
    run_dir = settings.run_dir
    os.chdir(run_dir)
    os.umask(0o077)
    with open("sockets.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two holders that start at once must not both bind
        descriptors = _request_descriptors(run_dir / f"sockets-{1 - number}.sock")
        held = (
            bind(settings) if not descriptors else {name: socket.socket(fileno=fd) for name, fd in descriptors.items()}
        )
        own = f"sockets-{number}.sock"
        with suppress(FileNotFoundError):
            os.unlink(own)
        door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        door.bind(own)
        door.listen(16)
    names = json.dumps(list(held)).encode()
    while True:
        client, _ = door.accept()
        with client, suppress(OSError):
            socket.send_fds(client, [names], [listener.fileno() for listener in held.values()])


def pass_on(descriptors: list[int], first: int) -> None:
    """Move the descriptors to `first`, `first + 1`, ..., inheritable, for the program that is executed next."""
    parked = [fcntl.fcntl(fd, fcntl.F_DUPFD, 100) for fd in descriptors]
    for at, fd in enumerate(parked):
        os.dup2(fd, first + at, inheritable=True)
    os.closerange(first + len(parked), 256)


def for_gunicorn(descriptors: dict[str, int], behind_nginx: bool) -> list[int]:
    """What gunicorn listens on: data first, control second."""
    names = (WEB_SOCKET, CONTROL_SOCKET) if behind_nginx else (DATA, ADMIN)
    return [descriptors[name] for name in names]


if __name__ == "__main__":
    hold(load(), int(sys.argv[1]))
