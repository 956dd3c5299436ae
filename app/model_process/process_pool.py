"""The model processes of one environment, as a worker calls them, and a process that its starter has for itself."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from tableside.contracts.schema import Contract
from tableside.errors import ContractBroken, DeadlineExceeded, FailureKind, ModelNotReady
from tableside.model_process.child import wire
from tableside.model_process.child.wire import Buffer, Message, WireError
from tableside.model_process.connection import Connection, ProcessEnded
from tableside.model_process.known_environments import CHILD, child_environ
from tableside.model_process.remote_runtime import (
    NO_CODE,
    Caller,
    RemoteRuntime,
    error_of,
    exchange,
    key_of,
    load_request,
)
from tableside.process import plain_sockets

MAX_DEATHS = 3
"""A request that this many processes have read, and then ended, has probably ended them. It fails."""
MAX_IDLE = 16
"""Idle connections that one worker keeps open to one process."""
TELL_WITHIN_S = 1.0
LOOK_EVERY_S = 0.02
"""How often a request looks for a process to answer it, while all of them are restarting."""
HELLO: tuple[Buffer, ...] = tuple(wire.Writer().message({"op": "hello"}))


class Processes(Caller, Protocol):
    """Model processes of one environment that can load versions."""

    name: str

    def versions_of_libraries(self, give_up_at_s: float) -> Mapping[str, str]:
        """Return the versions of Python and of the libraries in the environment."""

    def load(self, request: Sequence[Buffer], give_up_at_s: float) -> None:
        """Load a version. Raises ContractBroken if that fails."""

    def close(self) -> None:
        """Close the connections, and end a process that is private."""


class SupervisedProcesses:
    """The processes that supervisord keeps running for one environment. Native threads and greenlets may use it.

    A request goes to the process of this worker; while that one restarts, to any other; and while none runs it waits. A
    request whose process ends before it answers is sent again, because a prediction changes nothing.
    """

    def __init__(self, name: str, paths: Sequence[str], first: int, call_timeout_s: float) -> None:
        """paths: the sockets of the processes. first: the index of the process that this worker prefers."""
        self.name = name
        self.call_timeout_s = call_timeout_s
        self.retries = 0
        self.setbacks = 0
        self._down_since_s: float | None = None
        at = first % len(paths)
        self._paths = [*paths[at:], *paths[:at]]
        self._idle: dict[str, list[Connection]] = {path: [] for path in paths}
        self._told: dict[str, tuple[frozenset[str], Connection]] = {}

    def call(
        self, request: Sequence[Buffer], load: Sequence[Buffer], give_up_at_s: float, is_brief: bool = False
    ) -> Message:
        """Send a request, after `load` if the process does not have the version, and return the answer.

        is_brief: as for `Connection.exchange`. Raises DeadlineExceeded at `give_up_at_s`, ModelNotReady if no process
        has been running until then or a new one cannot load the version, and ProcessEnded if MAX_DEATHS processes have
        ended after they had read this request.
        """
        began_s, deaths = time.monotonic(), 0
        while True:
            path, connection = self._connect(give_up_at_s)
            try:
                answer = exchange(connection, request, load, give_up_at_s, is_brief)
            except TimeoutError:
                connection.close()
                raise DeadlineExceeded(give_up_at_s - began_s) from None
            except ProcessEnded as ended:
                connection.close()
                if connection.has_answered and not ended.has_read:
                    continue  # the process closed it while it was idle
                deaths += ended.has_read
                self.retries += 1
                self.setbacks += 1
                if deaths >= MAX_DEATHS:
                    raise
                if time.monotonic() + LOOK_EVERY_S >= give_up_at_s:
                    raise DeadlineExceeded(give_up_at_s - began_s) from None
                plain_sockets.pause(LOOK_EVERY_S)  # a killed process accepts connections until its memory is freed
            except ContractBroken as problem:
                connection.close()
                raise ModelNotReady(f"a model process that has started cannot load the version: {problem}") from problem
            except BaseException:
                connection.close()
                raise
            else:
                self._keep(path, connection)
                return answer

    def versions_of_libraries(self, give_up_at_s: float) -> Mapping[str, str]:
        """Return the versions of Python and of the libraries in the environment. Raises what `call` raises.

        While no process runs, all that wait here wait together as long as one would: the second version of a dead
        environment does not wait once more. A load asks for the versions first.
        """
        waited_s = 0.0 if self._down_since_s is None else time.monotonic() - self._down_since_s
        answer = self.call(HELLO, (), give_up_at_s - waited_s)
        found: Mapping[str, str] = answer.header["environment"]
        return found

    def load(self, request: Sequence[Buffer], give_up_at_s: float) -> None:
        """Load a version in a process, and try to load it in the others, so that each can stand in for another.

        Raises ContractBroken if the first one refuses it, and what `call` raises.
        """
        answer = self.call(request, (), give_up_at_s)
        if "ok" not in answer.header:
            raise error_of(answer.header)
        for path in self._paths[1:]:
            with suppress(OSError, ProcessEnded, TimeoutError):
                connection = self._open(path)
                if connection is not None:
                    connection.exchange(request, give_up_at_s)
                    self._keep(path, connection)

    def serve(self, keys: Collection[str]) -> None:
        """Tell each process which versions this worker serves; it drops those that no worker serves any more.

        Call it often: it sends something only to a process that does not know yet. A connection of its own is kept to
        each, because a process forgets what a worker serves when that ends. Call it from one thread only.
        """
        wanted = frozenset(keys)
        for path in self._paths:
            told = self._told.get(path)
            if told is None or told[0] != wanted or told[1].is_closed():
                self._tell(path, wanted)

    def _tell(self, path: str, keys: frozenset[str]) -> None:
        told = self._told.pop(path, None)
        connection = told[1] if told is not None and not told[1].is_closed() else None
        with suppress(OSError, ProcessEnded, WireError):
            connection = connection or Connection(plain_sockets.connect(path))
            connection.exchange(
                wire.Writer().message({"op": "serve", "keys": sorted(keys)}), time.monotonic() + TELL_WITHIN_S
            )
            self._told[path] = (keys, connection)
            return
        if connection is not None:
            connection.close()

    def running(self) -> int:
        """Return how many of the processes accept a connection now."""
        count = 0
        for path in self._paths:
            with suppress(OSError):
                plain_sockets.connect(path).close()
                count += 1
        if count:
            self._down_since_s = None
        return count

    def close(self) -> None:
        """Close the idle connections."""
        for _, connection in self._told.values():
            connection.close()
        self._told.clear()
        for idle in self._idle.values():
            while idle:
                idle.pop().close()

    def _connect(self, give_up_at_s: float) -> tuple[str, Connection]:
        while True:
            for path in self._paths:
                connection = self._open(path)
                if connection is not None:
                    self._down_since_s = None
                    return path, connection
            if self._down_since_s is None:
                self._down_since_s = time.monotonic()
            if time.monotonic() + LOOK_EVERY_S >= give_up_at_s:
                raise ModelNotReady(
                    f"no model process of the environment {self.name!r} is running; see `supervisorctl "
                    f"status` and log/model_{self.name}.log in the run folder"
                )
            self.setbacks += 1
            plain_sockets.pause(LOOK_EVERY_S)

    def _open(self, path: str) -> Connection | None:
        """An idle connection to a process, or a new one; None if the process does not listen."""
        idle = self._idle[path]
        if idle:
            with suppress(IndexError):  # another thread took the last one
                return idle.pop()
        try:
            return Connection(plain_sockets.connect(path))
        except OSError:
            return None

    def _keep(self, path: str, connection: Connection) -> None:
        idle = self._idle[path]
        if len(idle) < MAX_IDLE:
            idle.append(connection)
        else:
            connection.close()


class PrivateProcess:
    """A model process that this process has for itself; it ends with it. For preflights, `publish` and `verify`."""

    def __init__(self, name: str, python: str, call_timeout_s: float) -> None:
        """Start the process. Raises ContractBroken if the interpreter cannot be started."""
        self.name = name
        self.call_timeout_s = call_timeout_s
        self.setbacks = 0
        ours, theirs = socket.socketpair()
        try:
            self._process = subprocess.Popen(
                [python, "-I", str(CHILD), "--fd", str(theirs.fileno())], pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL, env=child_environ(os.environ),
            )  # fmt: skip
        except OSError as problem:
            ours.close()
            raise ContractBroken(
                f"the environment {name!r} cannot be used: {python} cannot be started: {problem.strerror}",
                FailureKind.ENVIRONMENT,
            ) from problem
        finally:
            theirs.close()
        self._connection = Connection(plain_sockets.adopt(ours.detach()))
        self._lock = threading.Lock()

    def call(
        self, request: Sequence[Buffer], load: Sequence[Buffer], give_up_at_s: float, is_brief: bool = False
    ) -> Message:
        """Send a request and return the answer. Raises DeadlineExceeded, and ContractBroken if the process ends."""
        try:
            with self._lock:
                return exchange(self._connection, request, load, give_up_at_s, is_brief)
        except TimeoutError:
            raise DeadlineExceeded(self.call_timeout_s) from None
        except ProcessEnded as problem:
            code = self._process.wait(10)
            raise ContractBroken(
                f"the model process of the environment {self.name!r} ended with the exit code {code}",
                FailureKind.CRASHED,
            ) from problem

    def versions_of_libraries(self, give_up_at_s: float) -> Mapping[str, str]:
        """Return the versions of Python and of the libraries in the environment. Raises what `call` raises."""
        found: Mapping[str, str] = self.call(HELLO, (), give_up_at_s).header["environment"]
        return found

    def load(self, request: Sequence[Buffer], give_up_at_s: float) -> None:
        """Load a version. Raises ContractBroken if that fails, and what `call` raises."""
        answer = self.call(request, (), give_up_at_s)
        if "ok" not in answer.header:
            raise error_of(answer.header)

    def close(self) -> None:
        """End the process."""
        self._connection.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def load_version(
    processes: Processes, contract: Contract, artifact: Path, trusted: Sequence[str], give_up_at_s: float,
    code: Mapping[str, bytes] = NO_CODE, libraries: Mapping[str, str] | None = None, in_memory: bool = False,
) -> RemoteRuntime:  # fmt: skip
    """Load a published version in its environment and return a runtime for it. Raises what `Processes.load` raises.

    code, libraries, in_memory: as for `load_request`.
    """
    key = key_of(contract)
    request = load_request(key, artifact, contract.artifact.sha256, contract.input, trusted, code, libraries, in_memory)
    processes.load(request, give_up_at_s)
    return RemoteRuntime(processes, key, request)
