"""Become gunicorn, listening on the held sockets.

They go over as LISTEN_FDS (sd_listen_fds(3)) and not as `--bind fd://`: with that gunicorn unlinks the socket when it
stops.
"""

from __future__ import annotations

import os
import sys

from tableside.deployment.layout import PROJECT
from tableside.deployment.socket_holder import fetch, for_gunicorn, pass_on
from tableside.preflight.results import PREFLIGHT_FOLDER, forget_failures
from tableside.settings import load

_FIRST_LISTEN_FD = 3


def main() -> None:
    """Fetch, pass on, execute."""
    settings = load()
    forget_failures(settings.run_dir / PREFLIGHT_FOLDER)  # a restart tries again what crashed or hung
    descriptors = for_gunicorn(fetch(settings.run_dir), os.environ.get("TABLESIDE_NGINX") == "true")
    pass_on(descriptors, _FIRST_LISTEN_FD)
    os.environ.update(LISTEN_FDS=str(len(descriptors)), LISTEN_PID=str(os.getpid()))
    command = [sys.executable, "-m", "gunicorn", "-c", str(PROJECT / "gunicorn.conf.py")]
    os.execv(sys.executable, command)  # noqa: S606 - becoming gunicorn is the point


if __name__ == "__main__":
    main()
