"""How a process has ended, in words."""

from __future__ import annotations

import signal


def ending_of(code: int) -> str:
    """Return the exit code, or the signal for a negative one, as text; for SIGKILL with its likely cause."""
    if code >= 0:
        return f"exit code {code}"
    name = signal.Signals(-code).name
    return f"{name}, which often means that the machine ran out of memory" if name == "SIGKILL" else name
