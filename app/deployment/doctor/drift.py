"""What runs against what the settings say now: changes that are not in force, and settings that gunicorn refuses."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from tableside.deployment import nginx
from tableside.deployment.doctor import nginx_conf
from tableside.deployment.doctor.finding import Finding, Level
from tableside.deployment.doctor.set_up import SetUp
from tableside.deployment.layout import PROJECT, supervisorctl
from tableside.deployment.stack_processes import Role, find
from tableside.settings import Settings

ABOUT = "settings"
_MOST, _SHOWN = 3, 80
"""Lines that a finding shows, and characters of each."""


def check(set_up: SetUp) -> Iterator[Finding]:
    """Yield settings that are not in force, or cannot be."""
    if set_up.gunicorn_problem:
        yield Finding(
            Level.ERROR, ABOUT, "gunicorn.conf.py cannot be read", set_up.gunicorn_problem,
            "gunicorn does not start; one that runs goes on", "Correct gunicorn.conf.py, or GUNICORN_CMD_ARGS",
        )  # fmt: skip
    refused = set_up.gunicorn.get("refused", [])
    for line in refused if isinstance(refused, list) else ():
        yield Finding(
            Level.ERROR, ABOUT, "a setting of gunicorn is refused", str(line), "gunicorn does not start",
            "Change it in gunicorn.conf.py, or in GUNICORN_CMD_ARGS",
        )  # fmt: skip
    for plane, text in set_up.nginx.items() if set_up.supervisord else ():
        yield from _nginx(set_up, plane, text)


def nginx_changes(settings: Settings, plane: str, text: str) -> str:
    """Say which lines nginx's configuration would get if it were written now; empty if it would stay the same.

    text: the configuration that the nginx of this plane has read. Raises ValueError if it is no nginx configuration.
    Files, processors and user are not compared: those of this process, such as a shell, can be other than the stack's.
    """
    conf = nginx_conf.parse(text)
    wanted = nginx.render(settings, plane, nginx_conf.value(conf, "pid"), _host(conf))
    if text == wanted:
        return ""
    changed = [
        line[2:].strip()
        for line in difflib.ndiff(text.splitlines(), wanted.splitlines())
        if line.startswith("+ ") and line[2:].strip() and not line[2:].strip().startswith("#")
    ]
    shown = "`, `".join(each[:_SHOWN] for each in changed[:_MOST])
    return f"{len(changed)} lines would change, such as `{shown}`" if changed else "lines are gone"


def is_of_this_release(run_dir: Path) -> bool:
    """Whether this release has started nginx. An upgrade leaves nginx as the release before has started it."""
    keepers = find(run_dir, Role.NGINX_KEEPER)
    return all(os.path.realpath(f"/proc/{each.pid}/cwd") == str(PROJECT) for each in keepers)


def _host(conf: Sequence[nginx_conf.Directive]) -> nginx.Host:
    """What the process that wrote this configuration gave nginx."""
    files, processes = (nginx_conf.value(conf, name) for name in ("worker_rlimit_nofile", "worker_processes"))
    own = nginx.host()
    return nginx.Host(
        open_files=int(files) if files.isdecimal() else own.open_files,
        processes=int(processes) if processes.isdecimal() else own.processes,
        is_root=bool(nginx_conf.value(conf, "user")),
    )


def _nginx(set_up: SetUp, plane: str, text: str) -> Iterator[Finding]:
    changes = nginx_changes(set_up.settings, plane, text)
    if not changes:
        return
    run_dir = set_up.settings.run_dir
    if not is_of_this_release(run_dir):
        yield Finding(
            Level.NOTE, ABOUT, f"nginx ({plane}) runs as another release has started it", changes,
            "what this release, or a change of the settings, changes in nginx's configuration is not in force",
            "If the stack was started through a link to the release, run: "
            f"{supervisorctl(run_dir, 'restart', 'nginx:*')}. Otherwise it needs `tableside stop` and a new start",
        )  # fmt: skip
        return
    yield Finding(
        Level.WARNING, ABOUT, f"nginx ({plane}) runs with other settings than these", changes,
        "what was changed is not in force: tableside.toml, a variable of the environment, or the file itself",
        f"Run `tableside restart`, then: {supervisorctl(run_dir, 'signal', 'HUP', 'nginx')}. Addresses "
        "and times need `tableside stop` and a new start, with the variables with which the stack was started",
    )  # fmt: skip
