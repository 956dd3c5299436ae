"""Watches the files of the repository, and has all workers serve what has changed: a hand edit, or a copied version.

One worker of the host watches: the one that holds the watch lock, which the kernel frees when its process ends. A
change is taken when two looks in a row see the same files, so that a copy that is under way is over.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tableside.errors import TablesideError
from tableside.process.file_locks import try_lock
from tableside.process.offload import run_native
from tableside.repository import paths
from tableside.serving import switching
from tableside.serving.generations import FOLDER
from tableside.settings import Settings
from tableside.telemetry import logs

LOCK = "watch.lock"
SETTLED_S = 0.5
"""How long files must stay as they are before a change is taken."""
SHARE = 50
"""A look that takes t seconds is followed by a pause of at least SHARE * t."""
RETRY_S = 15.0
"""After a change that the workers refused, it is tried again after this time."""
Signature = dict[str, tuple[tuple[str, int, int, int], ...]]
log = logs.get_logger("watch")


class RepositoryWatch:
    """The thread that watches. may_begin: whether this worker has loaded its models."""

    def __init__(self, settings: Settings, may_begin: Callable[[], bool]) -> None:
        self._settings = settings
        self._may_begin = may_begin
        self._seen: Signature | None = None
        self._new: Signature | None = None
        self._retry_at_s: float | None = None
        self._fd: int | None = None
        self._stop = threading.Event()

    def start(self) -> None:
        """Start the thread, unless `repository.watch_interval_s` is 0."""
        if self._settings.repository.watch_interval_s:
            threading.Thread(target=self._watch, name="watch", daemon=True).start()

    def stop(self) -> None:
        """End the thread before its next look, and let another worker watch."""
        self._stop.set()

    def _watch(self) -> None:
        pause_s = interval_s = self._settings.repository.watch_interval_s
        while not self._stop.wait(pause_s):
            pause_s = interval_s
            try:
                if self._may_begin() and self._is_watcher():
                    started_s = time.monotonic()
                    is_settled = self.look()
                    least_s = SHARE * (time.monotonic() - started_s) if is_settled else 0.0
                    pause_s = max(interval_s if is_settled else min(interval_s, SETTLED_S), min(least_s, 60.0))
            except Exception as problem:  # noqa: BLE001 - the next look may succeed, and nobody else would look
                log.error("watch_failed", reason=f"{type(problem).__name__}: {problem}")
        self.release()

    def release(self) -> None:
        """Let another worker watch."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)

    def _is_watcher(self) -> bool:
        if self._fd is None:
            self._fd = try_lock(self._settings.run_dir / FOLDER / LOCK)
        return self._fd is not None

    def look(self) -> bool:
        """Look at the files once, and make a change when they have settled. Return False while they change."""
        root = self._settings.repository_path
        found = run_native(lambda: signature_of(root))
        if found == self._seen and not self._is_due():
            return True
        if found not in (self._new, self._seen):
            self._new = found
            return False
        self._change(found)
        return True

    def _is_due(self) -> bool:
        return self._retry_at_s is not None and time.monotonic() >= self._retry_at_s

    def _change(self, found: Signature) -> None:
        before = self._seen
        names = [] if before is None else sorted(
            name for name in before.keys() | found.keys() if before.get(name) != found.get(name)
        )  # fmt: skip
        self._retry_at_s, self._new = None, None
        reason = f"files changed: {', '.join(names[:10])}" if names else "a look at the repository"
        try:
            switching.switch(self._settings, reason, retry=names)
        except TablesideError as problem:
            log.warning("change_refused", models=", ".join(names[:20]), reason=str(problem))
            self._retry_at_s = time.monotonic() + RETRY_S
        self._seen = found


def signature_of(root: Path) -> Signature:
    """Return what changes when a model.toml or a version is added, replaced or removed, by model. No content is read.

    Raises OSError if the folder cannot be read.
    """
    found: Signature = {}
    with os.scandir(root) as entries:
        folders = [entry for entry in entries if paths.NAME.match(entry.name) and entry.is_dir()]
    for folder in folders:
        try:
            found[folder.name] = tuple(sorted(_files_of(folder.path)))
        except OSError:  # removed at this moment
            continue
    return found


def _files_of(folder: str) -> Iterator[tuple[str, int, int, int]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name == paths.MODEL_TOML:
                stat = entry.stat()
                yield entry.name, stat.st_ino, stat.st_size, stat.st_mtime_ns
            elif paths.VERSION.match(entry.name) and entry.is_dir():
                yield entry.name, 0, 0, entry.stat().st_mtime_ns
                contract = f"{entry.path}/{paths.CONTRACT}"
                if os.path.exists(contract):
                    stat = os.stat(contract)
                    yield contract, stat.st_ino, stat.st_size, stat.st_mtime_ns
