"""The draft folder of a publish: made beside the versions, filled, then renamed. A refused publish leaves nothing."""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tableside.errors import PublishFailed

STALE_S = 3600
"""A draft folder that is older than this was left behind by a publish that was killed."""


def check_repository(root: Path, name: str) -> None:
    """Raise PublishFailed unless a version of the model can be written below `root`, before any work is done.

    `root` itself is made at the first publish, but not the folders above it: a path with a mistake would go unnoticed.
    """
    for folder in (root, root / name):
        if folder.exists() and not folder.is_dir():
            raise PublishFailed(f"{folder} is a file, not a folder. Pass the model repository with --repository")
    if not root.exists() and not root.absolute().parent.is_dir():
        raise PublishFailed(
            f"the repository {root} does not exist, and neither does {root.absolute().parent}. Correct the path, or "
            f"make the folder: mkdir -p {root}"
        )
    existing = next(folder for folder in (root / name, root, root.absolute().parent) if folder.exists())
    if not os.access(existing, os.W_OK | os.X_OK):
        raise PublishFailed(
            f"{existing} cannot be written by this user, or is read-only. Publish as its owner, or pass another "
            "folder with --repository"
        )


@contextmanager
def draft_in(folder: Path) -> Iterator[Path]:
    """Make a draft in a model's folder, and remove it at the end unless it was renamed.

    Folders that were made for it are removed as well if they are empty then. Raises PublishFailed when the system
    refuses to write.
    """
    made = [each for each in (folder, folder.parent) if not each.exists()]
    draft = folder / f".publishing-{uuid.uuid4().hex}"
    try:
        draft.mkdir(parents=True)
        _remove_stale_drafts(folder)
        yield draft
    except OSError as problem:
        raise PublishFailed(f"{folder} cannot be written: {problem.strerror or problem}") from problem
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        for each in made:
            with suppress(OSError):  # it holds a version, or another publish's draft
                each.rmdir()


def _remove_stale_drafts(folder: Path) -> None:
    """Remove drafts that a killed publish left behind, once no running publish can still use them."""
    for draft in folder.glob(".publishing-*"):
        with suppress(OSError):
            if time.time() - draft.stat().st_mtime > STALE_S:
                shutil.rmtree(draft, ignore_errors=True)
