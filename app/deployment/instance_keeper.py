"""What the web keeper does: it starts gunicorn, and ends an instance when its successor is ready.

A start, `supervisorctl restart`, HUP, `tableside restart` and the death of the gunicorn master are one thing here: a
new instance is started on the same sockets, and when as many of its workers are ready as it has, earlier ones drain. If
it does not become ready, the earlier ones go on. docs/decisions/0015-the-web-keeper.md has the reasons.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from contextlib import suppress
from functools import partial
from types import FrameType

from tableside.deployment import draining, guardian, instances, releases, supervision
from tableside.deployment.end_of_service import end_without_nginx
from tableside.deployment.instances import Instance
from tableside.deployment.keeper_lock import take_over
from tableside.deployment.keeper_renewal import ADOPT, SIGNALS, follow_record, renew
from tableside.deployment.keeper_socket import Reception
from tableside.deployment.observation import lost_versions, observe
from tableside.deployment.socket_holder import Offer, close, fetch
from tableside.deployment.succession import Action, Do, Phase, Seen, Succession
from tableside.deployment.supervision import Says
from tableside.deployment.web_keeper import FAILED
from tableside.errors import FailureKind
from tableside.process import process_table, worker_slots
from tableside.process.file_locks import is_locked
from tableside.process.instance_names import GUARDIAN_LOCK, KEEPER_LOCK
from tableside.process.process_table import Process
from tableside.settings import Settings, load
from tableside.telemetry import logs

STALL_EXTRA_S = 60.0
"""Added to repository.load_timeout_s: a new instance that makes no progress for longer is given up."""
KILL_EXTRA_S = 3.0
"""Added to gunicorn's graceful_timeout: an instance that drains for longer is killed. supervisord waits longer."""
TRANSIENT = (FailureKind.CRASHED, FailureKind.TIMEOUT, FailureKind.OTHER)
"""What may be wrong with a version at one load and not at the next one."""
BUSY_POLL_S, QUIET_POLL_S = 0.2, 0.5
log = logs.get_logger("web_keeper")


