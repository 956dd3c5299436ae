"""The model processes of every environment that a worker, a preflight or a command uses."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping

from tableside.model_process.known_environments import known, process_count, socket_path, stamp, unknown
from tableside.model_process.process_pool import PrivateProcess, Processes, SupervisedProcesses
from tableside.model_process.remote_runtime import RemoteRuntime
from tableside.settings import Environment, Settings

TELL_EVERY_S = 1.0


class Environments:
    """Gives out the processes of each environment by name. One object for each worker, preflight or command."""

    def __init__(self, find: Callable[[], Mapping[str, Environment]], start: Callable[[str, Environment], Processes]):
        self._find = find
        self._start = start
        self._started: dict[tuple[str, str], Processes] = {}
        self._next_s = 0.0

    def processes(self, name: str) -> Processes:
        """Return the processes of an environment. Raises ContractBroken if it does not exist on this host."""
        found = self._find()
        if name not in found:
            raise unknown(name, found)
        key = (name, found[name].python)
        if key not in self._started:
            self._started[key] = self._start(name, found[name])
        return self._started[key]

    def stamp(self, name: str) -> str:
        """Return the name with a text that changes when another interpreter, or other packages, are installed."""
        environment = self._find().get(name)
        return name if environment is None else f"{name}|{stamp(environment)}"

    def serve(self, runtimes: Iterable[object]) -> None:
        """Tell the model processes which versions are served: those of the RemoteRuntimes among these runtimes.

        It does nothing within TELL_EVERY_S after the last time.
        """
        now_s = time.monotonic()
        if now_s < self._next_s or not self._started:
            return
        self._next_s = now_s + TELL_EVERY_S
        remote = [runtime for runtime in runtimes if isinstance(runtime, RemoteRuntime)]
        for processes in self._started.values():
            if isinstance(processes, SupervisedProcesses):
                processes.serve({runtime.key for runtime in remote if runtime.caller is processes})

    def close(self) -> None:
        """Close the connections to all processes that have been given out, and end private ones."""
        for processes in self._started.values():
            processes.close()
        self._started.clear()

    @property
    def in_use(self) -> list[Processes]:
        """The processes that have been given out."""
        return list(self._started.values())


def supervised(settings: Settings, worker: Callable[[], int]) -> Environments:
    """Return the environments of a worker, whose model processes supervisord runs.

    worker: the number of this worker's slot; workers with different numbers prefer different processes.
    """

    def start(name: str, environment: Environment) -> Processes:
        count = process_count(settings, environment)
        paths = [str(socket_path(settings.run_dir, name, number)) for number in range(count)]
        return SupervisedProcesses(name, paths, worker(), settings.server.request_timeout_s)

    return Environments(lambda: known(settings), start)


def private(environments: Mapping[str, Environment], call_timeout_s: float) -> Environments:
    """Return environments whose processes are started for this process alone, and end with it."""

    def start(name: str, environment: Environment) -> Processes:
        return PrivateProcess(name, environment.python, call_timeout_s)

    return Environments(lambda: environments, start)
