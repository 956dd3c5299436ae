"""The lock that only one web keeper of a run folder holds. A keeper that finds another one alive takes its place."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from tableside.deployment.instances import is_same_folder
from tableside.process import process_table
from tableside.process.file_locks import try_lock
from tableside.process.instance_names import KEEPER_LOCK, RUN_DIR
from tableside.process.process_table import Process

PATIENCE_S = 20.0
"""How long the other keeper may take to end before it is killed. Its instances go on in both cases."""
_POLL_S = 0.05


def take_over(run_dir: Path) -> int:
    """Return the descriptor that holds the lock. A keeper that holds it is asked to end, and killed after PATIENCE_S.

    Two keepers live at once if supervisord was killed and another one has started. Raises OSError if the lock file
    cannot be opened.
    """
    kill_at_s = time.monotonic() + PATIENCE_S
    asked: set[Process] = set()
    while True:
        lock = try_lock(run_dir / KEEPER_LOCK)
        if lock is not None:
            return lock
        is_late = time.monotonic() >= kill_at_s
        for keeper in _others(run_dir):
            if is_late or keeper not in asked:
                process_table.send(keeper, signal.SIGKILL if is_late else signal.SIGTERM)
                asked.add(keeper)
        time.sleep(_POLL_S)


def _others(run_dir: Path) -> list[Process]:
    """The other keepers of this run folder. A guardian looks the same, but leads a session of its own."""
    return [
        found.process
        for found in process_table.find("web_keeper", RUN_DIR)
        if found.process.pid != os.getpid()
        and not found.leads_session
        and is_same_folder(found.environ[RUN_DIR], run_dir)
    ]
