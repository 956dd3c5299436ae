"""Whether the disk of the run folder has room for what the stack may write: told at the start, before it is full.

The need is what the settings allow, less what is there already: logs with their renamed files, one largest body and one
largest answer on their way through nginx, and the artifacts as they are when unpacked (`run/checked_artifacts/`).
"""

from __future__ import annotations

import shutil
from contextlib import suppress

from tableside.deployment import memory_fit
from tableside.settings import Settings

LOGS = 4
"""Logs that grow with requests: the workers', nginx's two, and supervisord's."""
OTHER_BYTES = 50_000_000
"""Metrics, status files, generations, results of preflights."""


def need_bytes(settings: Settings) -> int:
    """Return what the run folder may take when the stack has run for long."""
    logs = LOGS * (settings.log.keep_files + 1) * settings.log.max_bytes
    passing = settings.server.max_body_bytes + settings.server.max_answer_bytes
    return logs + passing + memory_fit.need(settings).shared + OTHER_BYTES


def warning(settings: Settings, free_bytes: int | None = None) -> str:
    """Return one line if the run folder's disk has less room; otherwise an empty string.

    free_bytes: the free space; None for what the file system says.
    """
    needed, used = need_bytes(settings), 0
    with suppress(OSError):
        used = sum(file.stat().st_size for file in settings.run_dir.rglob("*") if file.is_file())
        if free_bytes is None:
            free_bytes = shutil.disk_usage(settings.run_dir).free
    if free_bytes is None or needed - used <= free_bytes:
        return ""
    return (
        f"tableside: warning: the disk of {settings.run_dir} has {free_bytes / 1e9:.2g} GB free, and the stack may "
        f"come to need {(needed - used) / 1e9:.2g} GB there: make room, or set log.max_bytes and log.keep_files lower\n"
    )
