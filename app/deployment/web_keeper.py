"""The web keeper, supervisor's program `web`: it starts gunicorn, and ends an instance when its successor is ready.

`tableside.deployment.instance_keeper` does the work. Importing it takes a moment, in which a signal would end this
process: a HUP that follows a restart, for instance. Signals therefore wait until it listens to them.

If the keeper cannot be imported or started, a file in the run folder says so. The next keeper that can start then
replaces the instance that runs: the operator has corrected the code or the settings, and perhaps asked for a restart
while no keeper ran that could notice it.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from importlib import import_module
from pathlib import Path

WORK = "tableside.deployment.instance_keeper"
FAILED = "web_keeper.failed"
"""The file that says that a keeper could not start."""


def main() -> None:
    """Start the keeper and let it work. The run folder notes only that it cannot start, no later error."""
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
    try:
        keeper = import_module(WORK).make()
    except Exception:
        with suppress(OSError, KeyError):
            (Path(os.environ["TABLESIDE_RUN_DIR"]) / FAILED).touch(0o600)  # what has the name may be what is broken
        raise
    raise SystemExit(keeper.run())


if __name__ == "__main__":
    main()
