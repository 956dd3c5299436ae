"""What marks the processes of an instance: variables of their environment, and the locks of what watches over them."""

from __future__ import annotations

from pathlib import Path

from tableside.process.file_locks import is_locked

INSTANCE_ID = "TABLESIDE_INSTANCE_ID"
"""The variable that names the instance of a process. Each gunicorn master that is started has its own; later ones sort
behind earlier ones.
"""
RUN_DIR = "TABLESIDE_RUN_DIR"
"""The variable with the run folder of a process."""
KEEPER_LOCK = "web_keeper.lock"
"""The file in the run folder that the web keeper locks while it lives."""
GUARDIAN_LOCK = "web_guardian.lock"
"""The file in the run folder that each guardian locks, shared with others, while it lives."""


def is_kept(run_dir: Path) -> bool:
    """Return whether a web keeper or a guardian of this run folder lives."""
    return is_locked(run_dir / KEEPER_LOCK) or is_locked(run_dir / GUARDIAN_LOCK, shared=True)
