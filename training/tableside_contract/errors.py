"""What this package raises."""

from __future__ import annotations


class RecordFailed(Exception):
    """No training record can be made. The text says what to change."""
