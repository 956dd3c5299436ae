"""The socket side of a model process: one thread for each connection, draining, and a watch on calls that hang.

Runs in other environments: Python 3.8, no import of Tableside (see tableside.model_process.child.wire).
"""

from __future__ import annotations

import faulthandler
import math
import os
import signal
import socket
import threading
import time
from typing import TYPE_CHECKING, Any, Optional

if TYPE_CHECKING or __package__:
    from tableside.model_process.child import wire
    from tableside.model_process.child.loaded_versions import Versions
    from tableside.model_process.child.report import say
    from tableside.model_process.child.succession import Successor, Turn
else:
    import wire
    from loaded_versions import Versions
    from report import say
    from succession import Successor, Turn

BACKLOG = 512
WATCH_EVERY_S = 0.25
LOOK_EVERY_S = 1.0
"""How often the process looks for a call that hangs."""
_FIRST_READ_BYTES = 16384
_read_header = wire.HeaderReader(wire.read_header)


class Server:
    """Listens on a unix socket and answers each connection in a thread of its own."""

    def __init__(self, path: str, versions: Versions, call_timeout_s: float, successor: Successor) -> None:
        """call_timeout_s: a call that takes longer ends this process, so that supervisord starts another; 0: never.
        successor: says when this process is no longer needed.
        """
        self._path = path
        self._versions = versions
        self._call_timeout_s = call_timeout_s
        self._successor = successor
        self._draining = False
        self._lock = threading.Lock()
        self._connections: set[socket.socket] = set()
        self._calls: dict[int, float] = {}
        self._next_look_s = 0.0
        self._listener: socket.socket | None = None
        self._inode = 0
        self._wake_read, self._wake_write = os.pipe()

    def drain(self, *_: Any) -> None:
        """Take no new connections, finish the calls that run, and end. A signal handler."""
        self._draining = True
        os.write(self._wake_write, b"x")

    def run(self, turn: Optional[Turn] = None) -> None:
        """Load the versions of earlier processes, listen, and answer until `drain`.

        turn: ends when this process listens and its predecessor has ended.
        """
        # A signal just before `os.read` runs its handler only after that; into this pipe it writes at once.
        os.set_blocking(self._wake_write, False)
        signal.set_wakeup_fd(self._wake_write)
        started_s = time.monotonic()
        count = self._versions.load_state()
        if self._draining:
            return
        self._listener, self._inode = _listen(self._path)
        say("model_process_listens", versions=count, seconds=round(time.monotonic() - started_s, 3))
        if turn is not None:
            threading.Thread(target=turn.finish, daemon=True).start()
        threading.Thread(target=self._watch, daemon=True).start()
        threading.Thread(target=self._accept, daemon=True).start()
        while not self._draining:
            os.read(self._wake_read, 1)
        self._finish()
        say("model_process_ends")

    def _accept(self) -> None:
        assert self._listener is not None
        while not self._draining:
            try:
                self._begin(self._listener.accept()[0])
            except OSError:
                return

    def _begin(self, connection: socket.socket) -> None:
        connection.setblocking(True)
        with self._lock:
            self._connections.add(connection)
        threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        me = threading.get_ident()
        try:
            while True:
                message = receive(connection)
                if message is None:
                    return
                self._calls[me] = time.monotonic() if message.header.get("op") == "run" else math.inf
                try:
                    answer(connection, message, self._versions, me)
                finally:
                    del self._calls[me]
        except OSError:
            pass  # the worker has closed the connection, for example because the deadline has passed
        finally:
            self._versions.forget(me)
            with self._lock:
                self._connections.discard(connection)
            connection.close()

    def _finish(self) -> None:
        """Close the listener, answer the requests that have been sent, and close the connections.

        A worker that sends the next one finds its connection closed, and sends it to another process.
        """
        assert self._listener is not None
        self._unlink()
        self._accept_last(self._listener)
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            try:
                connection.shutdown(socket.SHUT_RD)  # what has arrived before can still be read
            except OSError:
                continue
        while self._connections:
            time.sleep(0.005)

    def _accept_last(self, listener: socket.socket) -> None:
        """Accept the connections that were made before the name of the socket was taken away."""
        listener.setblocking(False)
        try:
            while True:
                self._begin(listener.accept()[0])
        except OSError:
            listener.close()

    def _unlink(self) -> None:
        """Remove the socket's name, unless another process has taken the name already."""
        try:
            if not self._successor.is_replaced(self._inode):
                os.unlink(self._path)
        except OSError:
            pass

    def _watch(self) -> None:
        """End the process if a call hangs or when it is no longer needed, and drop versions that no worker serves.

        faulthandler's timer ends it even if a call holds the interpreter's lock, so that this thread cannot run.
        """
        while True:
            self._end_if_hung()
            if not self._draining:
                self._versions.drop_unserved()
                reason = self._successor.reason_to_end(self._inode, bool(self._connections))
                if reason:
                    say("model_process_not_needed", reason=reason)
                    self.drain()
            time.sleep(WATCH_EVERY_S)

    def _end_if_hung(self) -> None:
        limit_s, now_s = self._call_timeout_s, time.monotonic()
        if not limit_s or now_s < self._next_look_s:
            return
        self._next_look_s = now_s + LOOK_EVERY_S
        faulthandler.dump_traceback_later(limit_s + 10.0, exit=True)
        oldest_s = min(list(self._calls.values()), default=now_s)
        if now_s - oldest_s > limit_s:
            faulthandler.dump_traceback(all_threads=True)
            say("model_process_hung", limit_s=limit_s)
            os._exit(70)


