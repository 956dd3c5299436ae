"""`tableside run` and `tableside stop`: check the settings and become supervisord; end a stack."""

from __future__ import annotations

import os
import resource
import secrets
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tableside.deployment import banner, model_programs, running_stack
from tableside.deployment.layout import (
    MAX_RUN_DIR_BYTES,
    PROJECT_VARIABLE,
    PYTHON_VARIABLE,
    SUPERVISORD_CONF,
    addresses,
    environment,
    find_nginx,
)
from tableside.deployment.nginx import write
from tableside.deployment.releases import RECORD
from tableside.deployment.running_stack import command_has, supervisor_pid
from tableside.errors import StackError
from tableside.process import worker_slots
from tableside.settings import Settings

KEY_FILE = "admin.key"


def run(settings: Settings) -> int:
    """Start the stack in the foreground. Does not return: this process becomes supervisord.

    Raises StackError, before anything is started, if a port is in use, the model repository or a needed program is
    missing, or the run folder already has a running stack.
    """
    environ = environment(settings, os.environ)
    prepare(settings)
    nginx = find_nginx(os.environ) if environ["TABLESIDE_NGINX"] == "true" else None
    if nginx:
        write(settings, nginx)
    _raise_file_limit()
    if os.fork() == 0:
        os._exit(banner.show_when_ready(settings, behind_nginx=nginx is not None))
    project, python = environ[PROJECT_VARIABLE], environ[PYTHON_VARIABLE]
    os.chdir(project)
    supervisord = [python, "-m", "supervisor.supervisord", "-c", os.path.join(project, SUPERVISORD_CONF)]
    os.execve(python, supervisord, environ)  # noqa: S606 - this process becomes supervisord


def prepare(settings: Settings) -> None:
    """Check everything that a start needs; then create the run folder's subfolders, the admin key and stack.json.

    Raises StackError if the model repository is missing, or if the run folder or a port is in use or cannot be used.
    """
    _check_repository(settings)
    _prepare_run_dir(settings)
    _check_ports(settings)
    make_key(settings.run_dir)
    model_programs.write(settings)
    running_stack.record(settings)


def _check_repository(settings: Settings) -> None:
    path = settings.repository_path
    if not path.is_dir():
        raise StackError(
            f"repository.path: no folder {path}; publish a model into it (`tableside publish`) or set another path"
        )


def _prepare_run_dir(settings: Settings) -> None:
    run_dir = settings.run_dir
    if len(os.fsencode(run_dir)) > MAX_RUN_DIR_BYTES:
        raise StackError(
            f"server.run_dir: {run_dir} is longer than {MAX_RUN_DIR_BYTES} bytes, too long for the unix sockets in it; "
            "set a shorter path"
        )
    try:
        for folder in (".", "log", "tmp", "worker_slots", "metrics", "generations"):
            (run_dir / folder).mkdir(parents=True, exist_ok=True)
        run_dir.chmod(0o700)
    except OSError as problem:
        raise StackError(f"server.run_dir: cannot create {run_dir}: {problem.strerror}") from problem
    pid = supervisor_pid(run_dir)
    if pid:
        raise StackError(
            f"server.run_dir: {run_dir} already has a running stack (supervisord pid {pid}); "
            "stop it with `tableside stop`, or set another folder"
        )
    if worker_slots.held(run_dir / "worker_slots"):
        raise StackError(
            f"server.run_dir: workers of an earlier stack still run in {run_dir}; stop them with `tableside stop`"
        )
    for folder in ("worker_slots", "metrics"):
        shutil.rmtree(run_dir / folder, ignore_errors=True)
        (run_dir / folder).mkdir()
    for leftover in (*run_dir.glob("*.sock"), *run_dir.glob("*.pid"), *run_dir.glob("model_*.json"), run_dir / RECORD):
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
                reason = (problem.strerror or str(problem)).lower()
                raise StackError(f"{key}: cannot listen on {host}:{port}: {reason}") from problem


def make_key(run_dir: Path) -> Path:
    """Create the file with the admin key, readable by this user only, and return its path. An existing key is kept."""
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


def _is_gunicorn_or_nginx(pid: int) -> bool:
    return command_has(pid, "gunicorn") or command_has(pid, "nginx")


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return 0


def stop(settings: Settings) -> int:
    """Stop the stack of this run folder, including processes that a killed supervisord left running. Return 0.

    Waits until every process has ended. Raises StackError if some still run after server.stop_wait_s and 15 s more.
    """
    run_dir, wait_s = settings.run_dir, settings.server.stop_wait_s + 15
    pid = supervisor_pid(run_dir)
    if pid:
        os.kill(pid, signal.SIGTERM)
        _wait_until(lambda: not supervisor_pid(run_dir), wait_s)
    leftovers = _leftovers(run_dir)
    for leftover, sign in leftovers:
        with suppress(ProcessLookupError):
            os.kill(leftover, sign)
    _wait_until(lambda: not _workers_or_any_run(run_dir, [leftover for leftover, _ in leftovers]), wait_s)
    if supervisor_pid(run_dir) or _leftovers(run_dir):
        raise StackError(f"server.run_dir: the stack in {run_dir} did not stop within {wait_s:g} s; see its log folder")
    sys.stderr.write("tableside: stopped\n" if pid or leftovers else f"tableside: no stack runs in {run_dir}\n")
    return 0


def _workers_or_any_run(run_dir: Path, pids: list[int]) -> bool:
    return bool(worker_slots.held(run_dir / "worker_slots")) or any(map(_is_gunicorn_or_nginx, pids))


def _leftovers(run_dir: Path) -> list[tuple[int, signal.Signals]]:
    """Return the processes that run without a supervisord, each with the signal that stops it gracefully."""
    leftovers = []
    with suppress(OSError, ValueError):
        nginx = int((run_dir / "nginx.pid").read_text())
        if command_has(nginx, "nginx"):
            leftovers.append((nginx, signal.SIGQUIT))
    for worker in worker_slots.statuses(run_dir / "worker_slots"):
        pid = worker.get("pid")
        if isinstance(pid, int):  # the gunicorn master first: it would replace a worker that ends
            masters_first = (_parent(pid), pid)
            leftovers += [(process, signal.SIGTERM) for process in masters_first if command_has(process, "gunicorn")]
    return leftovers


def _wait_until(is_done: Callable[[], bool], timeout_s: float) -> None:
    give_up_at_s = time.monotonic() + timeout_s
    while not is_done() and time.monotonic() < give_up_at_s:
        time.sleep(0.05)
