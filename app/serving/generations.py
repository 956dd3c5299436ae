"""The generations of a host: numbered statements in the run folder, and the word that says which one is served.

A generation is proposed as a file that all workers read, prepare and answer for. It is switched by one store into the
mapped word of `process.generation_words`. Only the holder of the switch lock proposes and switches. The kernel frees
the lock when its holder ends, even by SIGKILL; the proposal is then given up, and its number is not used again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from tableside import private_files
from tableside.errors import ContractBroken, ModelNotReady
from tableside.process.file_locks import is_locked, try_lock
from tableside.process.generation_words import GenerationWords
from tableside.serving import statement
from tableside.serving.statement import Statement

FOLDER = "generations"
"""In the run folder."""
KEEP = 8
"""How many statements stay in the folder, beside the one that is served."""
LOCK = "switch.lock"
_POLL_S = 0.02
_SPARE = ".spare"
_SPARE_BYTES = 1 << 16


class Generations:
    """The generations of one run folder."""

    def __init__(self, folder: Path, words: GenerationWords) -> None:
        self.folder = folder
        self.words = words

    @classmethod
    def open(cls, run_dir: Path) -> Generations:
        """Return the generations of a run folder. Raises OSError if the word's file cannot be made."""
        folder = run_dir / FOLDER
        return cls(folder, GenerationWords.open(folder))

    def current(self) -> Statement:
        """Return the statement that is served; an empty one with generation 0 before the first.

        Raises ContractBroken if it was lost.
        """
        number = self.words.current
        return self.read(number) if number else statement.EMPTY

    def read(self, number: int) -> Statement:
        """Return a statement by its number. Raises ContractBroken if there is none."""
        try:
            content = self._file(number).read_bytes()
        except OSError as problem:
            raise ContractBroken(f"generation {number}: {problem.strerror or problem}") from problem
        return statement.decode(content)

    def propose(self, wanted: Statement) -> Statement:
        """Write a statement as the next generation and let the workers prepare it. Return it with its number.

        The holder of the switch lock may call this. Raises OSError if the file cannot be written.
        """
        number = max(newest(self.folder), self.words.proposed, self.words.current) + 1
        numbered = msgspec.structs.replace(wanted, generation=number)
        self._write(self._file(number), statement.encode(numbered))
        self.words.propose(number)
        return numbered

    def commit(self, number: int) -> None:
        """Switch to a proposed generation, and remove old files. The holder of the switch lock may call this."""
        self.words.commit(number)
        for old in sorted(self.folder.glob("[0-9]*.json"))[: -KEEP - 1]:
            if int(old.stem) != number:
                with suppress(FileNotFoundError):
                    old.unlink()

    def give_up(self) -> None:
        """Take back what was proposed and is not served: workers forget what they have prepared of it."""
        number = max(self.words.proposed, self.words.current) + 1
        self.words.propose(number)  # no file: there is nothing to prepare

    @property
    def is_switching(self) -> bool:
        """Whether a process of the host holds the switch lock."""
        return is_locked(self.folder / LOCK)

    @contextmanager
    def switch_lock(self, timeout_s: float) -> Iterator[None]:
        """Hold the switch lock. Raises ModelNotReady if another change does not end in `timeout_s` seconds."""
        give_up_at_s = time.monotonic() + timeout_s
        try:
            while (fd := try_lock(self.folder / LOCK)) is None:
                if time.monotonic() >= give_up_at_s:
                    raise ModelNotReady(
                        f"another change of the models is still being made after {timeout_s:g} s; try again"
                    )
                time.sleep(_POLL_S)
        except OSError as problem:
            raise cannot_tell(self.folder, problem) from problem
        try:
            yield
        finally:
            os.close(fd)

    def _file(self, number: int) -> Path:
        return self.folder / f"{number:010d}.json"

    def _write(self, target: Path, content: bytes) -> None:
        """Replace a file atomically, on a full disk with the space that the spare file holds."""
        spare = self.folder / _SPARE
        fd = os.open(spare, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            private_files.give_to_owner(fd, self.folder)  # the workers, which run as that user, read it
            offset = 0
            while offset < len(content):
                offset += os.pwrite(fd, content[offset:], offset)
            os.ftruncate(fd, len(content))
            os.fsync(fd)
        finally:
            os.close(fd)
        spare.replace(target)
        self.reserve(2 * len(content))

    def reserve(self, size_bytes: int = 0) -> None:
        """Reserve space for the next statement. Without room on the disk nothing is reserved."""
        with suppress(OSError):
            fd = os.open(self.folder / _SPARE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                private_files.give_to_owner(fd, self.folder)  # the workers, which run as that user, read it
                os.posix_fallocate(fd, 0, max(size_bytes, _SPARE_BYTES))
            finally:
                os.close(fd)


def newest(folder: Path) -> int:
    """Return the highest number of a file; 0 if there is no file or no folder."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return 0
    return max((int(name[:-5]) for name in names if name.endswith(".json") and name[:-5].isdecimal()), default=0)


def cannot_tell(folder: Path, problem: OSError) -> ModelNotReady:
    """Return the error for a folder that cannot be written."""
    return ModelNotReady(
        f"cannot tell the workers: {folder} cannot be written ({problem.strerror or problem}). Make room on disk, "
        "or give the server's user write access, then try again"
    )