class Keeper:
    """One keeper, from its start to its end."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._run_dir = settings, settings.run_dir
        self._workers = settings.server.workers
        self._release = releases.running(os.environ)
        self._target = self._release
        self._grace_s = settings.server.graceful_timeout_s + KILL_EXTRA_S
        self._succession = Succession(settings.repository.load_timeout_s + STALL_EXTRA_S, self._grace_s)
        self._supervisor = f"{os.getppid()}:{process_table.started(os.getppid())}"
        self._stop_asked = self._replace_asked = self._is_asked = False
        self._children: dict[int, tuple[str, subprocess.Popen[bytes]]] = {}
        self._exit_statuses: dict[str, int] = {}
        self._found: dict[str, Instance] = {}
        self._started = ("", Process(0, -1))
        self._told = ""
        self._why = "web was started"
        self._master: Process | None = None
        self._wakeup = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def run(self) -> int:
        """Keep `web` running until this process is stopped. Return its exit status."""
        self._listen_to_signals()
        self._reserve_files()
        failed = self._run_dir / FAILED
        is_restart = is_locked(self._run_dir / GUARDIAN_LOCK, shared=True) or failed.exists()
        self._lock, self._reception = take_over(self._run_dir), Reception(self._run_dir)
        self._selector = selectors.DefaultSelector()
        self._offer = Offer(self._run_dir, "web", fetch(self._run_dir))
        for watched in (self._wakeup[0], self._reception, self._offer):
            self._selector.register(watched, selectors.EVENT_READ)
        self._adopt(is_restart)
        with suppress(OSError):  # a disk that has become read-only
            failed.unlink()
        while not self._stop_asked:
            self._offer.answer()
            self._take_requests()
            self._step()
            self._selector.select(QUIET_POLL_S if self._succession.is_quiet else BUSY_POLL_S)
            with suppress(BlockingIOError):
                os.read(self._wakeup[0], 4096)
            self._reap()
        return self._leave()

    def _reserve_files(self) -> None:
        """Make the files that a replacement needs, so that it does not fail on a disk that has become full."""
        worker_slots.reserve(self._run_dir / "worker_slots", 2 * self._workers + 1)
        for name in (GUARDIAN_LOCK, KEEPER_LOCK):
            with suppress(OSError):
                (self._run_dir / name).touch(0o600)

    def _listen_to_signals(self) -> None:
        for sign in SIGNALS:
            signal.signal(sign, self._on_signal)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # wakes the loop
        signal.set_wakeup_fd(self._wakeup[1], warn_on_full_buffer=False)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def _on_signal(self, sign: int, _: FrameType | None) -> None:
        if sign == signal.SIGHUP:
            self._replace_asked = True
        else:
            self._stop_asked = True

    def _adopt(self, is_restart: bool) -> None:
        """Go on with an instance that runs, unless it is to be replaced: after a restart, under another supervisord."""
        self._found = instances.find(self._run_dir)
        named = self._found.get(os.environ.pop(ADOPT, ""))
        newest = instances.newest(self._found)
        is_ours = newest is not None and newest.supervisor == self._supervisor and not is_restart
        adopted = named or (newest if is_ours else None)
        if adopted is not None and adopted.master is not None:
            self._why = "it serves, and this keeper goes on with it"
            log.info("instance_adopted", instance=adopted.name, master=adopted.master.pid)
            self._succession.started(adopted.name, time.monotonic())

    def _take_requests(self) -> None:
        if self._replace_asked:
            self._replace_asked, self._is_asked, self._target = False, True, self._release
            self._why = "SIGHUP asked for new workers"
            self._succession.replace()
        for request in self._reception.requests():
            self._is_asked, self._target = True, request.release or self._release
            self._why = "`tableside restart` asked for new workers"
            self._succession.replace()

    def _step(self) -> None:
        if self._succession.is_quiet and self._master is not None and process_table.is_alive(self._master):
            return
        self._found = self._find()
        seen = observe(self._run_dir, self._found)
        self._check_versions(seen)
        for action in self._succession.step(time.monotonic(), seen):
            self._do(action)
        current = self._found.get(self._succession.current)
        self._master = current.master if current else None
        self._tell_progress(seen)

    def _find(self) -> dict[str, Instance]:
        """Return the instances, with the one that was started last: /proc hides it while it executes gunicorn."""
        found = instances.find(self._run_dir)
        name, master = self._started
        if process_table.is_alive(master) and (name not in found or found[name].master is None):
            workers = found[name].workers if name in found else ()
            found[name] = Instance(name, self._supervisor, master, workers)
        return found

    def _check_versions(self, seen: dict[str, Seen]) -> None:
        """Give up a new instance that cannot serve what is served now.

        In another release no version may be lost, for whatever reason, also if it is behind the same link. Otherwise
        the operator may have wanted it, and only what another attempt may not meet counts: a crash, a time limit.
        """
        name = self._succession.current
        if self._succession.phase is not Phase.STARTING or name not in seen or not seen[name].is_ready:
            return
        folder = os.path.realpath(self._target.project)
        is_upgrade = any(each.folder != folder for other, each in self._found.items() if other != name)
        lost = lost_versions(self._run_dir, name, None if is_upgrade else TRANSIENT)
        if lost:
            for action in self._succession.give_up(f"it does not serve {'; '.join(lost)}", time.monotonic()):
                self._do(action)

    def _do(self, action: Action) -> None:
        if action.do is Do.START:
            self._start()
        elif action.do is Do.SUCCEEDED:
            self._succeeded(action.name)
        elif action.do is Do.FAILED:
            self._failed(action)
        elif action.name in self._found and action.do is Do.END:
            log.info("instance_ends", instance=action.name, reason=self._why_it_ends(action.name))
            self._found[action.name].terminate()
        elif action.name in self._found:
            log.warning("instance_killed", instance=action.name, reason=f"it did not end within {self._grace_s:g} s")
            self._found[action.name].kill()

    def _why_it_ends(self, name: str) -> str:
        current = self._succession.current
        return "it did not become ready" if name == current else f"{current} serves in its place"

    def _start(self) -> None:
        name = f"{time.monotonic_ns() // 1000:016d}-{os.getpid()}"
        environ = instances.environment(self._target, os.environ, name, self._run_dir, self._supervisor)
        command = [self._target.python, "-m", "tableside.deployment.gunicorn"]
        try:
            child = subprocess.Popen(command, cwd=self._target.project, env=environ, start_new_session=True)
            self._children[child.pid] = (name, child)
            self._started = (name, Process(child.pid, process_table.started(child.pid)))
            log.info(
                "instance_started", instance=name, master=child.pid, project=self._target.project, reason=self._why
            )
        except OSError as problem:
            log.error("instance_not_started", reason=str(problem))
        self._told = ""
        self._succession.started(name, time.monotonic())

    def _succeeded(self, name: str) -> None:
        log.info("instance_ready", instance=name, reason=self._why)
        self._why = "gunicorn's master has ended"
        self._reception.finish(True, "the new instance serves")
        is_asked, self._is_asked = self._is_asked, False
        moved = self._target != self._release
        for other, instance in self._found.items():
            if other != name:
                if is_asked or moved:  # this process is replaced below, and does not come to the action that says so
                    log.info("instance_ends", instance=other, reason=f"{name} serves in its place")
                instance.terminate()
        if moved:
            with suppress(OSError):  # a full disk: a later start of `web` begins in the release of `tableside run`
                releases.record(self._run_dir, self._target)
            self._release = self._target
        if is_asked or moved:
            problem = renew(self._target, name, self._unheeded)
            log.error("keeper_not_renewed", reason=problem)

    def _unheeded(self) -> list[signal.Signals]:
        asked = ((self._replace_asked, signal.SIGHUP), (self._stop_asked, signal.SIGTERM))
        return [sign for is_asked, sign in asked if is_asked]

    def _failed(self, action: Action) -> None:
        others = [name for name, each in self._found.items() if name != action.name and each.master]
        then = "the earlier one goes on serving" if others else "another is started"
        self._reap()
        status = self._exit_statuses.get(action.name)
        reason = action.reason if status is None else f"{action.reason} (exit status {status})"
        log.error("instance_failed", instance=action.name, reason=reason, then=then)
        self._reception.finish(False, f"the new instance did not come up: {reason}")
        self._is_asked = False
        if self._target != self._release:
            self._target = self._release
            if others:
                self._succession.cancel(others[-1])

    def _tell_progress(self, seen: dict[str, Seen]) -> None:
        current = seen.get(self._succession.current)
        if self._succession.phase is Phase.STARTING and current is not None:
            text = f"{current.ready} of {current.wanted or '?'} new workers are ready"
            if text != self._told:
                self._reception.tell(text)
            self._told = text

    def _reap(self) -> None:
        with suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    return
                name, child = self._children.pop(pid, ("", None))
                if child is not None:
                    child.returncode = self._exit_statuses[name] = os.waitstatus_to_exitcode(status)

    def _leave(self) -> int:
        """End: with all instances if the stack ends, otherwise leave them to a guardian, or to the next keeper."""
        self._reception.finish(False, "web was stopped")
        answer = supervision.ask(self._run_dir)
        if answer.says is Says.RUNS and answer.pid not in (0, os.getpid()):
            log.info("keeper_replaced", pid=answer.pid)
            return 0
        if answer.says in (Says.RUNS, Says.STOPPED):
            seen = observe(self._run_dir, instances.find(self._run_dir))
            given_up = self._succession.abandoned(seen)
            if given_up in self._found:
                self._found[given_up].terminate()
            if guardian.leave_behind(self._run_dir, self._grace_s, self._close):
                log.info("keeper_stopped", reason="web serves on until it is started again, or stays stopped")
                return 0
        log.info("draining", reason="the whole stack ends")
        end_without_nginx(self._settings, partial(draining.terminate, self._run_dir))
        draining.end(self._run_dir, self._grace_s)
        return 0

    def _close(self) -> None:
        signal.set_wakeup_fd(-1)
        self._selector.close()
        self._reception.close()
        self._offer.close()
        os.close(self._lock)
        close(self._wakeup)


def make() -> Keeper:
    """Return the keeper of these settings. Raises SettingsError. May become the keeper of another release instead."""
    settings = load()
    follow_record(settings.run_dir)
    logs.configure(settings.log.format, settings.log.level, settings.run_dir / "log" / "web.log")
    return Keeper(settings)
