"""The web keeper, supervisor's program `web`: it starts gunicorn, and ends an instance when its successor is ready.

`tableside.deployment.instance_keeper` does the work. Importing it takes a moment, in which a signal would end this
process: a HUP that follows a restart, for instance. Signals therefore wait until it listens to them.
"""

from __future__ import annotations

import signal
from importlib import import_module

WORK = "tableside.deployment.instance_keeper"

if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
    import_module(WORK).main()
