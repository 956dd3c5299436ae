"""Renames log files that have become too large. supervisord rotates those that it writes; these are nginx's."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def rotate(file: Path, max_bytes: int, keep: int) -> bool:
    """Rename `file` to `NAME.1`, and `NAME.1` to `NAME.2` and so on, if it has more than `max_bytes`.

    keep: how many renamed files are left; the oldest is removed first, so that this needs no space. Return whether the
    file was renamed: whoever writes it has to open it again. Never raises OSError.
    """
    try:
        if file.stat().st_size <= max_bytes:
            return False
        _numbered(file, keep).unlink(missing_ok=True)
        for number in range(keep - 1, 0, -1):
            with suppress(FileNotFoundError):
                _numbered(file, number).rename(_numbered(file, number + 1))
        file.rename(_numbered(file, 1))
    except OSError:
        return False
    return True


def _numbered(file: Path, number: int) -> Path:
    return file.with_name(f"{file.name}.{number}")
