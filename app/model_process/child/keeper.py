"""The keeper of a model process: the small process that supervisord runs, so that a restart takes nothing away.

The model process is its child. When supervisord stops the keeper, as for a restart, the model process goes on serving
until its successor listens; it asks supervisord itself whether one comes (socket_server). When the model process ends,
the keeper ends with its exit code, and supervisord starts the next one.

Runs in other environments: Python 3.8, no import of Tableside (see tableside.model_process.child.wire).
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
from typing import TYPE_CHECKING, Any, List

if TYPE_CHECKING or __package__:
    from tableside.model_process.child import supervisor
    from tableside.model_process.child.report import say
else:
    import supervisor
    from report import say

LOOK_EVERY_S = 1.0


class Keeper:
    """Starts one model process and waits for its end."""

    def __init__(self, command: List[str], supervisor_socket: str, process: str) -> None:
        """command: starts the model process; `--keeper N` is added. process: the keeper's name in supervisord."""
        self._command = command
        self._supervisor = supervisor_socket
        self._process = process
        self._parent = os.getppid()
        self._is_stopped = False
        self._signals, writing = os.pipe()
        os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing)

    def run(self) -> int:
        """Return the exit code of the model process, or 0 when it is left to its successor."""
        signal.signal(signal.SIGCHLD, lambda *_: None)  # every signal writes into the pipe, which ends the wait
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        # The model process reads the end of this pipe when the keeper has ended, however that came.
        reading, writing = os.pipe()
        child = subprocess.Popen(
            [*self._command, "--keeper", str(reading)], pass_fds=[reading], start_new_session=True,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(reading)
        try:
            while child.poll() is None:
                if select.select([self._signals], [], [], LOOK_EVERY_S)[0]:
                    os.read(self._signals, 64)
                if self._is_stopped:
                    return self._leave(child)
                if os.getppid() != self._parent:
                    say("model_process_left", reason="supervisord has ended", model_process=child.pid)
                    return 0
            return child.returncode
        finally:
            os.close(writing)

    def _stop(self, *_: Any) -> None:
        self._is_stopped = True

    def _leave(self, child: subprocess.Popen[bytes]) -> int:
        """Leave the model process to its successor; end it if there will be none."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        plan = supervisor.plan(self._supervisor, self._process)
        if plan == supervisor.UP:
            say("model_process_left", reason="stopped or restarted", model_process=child.pid)
            return 0
        child.terminate()
        child.wait()
        return 0
