"""Writes and checks nginx's configuration, then replaces this process by nginx on the sockets of the socket holders."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from pathlib import Path

import jinja2

from tableside import machine
from tableside.deployment.layout import ADMIN, CONTROL_SOCKET, DATA, TEMPLATE, WEB_SOCKET, addresses, find_nginx
from tableside.deployment.nginx_guard import STATUS_PATH
from tableside.deployment.socket_holder import fetch, pass_on
from tableside.errors import StackError
from tableside.settings import Settings, load
from tableside.telemetry import sampling

CONF = "nginx.conf"
IDLE_CONNECTIONS = 32
"""Number of idle connections to the workers that one nginx process keeps open."""
PROBES_PER_CLIENT = 64
"""Health probes that one client address may have open at once; they do not count with its other requests."""
_FIRST_FD = 3
_SPARE_FILES = 64


def render(settings: Settings) -> str:
    """Return nginx's configuration for these settings."""
    template = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False, keep_trailing_newline=True)  # noqa: S701 - not HTML
    connections = max_connections()
    listen = {
        name: f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        for name, (host, port) in addresses(settings).items()
    }
    return template.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        server=settings.server,
        repository=settings.repository,
        log=settings.log,
        log_percent=sampling.percent(settings.log.access_one_in or 1),
        status_path=STATUS_PATH,
        listen=listen,
        web=WEB_SOCKET,
        control=CONTROL_SOCKET,
        kept=IDLE_CONNECTIONS,
        probes=PROBES_PER_CLIENT,
        places=places(min(settings.server.max_requests_in_flight, connections // 4)),
        files=machine.open_files(),
        connections=connections,
        is_root=os.geteuid() == 0,
        processes=processes(),
    )


def max_connections() -> int:
    """Return how many connections one nginx process may have. Other files are for logs, sockets and large bodies."""
    files = machine.open_files()
    return files - max(_SPARE_FILES, files // 8)


def processes() -> int:
    """Return how many worker processes nginx has."""
    return min(machine.processors(), 4)


def places(requests: int) -> list[int]:
    """Divide the requests that the workers may have at once among the lines of nginx's upstream that name their socket.

    There are as many lines as retries need (see the template), or fewer if the limit is smaller.
    """
    lines = min(IDLE_CONNECTIONS + 2, requests)
    share, rest = divmod(requests, lines)
    return [share + (line < rest) for line in range(lines)]


def write(settings: Settings, nginx: str) -> Path:
    """Write the configuration into the run folder and return its path. nginx: path of the nginx program.

    Raises StackError with the first error line of `nginx -t` if nginx does not accept it; the file in use stays as it
    was.
    """
    path = settings.run_dir / CONF
    for folder in ("tmp", "log"):
        (settings.run_dir / folder).mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".new")
    draft.write_text(render(settings), encoding="utf-8")
    command = [nginx, "-t", "-q", "-p", str(settings.run_dir), "-c", str(draft), "-e", "log/nginx-error.log"]
    check = subprocess.run(command, capture_output=True, text=True, cwd=settings.run_dir, check=False)
    if check.returncode != 0:
        raise StackError(
            f"`nginx -t` rejected {draft}: {check.stderr.strip().splitlines()[0] if check.stderr else 'no message'}"
        )
    draft.replace(path)
    return path


def _use_batch_scheduling() -> None:
    """Run nginx under SCHED_BATCH (sched(7)) to reduce preemption of workers.

    Without it nginx interrupts a worker for each answer it passes on. On shared cores those context switches cost a
    fifth of the time under load (docs/decisions/0005).
    """
    if hasattr(os, "SCHED_BATCH"):
        with suppress(OSError):  # a container may forbid it
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def main() -> None:
    """Fetch the sockets, write the configuration and execute nginx. Does not return.

    nginx matches each inherited socket to a `listen` line by its address. Raises SystemExit if nginx is not installed,
    StackError if it rejects the configuration, TimeoutError if no socket holder answers.
    """
    settings = load()
    nginx = find_nginx(os.environ)
    if nginx is None:
        raise SystemExit(
            "tableside: nginx is not installed: install it (apt-get install nginx-light) or set server.nginx to 'off'"
        )
    descriptors = fetch(settings.run_dir)
    path = write(settings, nginx)
    os.chdir(settings.run_dir)
    pass_on([descriptors[DATA], descriptors[ADMIN]], _FIRST_FD)
    _use_batch_scheduling()
    os.environ["NGINX"] = f"{_FIRST_FD};{_FIRST_FD + 1};"
    command = [nginx, "-p", str(settings.run_dir), "-c", str(path), "-e", "log/nginx-error.log"]
    os.execv(nginx, command)  # noqa: S606 - this process becomes nginx


if __name__ == "__main__":
    main()
