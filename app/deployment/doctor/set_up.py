"""What the doctor looks at: settings, the configuration of each server, the state of the run folder, limits.

It is read once, and the checks compare it. They ask nothing of the running stack themselves, except what a file says.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import orjson

from tableside import machine
from tableside.deployment import instances, layout, nginx, running_stack
from tableside.deployment.doctor import programs
from tableside.deployment.doctor.kernel_clock import is_synchronised
from tableside.deployment.doctor.programs import Programs
from tableside.deployment.gunicorn import CONF
from tableside.deployment.layout import MODEL_PROGRAMS, PROJECT_VARIABLE, SUPERVISORD_CONF
from tableside.process import worker_slots
from tableside.server.head_limits import is_behind_nginx
from tableside.settings import Settings

_CHILD_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class SetUp:
    """A set-up. supervisord: the pid; 0 if none runs.

    nginx: the text of each plane's configuration, none without nginx; files: where it is from, for messages. gunicorn:
    its settings; gunicorn_problem: why they are unknown. environ: of the gunicorn that runs, or would be started.
    statuses: of the workers. open_files: that a process may open; somaxconn: 0
    if unknown. clock_is_kept: None if unknown.
    """

    settings: Settings
    now: datetime
    supervisord: int
    environ: Mapping[str, str]
    nginx: Mapping[str, str]
    files: Mapping[str, str]
    programs: Programs
    gunicorn: Mapping[str, object] = field(default_factory=dict)
    gunicorn_problem: str = ""
    statuses: Sequence[Mapping[str, object]] = ()
    processors: int = 1
    open_files: int = 0
    somaxconn: int = 0
    clock_is_kept: bool | None = None

    @property
    def behind_nginx(self) -> bool:
        """Whether nginx is in front of gunicorn."""
        return bool(self.nginx)

    def number(self, name: str, default: float = 0) -> float:
        """Return a setting of gunicorn that is a number."""
        found = self.gunicorn.get(name, default)
        return float(found) if isinstance(found, (int, float)) else default


def gather(settings: Settings, environ: Mapping[str, str] | None = None) -> SetUp:
    """Read everything. environ: the variables of this process. Raises StackError if the settings need a missing nginx.

    Nothing is written and no server is asked to do anything.
    """
    run_dir = settings.run_dir
    wanted = layout.environment(settings, os.environ if environ is None else environ)
    found = instances.find(run_dir)
    supervisord = running_stack.supervisor_pid(run_dir)
    newest = instances.newest(found)
    running = newest.environ if newest else wanted
    texts, files = _nginx(settings, is_behind_nginx(running), bool(supervisord or found))
    gunicorn, problem = read_gunicorn(running)
    project = Path(wanted[PROJECT_VARIABLE])
    in_force = programs.of_supervisord(run_dir) if supervisord else {}
    return SetUp(
        settings=settings,
        now=datetime.now(UTC),
        supervisord=supervisord,
        environ=running,
        nginx=texts,
        files=files,
        programs=in_force or programs.of_files((project / SUPERVISORD_CONF, run_dir / MODEL_PROGRAMS), wanted),
        gunicorn=gunicorn,
        gunicorn_problem=problem,
        statuses=worker_slots.statuses(run_dir / "worker_slots"),
        processors=machine.processors(),
        open_files=_open_files(supervisord),
        somaxconn=somaxconn(),
        clock_is_kept=is_synchronised(),
    )


def _nginx(settings: Settings, is_used: bool, is_running: bool) -> tuple[dict[str, str], dict[str, str]]:
    """The configuration of each plane: the file that the running nginx has read, or what a start would write."""
    texts, files = {}, {}
    for plane, name in nginx.CONF.items() if is_used else ():
        path = settings.run_dir / name
        files[plane] = f"{path}, which each start writes from {layout.TEMPLATE.resolve()}"
        with suppress(OSError):
            if is_running:
                texts[plane] = path.read_text(encoding="utf-8")
        texts.setdefault(plane, nginx.render(settings, plane))
    return texts, files


def read_gunicorn(environ: Mapping[str, str], conf: Path = CONF) -> tuple[dict[str, object], str]:
    """Return gunicorn's settings, and why they are unknown; one of both is empty. environ: that gunicorn has."""
    command = [sys.executable, "-m", "tableside.deployment.doctor.gunicorn_child", "-c", str(conf)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_CHILD_TIMEOUT_S, check=False, env=dict(environ),
            cwd=conf.parent,
        )  # fmt: skip
        found: dict[str, object] = orjson.loads(done.stdout)
        return found, ""
    except (OSError, subprocess.TimeoutExpired) as problem:
        return {}, str(problem)
    except orjson.JSONDecodeError:
        return {}, (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]


def _open_files(supervisord: int) -> int:
    """The limit of the running stack, which its processes inherit; without one, what a start would get."""
    with suppress(OSError, ValueError, IndexError):
        for line in Path(f"/proc/{supervisord}/limits").read_text().splitlines() if supervisord else ():
            if line.startswith("Max open files"):
                return int(line.split()[3])
    return machine.open_files()


def somaxconn() -> int:
    """Return the kernel's limit of a listen queue; 0 if it cannot be read."""
    with suppress(OSError, ValueError):
        return int((machine.root() / "proc/sys/net/core/somaxconn").read_text())
    return 0
