"""Socket holder: binds every listening socket once and passes it to other processes with SCM_RIGHTS (unix(7)).

gunicorn and nginx may end or restart without losing connections: the kernel queues new ones as long as this process
keeps the sockets open. Two holders run, and the processes that watch over gunicorn and nginx have the sockets too. A
holder that starts takes the sockets from any of them, and binds new sockets only if none of them runs. The sockets
therefore outlive both holders, and also supervisord: the holders of the next one get them from those that are left.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

from tableside.deployment.layout import ADMIN, CONTROL_SOCKET, DATA, WEB_SOCKET, addresses
from tableside.deployment.socket_rescue import rescue
from tableside.deployment.stack_processes import Role, find, leaders, runs, send, wait_until
from tableside.settings import Settings, load

BACKLOG = 4096
"""Connections that the kernel queues on each socket while nothing accepts them."""

_WATCH_S = 2.0
"""Seconds between two looks at supervisord, and, once it has been killed, at the servers that it has left behind."""
_SERVERS = (Role.NGINX_MASTER, Role.NGINX_WORKER, Role.NGINX_KEEPER, Role.GUNICORN, Role.WEB_KEEPER)


def bind(settings: Settings, rescued: Mapping[str, int] | None = None) -> dict[str, socket.socket]:
    """Bind both TCP addresses and both unix sockets, listen on them and return them by name.

    The unix sockets are files in the working directory. rescued: descriptors of sockets that listen already, which are
    returned with the others. Raises OSError if an address is in use.
    """
    held = {name: socket.socket(fileno=descriptor) for name, descriptor in (rescued or {}).items()}
    with ExitStack() as opened:  # closes them all if one cannot be bound
        for listener in held.values():
            opened.enter_context(listener)
        for name, (host, port) in addresses(settings).items():
            if name not in held:
                held[name] = opened.enter_context(_bind_tcp(host, port))
        for name in (WEB_SOCKET, CONTROL_SOCKET):
            if name not in held:
                held[name] = opened.enter_context(_bind_unix(name))
        for listener in held.values():
            listener.listen(BACKLOG)
            # nginx does not change the mode of an inherited socket and would block in accept()
            listener.setblocking(False)
        opened.pop_all()
    return held


def _bind_tcp(host: str, port: int) -> socket.socket:
    tcp = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        tcp.bind((host, port))
    except OSError:
        tcp.close()
        raise
    return tcp


def _bind_unix(name: str) -> socket.socket:
    with suppress(FileNotFoundError):
        os.unlink(name)
    unix = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    unix.bind(name)
    os.chmod(name, 0o600)
    return unix


def fetch(run_dir: Path, timeout_s: float = 30.0) -> dict[str, int]:
    """Return the sockets' file descriptors by name, from a holder or from any other process that offers them.

    Raises TimeoutError if nobody answers within `timeout_s`.
    """
    give_up_at_s = time.monotonic() + timeout_s
    while True:
        for path in sorted(run_dir.glob("sockets-*.sock")):  # the holders come first: sockets-0, sockets-1
            descriptors = _request_descriptors(path)
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
    if names and all(map(_listens, descriptors)):
        return dict(zip(json.loads(names), descriptors, strict=True))
    close(descriptors)
    return {}


def _listens(descriptor: int) -> bool:
    """Return whether the socket still listens: a stack that has ended has stopped that for every copy of it."""
    with socket.socket(fileno=os.dup(descriptor)) as listener:
        return bool(listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def close(descriptors: Iterable[int]) -> None:
    """Close the descriptors."""
    for descriptor in descriptors:
        os.close(descriptor)


def tcp_addresses(descriptors: Mapping[str, int]) -> dict[str, tuple[str, int]]:
    """Return host and port of the TCP sockets among these, by name."""
    found = {}
    for name in (DATA, ADMIN):
        with socket.socket(fileno=os.dup(descriptors[name])) as listener:
            host, port, *_ = listener.getsockname()
            found[name] = (host, port)
    return found


class Offer:
    """Gives copies of the listening sockets to every process that asks for them with `fetch`.

    The holders make one, and so does each other process that keeps the sockets open. As long as one of them lives, a
    holder that starts takes the sockets from it. Wait for a request with select(2), then call `answer`.
    """

    def __init__(self, run_dir: Path, name: str, descriptors: Mapping[str, int]) -> None:
        """Listen for requests. descriptors: of all sockets, by name. An earlier offer of this name gets no more."""
        self._path = run_dir / f"sockets-{name}.sock"
        self._names, self._descriptors = json.dumps(list(descriptors)).encode(), list(descriptors.values())
        self._requests, self._inode = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM), 0
        try:
            self._path.unlink(missing_ok=True)
            self._requests.bind(str(self._path))
            self._path.chmod(0o600)
            self._inode = self._path.stat().st_ino
        except OSError as problem:  # a full disk; the sockets are kept open all the same, and others offer them
            sys.stderr.write(f"tableside: {self._path}: cannot offer the sockets there: {problem.strerror}\n")
            self._requests.bind("")  # a name that the kernel makes up, and nobody asks at
        self._requests.listen(16)
        self._requests.setblocking(False)

    def fileno(self) -> int:
        """Return the descriptor that is readable when a process asks for the sockets."""
        return self._requests.fileno()

    def answer(self) -> None:
        """Give the sockets to the process that asks, if there is one."""
        with suppress(OSError):
            client, _ = self._requests.accept()
            with client:
                socket.send_fds(client, [self._names], self._descriptors)

    def close(self) -> None:
        """Give the sockets to nobody any more."""
        with suppress(OSError):
            if self._path.stat().st_ino == self._inode:
                self._path.unlink()
        self._requests.close()


def _bind_or_rescue(settings: Settings) -> dict[str, socket.socket]:
    """Return the listening sockets when nobody offers them: those that servers still have, and new ones for the rest.

    If servers have them and they cannot be copied, end these servers: nobody watches over them.
    """
    try:
        return bind(settings, rescue(settings))
    except OSError as problem:
        servers = leaders(find(settings.run_dir, Role.NGINX_MASTER, Role.NGINX_WORKER, Role.GUNICORN))
        if problem.errno != errno.EADDRINUSE or not servers:
            raise
        for process in servers:
            send(process, signal.SIGQUIT if process.role is not Role.GUNICORN else signal.SIGTERM)
        wait_until(lambda: not any(map(runs, servers)), settings.server.stop_wait_s)
        return bind(settings)


def hold(settings: Settings, number: int) -> None:
    """Take the sockets from a process that has them, or bind them, and pass them to every process that connects.

    Returns when supervisord has been killed and no server of the stack runs any more. number: 0 or 1, which of the two
    holders this is. Raises OSError if an address is in use.
    """
    run_dir, parent = settings.run_dir, os.getppid()
    os.chdir(run_dir)
    os.umask(0o077)
    predecessors = [process for process in find(run_dir, Role.HOLDER) if process.words[-1] == str(number).encode()]
    with open("sockets.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two holders that start at once must not both bind
        try:
            descriptors = fetch(run_dir, timeout_s=0)
        except TimeoutError:
            descriptors = {name: listener.detach() for name, listener in _bind_or_rescue(settings).items()}
        offer = Offer(run_dir, str(number), descriptors)
    for predecessor in predecessors:  # of a stack whose supervisord was killed
        send(predecessor, signal.SIGTERM)
    while os.getppid() == parent or find(run_dir, *_SERVERS):
        if select.select([offer], [], [], _WATCH_S)[0]:
            offer.answer()


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
