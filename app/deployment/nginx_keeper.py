"""nginx's keeper, the program `nginx` of supervisord: replaces nginx without a gap, and ends it without a reset.

There are two nginx, one for the data plane and one for the control plane, so that clients which fill all connections of
the data plane do not lock operators and probes out. Both are children of this process, and start and end together;
below, nginx means both. A new nginx starts on the same sockets while the old one serves, and the old one ends when the
new one accepts connections. That holds for a restart, after SIGKILL of nginx or of this process, and when a new
supervisord takes a stack over. At SIGTERM this process asks supervisord what goes on:

- The whole stack ends: it announces the end, closes the listening sockets and ends nginx (`EndOfService`).
- Otherwise it may be the first half of a restart. This process hands nginx to a *guardian*, a copy of itself which
  supervisord does not know, and ends at once. The guardian ends nginx if the program stays stopped.

SIGHUP makes nginx read a new configuration; SIGUSR1 makes it open its log files again.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

from tableside import machine
from tableside.deployment import exposure, nginx_answers, supervision, tls
from tableside.deployment import nginx as configuration
from tableside.deployment.end_of_service import EndOfService
from tableside.deployment.guardian import STOPPED_S
from tableside.deployment.layout import ADMIN, DATA, find_nginx, socket_addresses
from tableside.deployment.nginx_guard import NginxGuard, busy_connections
from tableside.deployment.signal_queue import SignalQueue
from tableside.deployment.socket_holder import Offer, fetch, tcp_addresses
from tableside.deployment.stack_processes import (
    Role,
    StackProcess,
    children,
    find,
    leaders,
    runs,
    send,
    wait_until,
)
from tableside.deployment.supervision import Says
from tableside.errors import StackError, TablesideError
from tableside.settings import Settings, load

PROGRAM = "nginx"
START_TIMEOUT_S = 30.0
"""How long a new nginx may take until its first worker runs."""
_TICK_S = 0.5
_END_SIGNALS = (signal.SIGTERM, signal.SIGQUIT, signal.SIGINT)


class NginxKeeper:
    """The nginx of both planes on the sockets of the stack. descriptors: of all listening sockets, by name."""

    def __init__(self, settings: Settings, nginx: str, descriptors: Mapping[str, int]) -> None:
        self._settings, self._nginx, self._descriptors = settings, nginx, descriptors
        self._signals = SignalQueue(*_END_SIGNALS, signal.SIGHUP, signal.SIGUSR1, signal.SIGCHLD)
        self._offer = Offer(settings.run_dir, PROGRAM, descriptors)
        self._pid_files = {DATA: f"tmp/nginx-{os.getpid()}.pid", ADMIN: f"tmp/control-{os.getpid()}.pid"}
        self._masters: dict[str, StackProcess] = {}
        self._certificate = tls.stamp(settings)
        self._nginx_guard = NginxGuard(
            settings.run_dir / "log", settings.log.max_bytes, settings.log.keep_files,
            configuration.max_connections(machine.open_files()), configuration.processes(),
            partial(busy_connections, settings.run_dir / configuration.status_socket(self._pid_files[DATA])),
        )  # fmt: skip

    def run(self) -> int:
        """Replace the nginx that may run, and watch over the new one until its end. Return the exit code.

        Raises StackError if nginx rejects the configuration or does not start; an old nginx then serves on.
        """
        run_dir = self._settings.run_dir
        old = find(run_dir, Role.NGINX_MASTER, Role.NGINX_WORKER)
        try:
            tls.install(self._settings)
        except StackError as problem:
            if not (run_dir / tls.PEM).exists():
                raise
            _say(f"nginx uses the certificate of before: {problem}")
        self._write(self._settings)
        started = self._start()
        found = {process.pid: process for process in find(run_dir, Role.NGINX_MASTER)}
        self._masters = {plane: found[child.pid] for plane, child in started.items()}
        _say(f"nginx serves: {', '.join(f'{plane} (pid {child.pid})' for plane, child in started.items())}")
        for process in leaders(old):
            _say(f"the earlier {process} ends when its requests are answered")
            send(process, signal.SIGQUIT)
        _remove_pid_files(run_dir)
        while all(child.poll() is None for child in started.values()):
            for number in self._wait():
                if number in _END_SIGNALS:
                    return self._end(started)
                self._pass_on(number)
            self._follow_certificate()
            nginx_answers.collect(run_dir)
            for due in self._nginx_guard.check(time.monotonic(), partial(children, started[DATA].pid)):
                if due == signal.SIGHUP:
                    _say(f"nginx gets new workers: {self._nginx_guard.reason}")
                self._send(due, *([DATA] if due == signal.SIGHUP else ()))
        _say(f"nginx has ended with status {[child.returncode for child in started.values()]}")
        return 1  # supervisord starts the next keeper; workers that a killed nginx has left behind serve meanwhile

    def _write(self, settings: Settings) -> None:
        """Write nginx's configuration. Raises StackError if it cannot be used with the sockets that there are."""
        if socket_addresses(settings) != tcp_addresses(self._descriptors):
            raise StackError(
                "server.listen or server.admin_listen has changed: that needs `tableside stop` and then `tableside run`"
            )
        exposure.check(settings, behind_nginx=True)
        for plane, pid_file in self._pid_files.items():
            configuration.write(settings, self._nginx, plane, pid_file)

    def _send(self, number: signal.Signals, *planes: str) -> None:
        """Signal the nginx of these planes, by default of both."""
        for plane in planes or self._masters:
            send(self._masters[plane], number)

    def _is_running(self) -> bool:
        return any(map(runs, self._masters.values()))

    def _start(self) -> dict[str, subprocess.Popen[bytes]]:
        run_dir = self._settings.run_dir
        started = {plane: self._start_one(plane) for plane in self._pid_files}

        def has_ended() -> bool:
            return any(child.poll() is not None for child in started.values())

        def is_up() -> bool:
            return has_ended() or {child.pid for child in started.values()} <= {
                worker.parent for worker in find(run_dir, Role.NGINX_WORKER)
            }

        if not wait_until(is_up, START_TIMEOUT_S, poll_s=0.05) or has_ended():
            for child in started.values():
                child.terminate()
            statuses = [child.wait() for child in started.values()]
            raise StackError(f"nginx did not start (status {statuses}); see {run_dir / 'log' / 'nginx-error.log'}")
        return started

    def _start_one(self, plane: str) -> subprocess.Popen[bytes]:
        descriptor, run_dir = self._descriptors[plane], self._settings.run_dir
        environ = {**os.environ, "NGINX": f"{descriptor};"}
        command = configuration.command(run_dir, self._nginx, plane)
        return subprocess.Popen(command, env=environ, cwd=run_dir, pass_fds=[descriptor])

    def _wait(self, timeout_s: float = _TICK_S) -> list[int]:
        """Give the sockets to processes that ask for them, and return the signals that have arrived."""
        watched: list[SignalQueue | Offer] = [self._signals, self._offer]
        ready, _, _ = select.select(watched, [], [], timeout_s)
        if self._offer in ready:
            self._offer.answer()
        return self._signals.received()

    def _pass_on(self, number: int) -> None:
        if number == signal.SIGCHLD:
            return
        if number == signal.SIGHUP:
            try:
                settings = load()
                tls.install(settings)
                self._write(settings)
                self._settings = settings
            except TablesideError as problem:
                _say(f"nginx keeps its configuration: {problem}")
                return
        self._send(signal.Signals(number))

    def _follow_certificate(self) -> None:
        """Let nginx read the certificate when its files have changed and fit together; else it keeps the old one."""
        found = tls.stamp(self._settings)
        if found == self._certificate:
            return
        self._certificate = found
        try:
            tls.install(self._settings)
        except StackError as problem:
            _say(f"nginx keeps its certificate: {problem}")
            return
        _say("nginx reads a new certificate")
        self._send(signal.SIGHUP)

    def _end(self, started: Mapping[str, subprocess.Popen[bytes]]) -> int:
        if supervision.ask(self._settings.run_dir).says in (Says.SHUTDOWN, Says.GONE, Says.UNREACHABLE):
            self._end_service()
            for child in started.values():
                child.wait()
        elif os.fork() == 0:
            os.setsid()
            self._guard()
        return 0

    def _guard(self) -> None:
        """Be the guardian: serve on until the next keeper has ended this nginx, or end it if none comes."""
        run_dir, stopped_since_s = self._settings.run_dir, 0.0
        while self._is_running():
            is_told = any(number in _END_SIGNALS for number in self._wait(0.2))
            says = supervision.ask(run_dir).says
            if is_told or (says in (Says.SHUTDOWN, Says.GONE) and not find(run_dir, Role.NGINX_KEEPER)):
                self._end_service()
                return
            now_s = time.monotonic()
            stopped_since_s = (stopped_since_s or now_s) if says is Says.STOPPED else 0.0
            if stopped_since_s and now_s - stopped_since_s > STOPPED_S:
                self._end_program()
                return

    def _end_program(self) -> None:
        """End nginx because its program stays stopped. The ports stay open as long as the socket holders run."""
        run_dir = self._settings.run_dir
        if Says.RUNS in [supervision.ask(run_dir, f"sockets:sockets_{number}").says for number in (0, 1)]:
            self._send(signal.SIGQUIT)
        else:
            self._end_service()

    def _end_service(self) -> None:
        """End nginx so that no client is reset. A second signal ends the wait of the lame duck."""
        self._offer.close()
        with EndOfService(self._settings, self._descriptors) as end:
            end.serve_on(lambda: not self._is_running() or bool(self._signals.received()))
            end.settle()
            self._quit()
            end.stop_listening(Role.NGINX_MASTER, Role.NGINX_WORKER)
            self._wait_for_the_end()

    def _quit(self) -> None:
        for process in leaders(find(self._settings.run_dir, Role.NGINX_MASTER, Role.NGINX_WORKER)):
            send(process, signal.SIGQUIT)

    def _wait_for_the_end(self) -> None:
        run_dir = self._settings.run_dir
        wait_until(lambda: not find(run_dir, Role.NGINX_WORKER), self._settings.server.stop_wait_s, poll_s=0.05)


