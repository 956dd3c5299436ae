"""`tableside run`: checks the settings, prepares the run folder and becomes supervisord."""

from __future__ import annotations

import os
import resource
import secrets
import shutil
import socket
from contextlib import suppress
from functools import partial
from pathlib import Path

from tableside import private_files
from tableside.deployment import banner, exposure, model_programs, running_stack, service_manager, takeover, tls
from tableside.deployment.layout import (
    MAX_RUN_DIR_BYTES,
    PROJECT_VARIABLE,
    PYTHON_VARIABLE,
    SUPERVISORD_CONF,
    addresses,
    environment,
    find_nginx,
    write_supervisorctl_conf,
)
from tableside.deployment.nginx import CONF, write
from tableside.deployment.releases import RECORD
from tableside.deployment.running_stack import find_supervisors
from tableside.deployment.stack_processes import StackProcess
from tableside.errors import StackError
from tableside.process import drained, lame_duck, worker_slots
from tableside.process.audit_log import AuditLog
from tableside.repository import version_record
from tableside.server.head_limits import is_behind_nginx
from tableside.serving import generations, switching
from tableside.settings import Settings

KEY_FILE = "admin.key"


def run(settings: Settings) -> int:
    """Start the stack in the foreground. Does not return: this process becomes supervisord.

    If the supervisord of an earlier stack in this run folder was killed, the new one takes that stack over: it serves
    until the new one does. Raises StackError, before anything is started, if a port is in use, the model repository or
    a needed program is missing, or the run folder already has a running stack.
    """
    environ = environment(settings, os.environ)
    exposure.check(settings, behind_nginx=is_behind_nginx(environ))
    try:
        left = prepare(settings)
    except OSError as problem:
        place = problem.filename or settings.run_dir
        raise StackError(
            f"server.run_dir: cannot write {place}: {problem.strerror}. Make room, or set another folder"
        ) from problem
    nginx = find_nginx(os.environ) if is_behind_nginx(environ) else None
    if nginx:
        tls.install(settings)
        for plane in CONF:
            write(settings, nginx, plane)
    _raise_file_limit()
    if os.fork() == 0:
        take_over = partial(_take_over, settings, left)
        os._exit(banner.show_when_ready(settings, behind_nginx=nginx is not None, take_over=take_over))
    environ.pop(service_manager.VARIABLE, None)  # gunicorn would say that it is ready too, before its workers are
    project, python = environ[PROJECT_VARIABLE], environ[PYTHON_VARIABLE]
    os.chdir(project)
    supervisord = [python, "-m", "supervisor.supervisord", "-c", os.path.join(project, SUPERVISORD_CONF)]
    os.execve(python, supervisord, environ)  # noqa: S606 - this process becomes supervisord


def _take_over(settings: Settings, left: list[StackProcess]) -> None:
    if left:
        service_manager.wait_longer(takeover.REPLACED_WITHIN_S, os.environ)
        takeover.finish(settings, left)


def prepare(settings: Settings) -> list[StackProcess]:
    """Check everything that a start needs; then create the run folder's subfolders, the admin key and stack.json.

    Return the processes of a stack whose supervisord was killed: the new one takes them over. They are ended here if
    they cannot be taken over, because their sockets are lost or the addresses have changed.
    Raises StackError if the model repository is missing, or if the run folder or a port is in use or cannot be used.
    """
    _check_repository(settings)
    _make_run_dir(settings)
    left = takeover.check(settings)
    if not left:
        _clear_run_dir(settings)
        _check_ports(settings)
    make_key(settings.run_dir)
    AuditLog(settings.run_dir).prepare()
    model_programs.write(settings)
    write_supervisorctl_conf(settings.run_dir)
    running_stack.record(settings)
    switching.begin(settings)
    return left


def _check_repository(settings: Settings) -> None:
    path = settings.repository_path
    if not path.is_dir():
        raise StackError(
            f"repository.path: no folder {path}; publish a model into it (`tableside publish`) or set another path"
        )
    version_record.note_all(path)


def _make_run_dir(settings: Settings) -> None:
    run_dir = settings.run_dir
    if len(os.fsencode(run_dir)) > MAX_RUN_DIR_BYTES:
        raise StackError(
            f"server.run_dir: {run_dir} is longer than {MAX_RUN_DIR_BYTES} bytes, too long for the unix sockets in it; "
            "set a shorter path"
        )
    try:
        for folder in (".", "log", "tmp", "worker_slots", "metrics", generations.FOLDER):
            (run_dir / folder).mkdir(parents=True, exist_ok=True)
        run_dir.chmod(0o700)
        (run_dir / lame_duck.LOCK).touch()
    except OSError as problem:
        raise StackError(f"server.run_dir: cannot create {run_dir}: {problem.strerror}") from problem
    for pid in find_supervisors(run_dir):
        raise StackError(
            f"server.run_dir: {run_dir} already has a running stack (supervisord pid {pid}); "
            "stop it with `tableside stop`, or set another folder"
        )


def _clear_run_dir(settings: Settings) -> None:
    """Remove what an earlier stack has left in the run folder. Raises StackError if a worker of it still runs."""
    run_dir = settings.run_dir
    if worker_slots.held(run_dir / "worker_slots"):
        raise StackError(
            f"server.run_dir: workers of another stack run in {run_dir}, and this process cannot end them: they belong "
            "to another user or container. Stop them there, or set another folder"
        )
    for folder in ("worker_slots", "metrics"):
        shutil.rmtree(run_dir / folder, ignore_errors=True)
        (run_dir / folder).mkdir()
    for leftover in (
        *run_dir.glob("*.sock"),
        *run_dir.glob("*.pid"),
        *run_dir.glob("model_*.json"),
        run_dir / RECORD,
        run_dir / drained.FILE,
    ):
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
    if not path.exists():
        private_files.write(path, f"{secrets.token_urlsafe(32)}\n".encode())
    return path


def _raise_file_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536) if hard > 0 else 65536, hard))
