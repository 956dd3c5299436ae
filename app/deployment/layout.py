"""Where a stack's parts lie and which sockets it listens on. Everything below its run folder."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from tableside.errors import StackError
from tableside.settings import Settings, split_address

WEB_SOCKET, CONTROL_SOCKET = "web.sock", "ctl.sock"
DATA, ADMIN = "data", "admin"
PROJECT = Path(__file__).resolve().parents[2]
SUPERVISORD_CONF = PROJECT / "supervisord.conf"
TEMPLATE = PROJECT / "deploy" / "nginx" / "nginx.conf.j2"
MAX_RUN_DIR = 80
"""Bytes: a unix socket's path holds 107, and supervisor adds `/supervisor.sock.` and a pid."""


def find_nginx(environ: Mapping[str, str]) -> str | None:
    """nginx's binary; Debian keeps it in /usr/sbin, which is not on an ordinary user's PATH."""
    return shutil.which("nginx", path=f"{environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def uses_nginx(settings: Settings, environ: Mapping[str, str]) -> bool:
    """Whether this stack has nginx in front. Raises StackError when it must and there is none."""
    if settings.server.nginx == "off":
        return False
    found = find_nginx(environ) is not None
    if not found and settings.server.nginx == "on":
        raise StackError("server.nginx is 'on' and there is no nginx: install it (apt-get install nginx-light)")
    return found


def environment(settings: Settings, environ: Mapping[str, str]) -> dict[str, str]:
    """What supervisord, its programs and supervisorctl need, on top of `environ`. One thread a library: workers are
    the parallelism, and OpenMP with more than one thread does not survive a fork.
    """
    threads = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL", "NUMEXPR")}
    return {
        **environ,
        "ARROW_DEFAULT_MEMORY_POOL": "system",  # pyarrow's own pools keep what a large body took
        **threads,
        "TABLESIDE__SERVER__RUN_DIR": str(settings.run_dir),
        "TABLESIDE__REPOSITORY__PATH": str(settings.repository_path),
        "TABLESIDE_RUN_DIR": str(settings.run_dir),
        "TABLESIDE_PYTHON": sys.executable,
        "TABLESIDE_STOP_WAIT_S": str(settings.server.stop_wait_s),
        "TABLESIDE_NGINX": "true" if uses_nginx(settings, environ) else "false",
    }


def addresses(settings: Settings) -> dict[str, tuple[str, int]]:
    """The two TCP addresses by name."""
    return {DATA: split_address(settings.server.listen), ADMIN: split_address(settings.server.admin_listen)}
