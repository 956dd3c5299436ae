"""Says what a benchmark does now."""

from __future__ import annotations

import sys
from datetime import UTC, datetime


def progress(text: str) -> None:
    """Write a line with the time of day to standard error."""
    sys.stderr.write(f"{datetime.now(UTC):%H:%M:%S} {text}\n")
    sys.stderr.flush()