def serve_connection(fd: int, versions: Versions) -> None:
    """Answer the requests of one connected socket until its other end closes."""
    with socket.socket(fileno=fd) as connection:
        connection.setblocking(True)  # it is not, if a process that gevent has patched has made it
        try:
            message = receive(connection)
            while message is not None:
                answer(connection, message, versions)
                message = receive(connection)
        except OSError:
            return


def answer(connection: socket.socket, message: wire.Message, versions: Versions, asker: int = 0) -> None:
    """Answer one request. asker: as for Versions.answer. Raises OSError if the worker has gone."""
    writer = wire.Writer()
    header = versions.answer(message, writer, asker)
    for buffer in writer.message(header):
        connection.sendall(buffer)


def receive(connection: socket.socket) -> wire.Message | None:
    """Return the next request; None if the worker has closed the connection. Raises OSError for a broken one."""
    start = connection.recv(_FIRST_READ_BYTES)
    try:
        found = wire.whole(start, _read_header)
    except wire.WireError as problem:
        raise OSError(str(problem))
    return found if found is not None else _receive_rest(connection, start)


def _receive_rest(connection: socket.socket, start: bytes) -> Optional[wire.Message]:
    """Return the request that begins with `start`, which is not all of it."""
    while len(start) < wire.PREFIX.size:
        more = connection.recv(_FIRST_READ_BYTES)
        if not start + more or not more:
            return None
        start += more
    try:
        header_bytes, payload_bytes = wire.sizes(start)
        rest = _rest(connection, start, wire.PREFIX.size + header_bytes)
        header = wire.read_header(rest[0])
    except wire.WireError as problem:
        raise OSError(str(problem))
    payload = bytearray(payload_bytes)
    arrived = rest[1]
    payload[: len(arrived)] = arrived
    _fill(connection, memoryview(payload)[len(arrived) :])
    return wire.Message(header, payload)


def _rest(connection: socket.socket, start: bytes, header_end: int) -> Any:
    """Return the header's bytes and what has arrived of the payload."""
    if len(start) >= header_end:
        return start[wire.PREFIX.size : header_end], start[header_end:]
    header = bytearray(header_end - wire.PREFIX.size)
    arrived = start[wire.PREFIX.size :]
    header[: len(arrived)] = arrived
    _fill(connection, memoryview(header)[len(arrived) :])
    return header, b""


def _fill(connection: socket.socket, view: memoryview) -> None:
    while len(view):
        count = connection.recv_into(view)
        if not count:
            raise OSError("the connection ended within a message")
        view = view[count:]


def _listen(path: str) -> tuple[socket.socket, int]:
    """Listen on the path and return the socket and its inode. The name is taken in one step, so that a worker always
    finds a process that listens, the last one or this one.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    draft = path + "~"
    if os.path.exists(draft):
        os.unlink(draft)
    listener.bind(draft)
    os.chmod(draft, 0o600)
    listener.listen(BACKLOG)
    inode = os.stat(draft).st_ino
    os.rename(draft, path)
    return listener, inode
