"""A process of its own that reads gunicorn.conf.py as gunicorn does, and prints the settings as JSON.

The file patches the standard library, which must not happen in the process of a command. Arguments: those of gunicorn.
GUNICORN_CMD_ARGS counts as it does for gunicorn.
"""

from __future__ import annotations

import os
import sys

import orjson
from gunicorn.app.base import Application

from tableside.server.refused_settings import find_refused

ONLY_SETTINGS = "TABLESIDE_ONLY_SETTINGS"
"""With this variable gunicorn.conf.py imports no libraries: nobody will be forked from this process."""
NAMES = ("backlog", "graceful_timeout", "keepalive", "preload_app", "timeout", "worker_class_str", "worker_connections")


class SettingsReader(Application):
    """An application that is never run."""

    def init(self, parser: object, opts: object, args: object) -> None:
        """Add nothing to the settings of file, variable and command."""

    def load(self) -> None:
        """Return no WSGI application."""


def main() -> None:
    """Print one JSON object."""
    os.environ[ONLY_SETTINGS] = "1"
    cfg = SettingsReader().cfg
    found: dict[str, object] = {name: getattr(cfg, name) for name in NAMES}
    sys.stdout.write(orjson.dumps({**found, "refused": find_refused(cfg)}).decode())


if __name__ == "__main__":
    main()
