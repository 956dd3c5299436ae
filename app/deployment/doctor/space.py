"""Room: the disk of the run folder and the memory for the models."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress

from tableside.deployment import disk_fit, memory_fit
from tableside.deployment.doctor.finding import Finding, Level
from tableside.deployment.doctor.set_up import SetUp

ABOUT = "room"
_FEW_INODES = 5000
_PREFIX = "tableside: warning: "


def check(set_up: SetUp) -> Iterator[Finding]:
    """Yield where room is short: the lines that a start prints too, and files that the file system can still make."""
    settings = set_up.settings
    for line, consequence in (
        (memory_fit.warning(settings), "the kernel kills workers"),
        (disk_fit.warning(settings), "the stack goes on, but loses log lines, and answers large requests with 507"),
    ):
        if line:
            title, _, change = line.removeprefix(_PREFIX).strip().rpartition(": ")
            words, _, figures = title.partition(", and ")
            yield Finding(Level.WARNING, ABOUT, words, figures, consequence, change[:1].upper() + change[1:])
    with suppress(OSError):
        found = os.statvfs(settings.run_dir)
        if found.f_files and found.f_favail < _FEW_INODES:
            yield Finding(
                Level.WARNING, ABOUT, "the file system of the run folder can make few more files",
                f"{found.f_favail} free inodes of {found.f_files}", "sockets and status files cannot be made",
                f"Remove small files from the file system of {settings.run_dir}",
            )  # fmt: skip