def _say(message: str) -> None:
    with suppress(OSError):  # a supervisord that was killed reads no more
        sys.stderr.write(f"tableside: {message}\n")


def _remove_pid_files(run_dir: Path) -> None:
    """Remove the pid files of nginx that were killed: they cannot do it themselves."""
    running = {str(process.pid) for process in find(run_dir, Role.NGINX_MASTER)}
    for path in (path for kind in ("nginx", "control") for path in (run_dir / "tmp").glob(f"{kind}-*.pid")):
        if path.read_text(encoding="ascii", errors="replace").strip() not in running:
            path.unlink(missing_ok=True)
            path.with_suffix(".sock").unlink(missing_ok=True)


def main() -> None:
    """Watch over nginx until its end. Raises SystemExit with the exit code, or with what is wrong."""
    try:
        settings = load()
        nginx = find_nginx(os.environ)
        if nginx is None:
            raise StackError(
                "nginx is not installed: install it (apt-get install nginx-light) or set server.nginx to 'off'"
            )
        configuration.use_batch_scheduling()
        code = NginxKeeper(settings, nginx, fetch(settings.run_dir)).run()
    except (TablesideError, TimeoutError) as problem:
        raise SystemExit(f"tableside: {problem}") from None
    raise SystemExit(code)


if __name__ == "__main__":
    main()
