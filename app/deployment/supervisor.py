"""The commands `supervisord` and `supervisorctl`, with the environment variables that supervisord.conf uses.

They replace supervisor's own scripts in the environment, so that plain `supervisorctl status` works.
"""

from __future__ import annotations

import os
import sys

from tableside.deployment.layout import environment
from tableside.errors import TablesideError
from tableside.settings import load


def _prepare() -> None:
    try:
        os.environ.update(environment(load(), os.environ))
    except TablesideError as problem:
        sys.stderr.write(f"tableside: {problem}\n")
        raise SystemExit(2) from None


def control() -> None:
    """Run `supervisorctl` for the stack in server.run_dir. Raises SystemExit with code 2 if the settings are wrong."""
    from supervisor.supervisorctl import main

    _prepare()
    main()


def daemon() -> None:
    """Become `supervisord`. Prefer `tableside run`, which checks the ports and folders first."""
    _prepare()
    # A new program has the run folder in the environment that /proc shows, by which other commands find it.
    command = [sys.executable, "-m", "supervisor.supervisord", *sys.argv[1:]]
    os.execve(sys.executable, command, os.environ)  # noqa: S606 - this process becomes supervisord
