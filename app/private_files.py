"""Files that only this user may read: keys, and the certificate with its private key. They are written in one step.

Whoever reads such a file sees the content of before or the new one, also when the disk is full or the writer is killed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


def write(path: Path, content: bytes, check: Callable[[Path], None] | None = None) -> None:
    """Write a file with mode 0600, through a draft beside it that no reader knows.

    check: looks at the draft before it becomes the file; what it raises is raised here, and nothing has changed.
    Raises OSError if it cannot be written; then too nothing has changed, and no draft is left.
    """
    draft = path.with_name(f"{path.name}.{os.getpid()}.new")
    with suppress(FileNotFoundError):
        draft.unlink()  # of an earlier process with this pid, which was killed
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if check is not None:
            check(draft)
        draft.replace(path)
    finally:
        with suppress(OSError):
            draft.unlink()


def give_to_owner(fd: int, folder: Path) -> None:
    """Let a file that root writes belong to the owner of the folder, who has to read or write it too."""
    if os.geteuid() == 0:
        owner = folder.stat()
        with suppress(OSError):
            os.fchown(fd, owner.st_uid, owner.st_gid)


def problem(found: os.stat_result, path: Path) -> str:
    """Return why others than this user may have read or changed a file, and what to type; empty if they may not."""
    if found.st_mode & 0o077:
        return f"can be read or changed by other users of this host. Run: chmod 600 {path}"
    if found.st_uid not in (0, os.geteuid()):
        return f"belongs to another user. Run: chown {os.geteuid()} {path}"
    return ""
