"""The web keeper's socket in the run folder: `tableside restart` asks there for a new instance, and waits for it.

The folder is for this user only, and so is the socket. It needs no space on the disk.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from tableside.deployment.layout import supervisorctl
from tableside.deployment.releases import Release
from tableside.errors import StackError

NAME = "web_keeper.sock"
CLIENT_TIMEOUT_S = 1.0
"""How long a client may take to send its request, which is one line."""
PATIENCE_S, RETRY_S = 60.0, 0.1
_MAX_BYTES = 16384


class Request(msgspec.Struct, frozen=True):
    """A request for a new instance. release: the one to run in; None for the running one, as it is on the disk now."""

    release: Release | None = None


class Update(msgspec.Struct, frozen=True, omit_defaults=True):
    """A line of the answer. done: whether it is the last one. ok: whether the new instance serves."""

    text: str
    done: bool = False
    ok: bool = False


class Reception:
    """The keeper's side of the socket. Raises OSError if it cannot listen."""

    def __init__(self, run_dir: Path) -> None:
        path = run_dir / NAME
        with suppress(FileNotFoundError):
            path.unlink()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        path.chmod(0o600)
        self._listener.listen(8)
        self._listener.setblocking(False)
        self._clients: list[socket.socket] = []

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._listener.fileno()

    def requests(self) -> Iterator[Request]:
        """Yield the requests that have arrived. Who asked before is told that this is another one."""
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            client.settimeout(CLIENT_TIMEOUT_S)
            try:
                request = msgspec.json.decode(_read_line(client), type=Request)
            except (OSError, msgspec.DecodeError):
                client.close()
                continue
            self.finish(False, "another restart was asked for meanwhile")
            self._clients.append(client)
            yield request

    def tell(self, text: str) -> None:
        """Send a line to everybody who waits."""
        self._send(Update(text))

    def finish(self, ok: bool, text: str) -> None:
        """Send the last line to everybody who waits."""
        self._send(Update(text, True, ok))
        for client in self._clients:
            client.close()
        self._clients.clear()

    def _send(self, update: Update) -> None:
        line = msgspec.json.encode(update) + b"\n"
        for client in list(self._clients):
            try:
                client.sendall(line)
            except OSError:
                client.close()
                self._clients.remove(client)

    def close(self) -> None:
        """Close the socket and every connection. The file stays: another process may have made it anew."""
        for each in (self._listener, *self._clients):
            each.close()
        self._clients.clear()


def _read_line(client: socket.socket) -> bytes:
    line = b""
    while not line.endswith(b"\n") and len(line) < _MAX_BYTES:
        chunk = client.recv(_MAX_BYTES)
        if not chunk:
            break
        line += chunk
    return line


def ask(run_dir: Path, request: Request, patience_s: float = PATIENCE_S) -> Iterator[Update]:
    """Send a request to the keeper of this run folder and yield the lines of its answer.

    patience_s: how long it may take until a keeper answers; one that executes itself anew does not for a moment.
    Raises StackError if no keeper answers, or if it ends before its last line.
    """
    give_up_at_s = time.monotonic() + patience_s
    while True:
        began = False
        try:
            for update in _exchange(run_dir, request):
                began = True
                yield update
                if update.done:
                    return
            problem = "it ended before it answered"
        except OSError as error:
            problem = str(error.strerror or error)
        if began or time.monotonic() >= give_up_at_s:
            raise StackError(
                f"no answer from the web keeper in {run_dir} ({problem}): see log/web.log there, or start it with "
                f"`tableside run` or `{supervisorctl(run_dir, 'start', 'web')}`"
            )
        time.sleep(RETRY_S)


def _exchange(run_dir: Path, request: Request) -> Iterator[Update]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
        peer.connect(str(run_dir / NAME))
        peer.sendall(msgspec.json.encode(request) + b"\n")
        with peer.makefile("rb") as lines:
            for line in lines:
                yield msgspec.json.decode(line, type=Update)
