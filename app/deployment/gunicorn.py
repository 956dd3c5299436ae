"""Replaces this process by gunicorn, which listens on the sockets of the socket holders.

The sockets are passed as LISTEN_FDS (sd_listen_fds(3)), because gunicorn unlinks a socket that it was given with
`--bind fd://` when it stops.
"""

from __future__ import annotations

import os
import sys

from tableside.deployment import model_programs, setting_changes
from tableside.deployment.layout import PROJECT
from tableside.deployment.socket_holder import fetch, for_gunicorn, pass_on
from tableside.preflight.results import PREFLIGHT_FOLDER, forget_failures
from tableside.server.head_limits import is_behind_nginx
from tableside.settings import load
from tableside.telemetry import logs

CONF = PROJECT / "gunicorn.conf.py"
_FIRST_LISTEN_FD = 3


def main() -> None:
    """Fetch the sockets from a socket holder and execute gunicorn. Does not return.

    Raises TimeoutError if no socket holder answers.
    """
    settings = load()
    logs.configure(settings.log.format, settings.log.level)
    setting_changes.note(settings)
    forget_failures(
        settings.run_dir / PREFLIGHT_FOLDER
    )  # versions that crashed or hung are tried again after a restart
    model_programs.update(settings)  # environments may have been added since supervisord was started
    descriptors = for_gunicorn(fetch(settings.run_dir), is_behind_nginx())
    pass_on(descriptors, _FIRST_LISTEN_FD)
    os.environ.update(LISTEN_FDS=str(len(descriptors)), LISTEN_PID=str(os.getpid()))
    command = [sys.executable, "-m", "gunicorn", "-c", str(CONF)]
    os.execv(sys.executable, command)  # noqa: S606 - this process becomes gunicorn


if __name__ == "__main__":
    main()
