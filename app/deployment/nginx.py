"""nginx: write its configuration from the settings, check it, and become it on the held sockets."""

from __future__ import annotations

import os
import resource
import subprocess
from contextlib import suppress
from pathlib import Path

import jinja2

from tableside.deployment.layout import ADMIN, CONTROL_SOCKET, DATA, TEMPLATE, WEB_SOCKET, addresses, find_nginx
from tableside.deployment.socket_holder import fetch, pass_on
from tableside.errors import StackError
from tableside.settings import Settings, load

CONF = "nginx.conf"
IDLE_CONNECTIONS = 32
"""Idle connections to the workers that one nginx process keeps."""
_FIRST_FD = 3


def render(settings: Settings) -> str:
    """nginx's configuration for these settings."""
    template = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False, keep_trailing_newline=True)  # noqa: S701 - not HTML
    files = min(16384, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    listen = {
        name: f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        for name, (host, port) in addresses(settings).items()
    }
    return template.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        server=settings.server,
        repository=settings.repository,
        listen=listen,
        web=WEB_SOCKET,
        control=CONTROL_SOCKET,
        kept=IDLE_CONNECTIONS,
        files=files,
        connections=min(4096, files // 2),
        is_root=os.geteuid() == 0,
        cores=os.cpu_count() or 1,
    )


def write(settings: Settings, nginx: str) -> Path:
    """Write the configuration into the run folder; `nginx -t` checks it. Raises StackError with its complaint."""
    path = settings.run_dir / CONF
    for folder in ("tmp", "log"):
        (settings.run_dir / folder).mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".new")
    draft.write_text(render(settings), encoding="utf-8")
    command = [nginx, "-t", "-q", "-p", str(settings.run_dir), "-c", str(draft), "-e", "log/nginx-error.log"]
    check = subprocess.run(command, capture_output=True, text=True, cwd=settings.run_dir, check=False)
    if check.returncode != 0:
        raise StackError(
            f"nginx refuses {draft}: {check.stderr.strip().splitlines()[0] if check.stderr else 'no reason given'}"
        )
    draft.replace(path)
    return path


def _use_batch_scheduling() -> None:
    """Let nginx not interrupt a worker each time it hands over an answer: it goes on when the worker waits, or after
    some milliseconds. On shared cores that saves switches, a fifth of all time when busy (docs/decisions/0005).
    """
    if hasattr(os, "SCHED_BATCH"):
        with suppress(OSError):  # a container may forbid it
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def main() -> None:
    """Fetch the sockets, write the configuration, execute nginx. It takes the sockets over by their address."""
    settings = load()
    nginx = find_nginx(os.environ)
    if nginx is None:
        raise SystemExit("tableside: nginx is not installed")
    descriptors = fetch(settings.run_dir)
    path = write(settings, nginx)
    os.chdir(settings.run_dir)
    pass_on([descriptors[DATA], descriptors[ADMIN]], _FIRST_FD)
    _use_batch_scheduling()
    os.environ["NGINX"] = f"{_FIRST_FD};{_FIRST_FD + 1};"
    command = [nginx, "-p", str(settings.run_dir), "-c", str(path), "-e", "log/nginx-error.log"]
    os.execv(nginx, command)  # noqa: S606 - becoming nginx is the point


if __name__ == "__main__":
    main()
