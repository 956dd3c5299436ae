"""A drained host: an operator has taken it out of the traffic. Readiness answers 503 and requests are still answered.

The state is a file in the run folder, so that it holds for workers that start later too. It ends with `resume`, and
with the next start of a stack in the run folder.
"""

from __future__ import annotations

import os
from pathlib import Path

FILE = "drained"


def drain(run_dir: Path) -> None:
    """Take the host out of the traffic. Raises OSError if the file cannot be written."""
    os.close(os.open(run_dir / FILE, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))


def resume(run_dir: Path) -> bool:
    """Put the host back. Return whether it was drained. Raises OSError if the file cannot be removed."""
    try:
        (run_dir / FILE).unlink()
    except FileNotFoundError:
        return False
    return True


def is_drained(run_dir: Path) -> bool:
    """Return whether the host is drained. Takes some microseconds; never raises."""
    return os.path.exists(run_dir / FILE)
