"""Answer files: large answers, complete on disk before nginx sends the first byte of them.

nginx has a client's answer in memory as far as its buffers hold it. What is larger would have to wait in the worker
for a slow reader, or in a file that nginx writes while it sends: when the disk is full, nginx cuts that answer off
after its status 200. So the worker writes the file, and has nginx send it. Without room, nothing has been sent.

nginx keeps the file open until the client has it; the disk counts its space until then. This process removes the
file's name as soon as nginx has opened it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from itertools import count
from pathlib import Path

from tableside.process.offload import run_native
from tableside.process.open_watch import OpenWatch

FOLDER, DRAFTS = "tmp/answers", "tmp/answer_drafts"
"""In the run folder: the files for nginx, and those that are being written, which nobody may take for opened."""
KEEP_S = 30.0
"""Age at which a file is removed that nginx has not opened: its client has gone."""
SWEEP_EVERY_S, LEFT_S = 60.0, 300.0
"""How often files that no living worker removes are looked for, and the age from which on they are."""


class AnswerFiles:
    """The answer files of one worker. Use it on the event loop only; the disk is used in native threads."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir, self._folder = run_dir, run_dir / FOLDER
        self._numbers = count()
        self._written_s: dict[str, float] = {}
        self._watch: OpenWatch | None = None
        self._swept_s = 0.0

    def put(self, body: bytes) -> str:
        """Write an answer and return the name of its file. Raises OSError if the disk has no room for all of it."""
        name = f"{os.getpid()}-{time.time_ns():x}-{next(self._numbers)}"
        self._prepare()
        run_native(partial(_write, self._run_dir / DRAFTS / name, self._folder / name, body))
        self._written_s[name] = time.monotonic()
        self.collect()
        return name

    def collect(self) -> None:
        """Remove the files that nginx has opened, and those that it will not open any more."""
        now_s = time.monotonic()
        if not self._written_s and now_s - self._swept_s < SWEEP_EVERY_S:
            return
        opened = self._watch.opened() if self._watch else set()
        due = [name for name, at_s in self._written_s.items() if name in opened or now_s - at_s > KEEP_S]
        for name in due:
            del self._written_s[name]
        sweeps = now_s - self._swept_s >= SWEEP_EVERY_S
        if sweeps:
            self._swept_s = now_s
        if due or sweeps:
            run_native(partial(_remove, [self._folder / name for name in due], self._run_dir if sweeps else None))

    def _prepare(self) -> None:
        """Make the folders, and watch the one that nginx opens files in. Without a watch, files are kept for KEEP_S."""
        if self._watch is None:
            for folder in (FOLDER, DRAFTS):
                (self._run_dir / folder).mkdir(parents=True, exist_ok=True)
            with suppress(OSError):
                self._watch = OpenWatch(self._folder)


def _write(draft: Path, file: Path, body: bytes) -> None:
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb", 0) as stream:
            rest = memoryview(body)
            while rest:
                rest = rest[stream.write(rest) :]
        draft.rename(file)
    except OSError:
        with suppress(OSError):
            draft.unlink()
        raise


def _remove(files: Iterable[Path], sweep: Path | None) -> None:
    """Remove these files, and with `sweep`, the run folder, what workers that have ended have left."""
    for file in files:
        with suppress(OSError):
            file.unlink()
    if sweep is None:
        return
    oldest_s = time.time() - LEFT_S
    for folder in (FOLDER, DRAFTS):
        for file in (sweep / folder).glob("*"):
            with suppress(OSError):
                if file.stat().st_mtime < oldest_s:
                    file.unlink()
