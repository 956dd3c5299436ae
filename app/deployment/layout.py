"""The files, addresses, sockets and environment variables of a stack. Its files are all in the run folder."""

from __future__ import annotations

import glob
import os
import shlex
import shutil
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from importlib.resources import files
from pathlib import Path

from tableside import machine
from tableside.errors import StackError
from tableside.setting_variables import FOLDER_VARIABLE
from tableside.settings import Settings, split_address

WEB_SOCKET, CONTROL_SOCKET = "web.sock", "ctl.sock"
MODEL_PROGRAMS = "model_programs.conf"
SUPERVISORCTL_CONF = "supervisorctl.conf"
DATA, ADMIN = "data", "admin"
SUPERVISORD_CONF = "supervisord.conf"
_STACK = Path(str(files("tableside"))) / "stack"
"""The files of the stack. In a checkout they are links to where the files are (docs/decisions/0009)."""
PROJECT = (_STACK / SUPERVISORD_CONF).resolve().parent
"""The folder in which the programs of the stack run. It has supervisord.conf, gunicorn.conf.py and wsgi.py."""
TEMPLATE = _STACK / "nginx.conf.j2"
PROMETHEUS, RUNBOOKS = _STACK / "prometheus", _STACK / "runbooks"
"""Folders with Prometheus' configuration, rules and alerts, and with a page for each alert."""
DASHBOARD = _STACK / "grafana" / "dashboard.json"
"""Grafana's dashboard."""
MAX_RUN_DIR_BYTES = 80
"""Longest path of a run folder. A unix socket's path has at most 107 bytes (unix(7)), and supervisor appends
`/supervisor.sock.` and a pid.
"""


PROJECT_VARIABLE, PYTHON_VARIABLE = "TABLESIDE_PROJECT", "TABLESIDE_PYTHON"


def project_folder(environ: Mapping[str, str], command: str) -> Path:
    """Return the folder of this code as the operator wrote it: `/srv/current`, if that is a link to it.

    command: the path of the running command, `sys.argv[0]`. A link must stay a link in what is stored: once it points
    at another release, the next process starts from there.
    """
    here = environ.get("PWD", "")
    # FOLDER/.venv/bin/tableside, or with -m FOLDER/src/tableside/cli/__main__.py; installed ENVIRONMENT/bin/tableside
    script = Path(here, command)
    above = list(map(str, script.parents))
    installed = (os.path.join(each, _in_environment()) for each in above)
    for folder in (environ.get(PROJECT_VARIABLE, ""), *above, here, *installed):
        with suppress(OSError):
            if os.path.isabs(folder) and os.path.samefile(folder, PROJECT):
                return Path(folder)
    return PROJECT


def _in_environment() -> str:
    """The path of PROJECT inside of this interpreter's environment; of a checkout a path that does not exist."""
    return os.path.relpath(PROJECT, sys.prefix) if PROJECT.is_relative_to(sys.prefix) else "not-installed"


def _python(project: Path) -> str:
    """The path of this interpreter, through the link of the project's folder where the one is inside of the other."""
    if project == PROJECT:
        return sys.executable
    if Path(sys.prefix) == PROJECT / ".venv":
        return str(project / ".venv" / "bin" / "python")
    if PROJECT.is_relative_to(sys.prefix):
        return str(Path(str(project).removesuffix(_in_environment())) / "bin" / "python")
    return sys.executable


def moved(value: str, old: Path, new: Path) -> str:
    """Return a list of paths as in PYTHONPATH, with those in the folder `old` at the same place in the folder `new`."""
    return os.pathsep.join(
        str(new / Path(each).relative_to(old)) if each and Path(each).is_relative_to(old) else each
        for each in value.split(os.pathsep)
    )


