"""`tableside run` and `tableside stop`: check everything first, then become supervisord."""

from __future__ import annotations

import os
import resource
import secrets
import shutil
import signal
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path

from tableside.deployment import banner
from tableside.deployment.layout import MAX_RUN_DIR, PROJECT, SUPERVISORD_CONF, addresses, environment, find_nginx
from tableside.deployment.nginx import write
from tableside.errors import StackError
from tableside.process import worker_slots
from tableside.settings import Settings

KEY_FILE = "admin.key"


def run(settings: Settings) -> int:
    """Start the stack in the foreground. Does not return: this process becomes supervisord.

    Raises StackError, in one line and with nothing started, when a port is taken, the repository or a needed program is
    missing, or the same run folder already has a stack.
    """
    environ = environment(settings, os.environ)
    _check_repository(settings)
    _prepare_run_dir(settings)
    _check_ports(settings)
    make_key(settings.run_dir)
    nginx = find_nginx(os.environ) if environ["TABLESIDE_NGINX"] == "true" else None
    if nginx:
        write(settings, nginx)
    _raise_file_limit()
    if os.fork() == 0:
        os._exit(banner.show_when_ready(settings, behind_nginx=nginx is not None))
    os.chdir(PROJECT)
    supervisord = [sys.executable, "-m", "supervisor.supervisord", "-c", str(SUPERVISORD_CONF)]
    os.execve(sys.executable, supervisord, environ)  # noqa: S606 - becoming supervisord is the point


def _check_repository(settings: Settings) -> None:
    path = settings.repository_path
    if not path.is_dir():
        raise StackError(f"repository.path: {path} is not there; `tableside publish` makes it, or set another")


def _prepare_run_dir(settings: Settings) -> None:
    run_dir = settings.run_dir
    if len(os.fsencode(run_dir)) > MAX_RUN_DIR:
        raise StackError(f"server.run_dir: {run_dir} is longer than the {MAX_RUN_DIR} bytes unix sockets leave")
    try:
        for folder in (".", "log", "tmp", "worker_slots", "metrics", "generations"):
            (run_dir / folder).mkdir(parents=True, exist_ok=True)
        run_dir.chmod(0o700)
    except OSError as problem:
        raise StackError(f"server.run_dir: {run_dir} cannot be made: {problem.strerror}") from problem
    pid = running_pid(run_dir)
    if pid:
        raise StackError(f"server.run_dir: {run_dir} already has a running stack (supervisord pid {pid}); `make stop`")
    if worker_slots.held(run_dir / "worker_slots"):
        raise StackError(f"server.run_dir: {run_dir} still has workers of an earlier stack; `tableside stop` ends them")
    for folder in ("worker_slots", "metrics"):
        shutil.rmtree(run_dir / folder, ignore_errors=True)
        (run_dir / folder).mkdir()
    for leftover in (*run_dir.glob("*.sock"), *run_dir.glob("*.pid")):
        leftover.unlink(missing_ok=True)


def _check_ports(settings: Settings) -> None:
    for name, (host, port) in addresses(settings).items():
        key = "server.listen" if name == "data" else "server.admin_listen"
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
                probe.listen(1)
            except OSError as problem:
                raise StackError(f"{key}: {host}:{port}: {(problem.strerror or str(problem)).lower()}") from problem


def make_key(run_dir: Path) -> Path:
    """The admin key's file; written once, readable by this user only."""
    path = run_dir / KEY_FILE
    with suppress(FileExistsError):
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "w") as file:
            file.write(secrets.token_urlsafe(32) + "\n")
    return path


def _raise_file_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536) if hard > 0 else 65536, hard))


def running_pid(run_dir: Path) -> int:
    """supervisord's pid when this run folder's stack is up, else 0."""
    try:
        pid = int((run_dir / "supervisord.pid").read_text())
    except (OSError, ValueError):
        return 0
    return pid if _command_has(pid, "supervisor") else 0


def _command_has(pid: int, word: str) -> bool:
    try:
        return word.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _is_alive(left: tuple[int, signal.Signals]) -> bool:
    return _command_has(left[0], "gunicorn") or _command_has(left[0], "nginx")


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return 0


def stop(settings: Settings) -> int:
    """End the stack of this run folder, and what a killed supervisord left behind. 0 when nothing runs any more."""
    run_dir, wait_s = settings.run_dir, settings.server.stop_wait_s + 15
    pid = running_pid(run_dir)
    if pid:
        os.kill(pid, signal.SIGTERM)
        _wait_until(lambda: not running_pid(run_dir), wait_s)
    ended = _leftovers(run_dir)
    for left, sign in ended:
        with suppress(ProcessLookupError):
            os.kill(left, sign)
    _wait_until(lambda: not worker_slots.held(run_dir / "worker_slots") and not any(map(_is_alive, ended)), wait_s)
    if running_pid(run_dir) or _leftovers(run_dir):
        raise StackError(f"{run_dir}: the stack did not stop within {wait_s} s")
    sys.stderr.write("tableside: stopped\n" if pid or ended else "tableside: nothing was running\n")
    return 0


def _leftovers(run_dir: Path) -> list[tuple[int, signal.Signals]]:
    found = []
    with suppress(OSError, ValueError):
        nginx = int((run_dir / "nginx.pid").read_text())
        if _command_has(nginx, "nginx"):
            found.append((nginx, signal.SIGQUIT))
    for worker in worker_slots.statuses(run_dir / "worker_slots"):
        pid = worker.get("pid")
        if isinstance(pid, int):  # its master first: that one would only start another
            found += [(each, signal.SIGTERM) for each in (_parent(pid), pid) if _command_has(each, "gunicorn")]
    return found


def _wait_until(done: object, timeout_s: float) -> None:
    give_up_at_s = time.monotonic() + timeout_s
    while callable(done) and not done() and time.monotonic() < give_up_at_s:
        time.sleep(0.05)
