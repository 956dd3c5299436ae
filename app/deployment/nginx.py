"""Writes and checks nginx's configuration, and builds the command that starts nginx."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import jinja2

from tableside import machine
from tableside.deployment.layout import ADMIN, CONTROL_SOCKET, DATA, TEMPLATE, WEB_SOCKET, addresses
from tableside.deployment.nginx_answers import FILES
from tableside.deployment.nginx_guard import STATUS_PATH
from tableside.deployment.tls import PEM
from tableside.errors import StackError
from tableside.server.head_limits import LINE_SPARE_BYTES
from tableside.settings import Settings
from tableside.telemetry import sampling

CONF = {DATA: "nginx.conf", ADMIN: "nginx-control.conf"}
"""The configuration of the nginx of each plane. They are two, because a client can fill all connections of one."""
CONTROL_CONNECTIONS = 4096
"""Connections that the nginx of the control plane may have."""
CHECK_PID_FILE = "tmp/nginx-check.pid"
"""Pid file for a configuration that is only checked: `nginx -t` makes an empty one."""
IDLE_CONNECTIONS = 32
"""Number of idle connections to the workers that one nginx process keeps open."""
PROBES_PER_CLIENT = 64
"""Health probes that one client address may have open at once; they do not count with its other requests."""
COMPRESSED = (
    "application/json", "application/problem+json", "application/jsonlines", "application/x-jsonlines",
    "application/x-ndjson", "text/csv", "text/plain", "application/octet-stream", "application/x-npy",
    "application/vnd.apache.arrow.stream", "application/javascript", "text/javascript", "text/css",
)  # fmt: skip
"""Content types that nginx compresses for clients that accept gzip, beside text/html, which it always compresses."""
_SPARE_FILES = 64


class Host(NamedTuple):
    """What the configuration takes from the process that writes it.

    open_files: that one nginx process may open. processes: of the data plane. is_root: whether nginx starts as root.
    """

    open_files: int
    processes: int
    is_root: bool


def host() -> Host:
    """Return what this process gives nginx."""
    return Host(machine.open_files(), processes(), os.geteuid() == 0)


def render(settings: Settings, plane: str = DATA, pid_file: str = CHECK_PID_FILE, from_host: Host | None = None) -> str:
    """Return the configuration of the nginx of a plane, DATA or ADMIN.

    pid_file: path in the run folder. During a restart two nginx run, and each removes its pid file at its end, so that
    they need different ones. from_host: by default what this process gives nginx.
    """
    from_host = from_host or host()
    template = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False, keep_trailing_newline=True)  # noqa: S701 - not HTML
    connections = max_connections(from_host.open_files)
    if plane == ADMIN:
        connections = min(connections, CONTROL_CONNECTIONS)
    listen = {
        name: f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        for name, (host, port) in addresses(settings).items()
    }
    return template.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        pid_file=pid_file,
        server=settings.server,
        repository=settings.repository,
        log=settings.log,
        log_percent=sampling.percent(settings.log.access_one_in or 1),
        status_path=STATUS_PATH,
        status_socket=status_socket(pid_file),
        answers=FILES[plane],
        tls=PEM if settings.server.tls_certificate else "",
        listen=listen,
        line_bytes=max(settings.server.max_header_bytes, settings.server.max_url_bytes + LINE_SPARE_BYTES),
        compressed=COMPRESSED,
        prefixes=tuple(dict.fromkeys(("", settings.server.path_prefix))),
        cors=settings.server.cors_origins if plane == DATA else (),
        planes=("data",) if plane == DATA else ("control",),
        web=WEB_SOCKET,
        control=CONTROL_SOCKET,
        kept=IDLE_CONNECTIONS,
        probes=PROBES_PER_CLIENT,
        places=places(min(settings.server.max_requests_in_flight, connections // 4)),
        files=from_host.open_files,
        connections=connections,
        is_root=from_host.is_root,
        processes=from_host.processes if plane == DATA else 1,
    )


def status_socket(pid_file: str) -> str:
    """Return the path, in the run folder, of the unix socket on which the nginx of this pid file counts connections."""
    return str(Path(pid_file).with_suffix(".sock"))


def max_connections(files: int) -> int:
    """Return how many connections one nginx process may have that may open so many files.

    Other files are for logs, sockets and large bodies.
    """
    return files - max(_SPARE_FILES, files // 8)


def processes() -> int:
    """Return how many worker processes nginx has."""
    return min(machine.processors(), 4)


def places(requests: int) -> list[int]:
    """Divide the requests that the workers may have at once among the lines of nginx's upstream that name their socket.

    There are as many lines as retries need (see the template), or fewer if the limit is smaller.
    """
    lines = min(IDLE_CONNECTIONS + 3, requests)
    share, rest = divmod(requests, lines)
    return [share + (line < rest) for line in range(lines)]


def write(settings: Settings, nginx: str, plane: str = DATA, pid_file: str = CHECK_PID_FILE) -> Path:
    """Write the configuration of a plane into the run folder and return its path. nginx: path of the nginx program.

    Raises StackError with the first error line of `nginx -t` if nginx does not accept it, or if it cannot be written;
    the file in use stays as it was.
    """
    path = settings.run_dir / CONF[plane]
    draft = path.with_suffix(".new")
    try:
        for folder in ("tmp", "log", "metrics"):
            (settings.run_dir / folder).mkdir(parents=True, exist_ok=True)
        draft.write_text(render(settings, plane, pid_file), encoding="utf-8")
    except OSError as problem:
        raise StackError(f"server.run_dir: cannot write {draft}: {problem.strerror}") from problem
    command = [nginx, "-t", "-q", "-p", str(settings.run_dir), "-c", str(draft), "-e", "log/nginx-error.log"]
    check = subprocess.run(command, capture_output=True, text=True, cwd=settings.run_dir, check=False)
    if check.returncode != 0:
        raise StackError(
            f"`nginx -t` rejected {draft}: {check.stderr.strip().splitlines()[0] if check.stderr else 'no message'}"
        )
    draft.replace(path)
    return path


def use_batch_scheduling() -> None:
    """Run nginx under SCHED_BATCH (sched(7)) to reduce preemption of workers.

    Without it nginx interrupts a worker for each answer it passes on. On shared cores those context switches cost a
    fifth of the time under load (docs/decisions/0005).
    """
    if hasattr(os, "SCHED_BATCH"):
        with suppress(OSError):  # a container may forbid it
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def command(run_dir: Path, nginx: str, plane: str) -> list[str]:
    """Return the command that starts the nginx of a plane with the configuration that `write` has written."""
    return [nginx, "-p", str(run_dir), "-c", str(run_dir / CONF[plane]), "-e", "log/nginx-error.log"]