def find_nginx(environ: Mapping[str, str]) -> str | None:
    """Return the path of nginx, or None. /usr/sbin is searched too: Debian installs it there, off a user's PATH."""
    return shutil.which("nginx", path=f"{environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def uses_nginx(settings: Settings, environ: Mapping[str, str]) -> bool:
    """Return whether the stack runs nginx. Raises StackError if server.nginx is `on` and nginx is not installed."""
    if settings.server.nginx == "off":
        return False
    found = find_nginx(environ) is not None
    if not found and settings.server.nginx == "on":
        raise StackError(
            "server.nginx is 'on' but nginx is not installed: install it (apt-get install nginx-light) or set 'auto'"
        )
    return found


def environment(settings: Settings, environ: Mapping[str, str]) -> dict[str, str]:
    """Return `environ` with the variables that supervisord, its programs and supervisorctl need.

    Numeric libraries get one thread each: the workers are the parallelism, and OpenMP with more than one thread does
    not survive a fork.
    """
    threads = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL", "NUMEXPR")}
    project = project_folder(environ, sys.argv[0])
    searched = {name: moved(environ[name], PROJECT, project) for name in ("PATH", "PYTHONPATH") if name in environ}
    return {
        **environ,
        **searched,
        "ARROW_DEFAULT_MEMORY_POOL": "system",  # pyarrow's own memory pools never return the memory of a large body
        **threads,
        "TABLESIDE__SERVER__RUN_DIR": str(settings.run_dir),
        "TABLESIDE__REPOSITORY__PATH": str(settings.repository_path),
        "TABLESIDE_RUN_DIR": str(settings.run_dir),
        "TABLESIDE_MODEL_PROGRAMS": as_pattern(settings.run_dir / MODEL_PROGRAMS),
        **_folder(environ),
        PROJECT_VARIABLE: str(project),
        PYTHON_VARIABLE: _python(project),
        "TABLESIDE_LOG_BYTES": str(settings.log.max_bytes),
        "TABLESIDE_LOG_FILES": str(settings.log.keep_files),
        "TABLESIDE_MIN_FILES": str(min(1024, machine.open_files())),
        "TABLESIDE_STOP_WAIT_S": str(settings.server.stop_wait_s),
        "TABLESIDE_NGINX": "true" if uses_nginx(settings, environ) else "false",
    }


def _folder(environ: Mapping[str, str]) -> dict[str, str]:
    """The folder of relative paths as a variable, if programs, which run in the project's folder, would take another.

    In the project's folder itself it is not set: after an upgrade the paths count from the folder of the new release.
    """
    here = environ.get(FOLDER_VARIABLE) or os.getcwd()
    return {} if os.path.samefile(here, PROJECT) else {FOLDER_VARIABLE: here}


def write_supervisorctl_conf(run_dir: Path) -> None:
    """Write the file with which supervisor's own `supervisorctl -c` finds the stack. Raises OSError."""
    socket_path = str(run_dir / "supervisor.sock").replace("%", "%%")
    text = f"; Written at each start of the stack.\n[supervisorctl]\nserverurl=unix://{socket_path}\nprompt=tableside\n"
    (run_dir / SUPERVISORCTL_CONF).write_text(text, encoding="utf-8")


def supervisorctl(run_dir: Path, *words: str) -> str:
    """Return the shell command that asks the supervisord of the stack in this run folder."""
    return shlex.join(["supervisorctl", "-c", str(run_dir / SUPERVISORCTL_CONF), *words])


def as_pattern(path: Path) -> str:
    """Return a glob pattern without spaces that matches the path: supervisor splits a list of patterns at spaces."""
    return glob.escape(str(path)).replace(" ", "?")


def addresses(settings: Settings) -> dict[str, tuple[str, int]]:
    """Return host and port of the data plane and of the control plane, under the names DATA and ADMIN."""
    return {DATA: split_address(settings.server.listen), ADMIN: split_address(settings.server.admin_listen)}


def socket_addresses(settings: Settings) -> dict[str, tuple[str, int]]:
    """Return the same as `addresses`, as the kernel reports them of a socket: with numbers in place of names.

    Raises OSError if a name cannot be resolved.
    """
    resolved = {}
    for name, (host, port) in addresses(settings).items():
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        address = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)[0][4]
        resolved[name] = (str(address[0]), int(address[1]))
    return resolved
