"""Supervisord's programs for the model processes: one program for each environment."""

from __future__ import annotations

import shlex
import sys
from http.client import HTTPException
from pathlib import Path
from typing import Any
from xmlrpc.client import Error, ServerProxy

from tableside.deployment.layout import MODEL_PROGRAMS, supervisorctl
from tableside.model_process.known_environments import CHILD, known, process_count, socket_path, state_path
from tableside.settings import Environment, Settings

PREFIX = "model_"
"""The programs' names are `model_NAME`, and their processes `model_NAME:model_NAME_0` and so on."""
_PROGRAM = """
[program:{program}]
command={command}
process_name=%(program_name)s_%(process_num)d
numprocs={count}
directory={run_dir}
priority=15
autorestart=true
startsecs=1
startretries=1000000
stopsignal=TERM
stopwaitsecs={stop_wait_s}
killasgroup=true
redirect_stderr=true
stdout_logfile={run_dir}/log/{program}.log
stdout_logfile_maxbytes={max_bytes}
stdout_logfile_backups={keep_files}
"""


def render(settings: Settings) -> str:
    """Return the configuration of the programs, in supervisord's format."""
    programs = [_program(settings, name, each) for name, each in sorted(known(settings).items())]
    return "".join(["; Written by Tableside; do not edit.\n", *programs])


def _program(settings: Settings, name: str, environment: Environment) -> str:
    # supervisord replaces the number of the process, and expands every other percent sign.
    socket = str(socket_path(settings.run_dir, name, 0)).replace("%", "%%")
    words = [
        environment.python, "-I", str(CHILD), "--keep", "--state", str(state_path(settings.run_dir, name)),
        "--call-timeout-s", f"{settings.server.request_timeout_s:g}",
        "--supervisor", str(settings.run_dir / "supervisor.sock"),
    ]  # fmt: skip
    command = shlex.join(words).replace("%", "%%")
    numbered = socket.removesuffix("0.sock") + "%(process_num)d.sock"
    program = f"{PREFIX}{name}"
    return _PROGRAM.format(
        program=program,
        command=f"{command} --socket '{numbered}' --process '{program}:{program}_%(process_num)d'",
        count=process_count(settings, environment),
        run_dir=str(settings.run_dir).replace("%", "%%"),
        max_bytes=settings.log.max_bytes,
        keep_files=settings.log.keep_files,
        stop_wait_s=settings.server.stop_wait_s,
    )


def write(settings: Settings) -> bool:
    """Write the programs into the run folder. Return whether that changed the file."""
    path = settings.run_dir / MODEL_PROGRAMS
    text = render(settings)
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return False
    path.write_text(text, encoding="utf-8")
    return True


def update(settings: Settings) -> None:
    """Write the programs, and make the running supervisord start new ones, restart changed ones and end removed ones.

    A supervisord that does not answer is reported on stderr: models in the server's own environment are served anyway.
    """
    if not write(settings):
        return
    supervisor = connect(settings.run_dir)
    try:
        [[added, changed, removed]] = supervisor.reloadConfig()
        for name in _ours(changed + removed):
            supervisor.stopProcessGroup(name)
            supervisor.removeProcessGroup(name)
        for name in _ours(added + changed):
            supervisor.addProcessGroup(name)
    except (OSError, HTTPException, Error) as problem:
        sys.stderr.write(
            f"tableside: supervisord does not take the model processes ({problem}); try "
            f"`{supervisorctl(settings.run_dir, 'update')}`\n"
        )


def _ours(names: list[str]) -> list[str]:
    return [name for name in names if name.startswith(PREFIX)]


def connect(run_dir: Path) -> Any:
    """Return supervisord's interface `supervisor` (its XML-RPC API) for the stack in this run folder."""
    from supervisor.xmlrpc import SupervisorTransport

    transport = SupervisorTransport(None, None, f"unix://{run_dir / 'supervisor.sock'}")
    return ServerProxy("http://127.0.0.1", transport=transport).supervisor
