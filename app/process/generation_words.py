"""Words of memory that all workers of a host share: the current generation, and how far each worker is with the next.

They are one mapped file of the run folder. A word is a number of 64 bits at a multiple of 8 bytes, so the processor
reads and stores it whole. A switch is one store, which every worker sees with its next request. The space of the file
is reserved when it is made, so a full disk prevents no switch.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path

from tableside.process.file_locks import is_locked
from tableside.process.worker_slots import MAX_WORKER_SLOTS

FILE = "words"
CURRENT, PROPOSED = 0, 1
"""The places of the two words of the host."""
_FIRST, _EACH = 8, 4
_PID, _SERVES, _PREPARED = 0, 1, 2
SIZE_BYTES = 8 * (_FIRST + _EACH * MAX_WORKER_SLOTS)


class GenerationWords:
    """The words of a run folder, or of this process alone.

    words: 64-bit words; `words[CURRENT]` is the generation that every worker of the host answers with.
    """

    def __init__(self, words: memoryview) -> None:
        self.words = words

    @classmethod
    def alone(cls) -> GenerationWords:
        """Return words that no other process sees."""
        return cls(memoryview(bytearray(SIZE_BYTES)).cast("Q"))

    @classmethod
    def open(cls, folder: Path) -> GenerationWords:
        """Map the file in `folder`, which is made if it is missing. Raises OSError if it cannot be."""
        folder.mkdir(parents=True, exist_ok=True)
        fd = os.open(folder / FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if os.fstat(fd).st_size < SIZE_BYTES:
                os.posix_fallocate(fd, 0, SIZE_BYTES)
            mapped = mmap.mmap(fd, SIZE_BYTES)
        finally:
            os.close(fd)
        return cls(memoryview(mapped).cast("Q"))

    @property
    def current(self) -> int:
        """The generation that is served; 0 before the first."""
        return self.words[CURRENT]

    @property
    def proposed(self) -> int:
        """The newest generation that workers shall prepare, or have prepared."""
        return self.words[PROPOSED]

    def propose(self, generation: int) -> None:
        """Let the workers prepare a generation. Only the holder of the switch lock may."""
        self.words[PROPOSED] = generation

    def commit(self, generation: int) -> None:
        """Switch every worker of the host. Only the holder of the switch lock may."""
        if generation > self.words[PROPOSED]:
            self.words[PROPOSED] = generation
        self.words[CURRENT] = generation

    def begin(self, slot: int) -> None:
        """Take the words of a worker slot for this process, which serves nothing yet."""
        if slot < MAX_WORKER_SLOTS:
            start = _FIRST + _EACH * slot
            self.words[start + _SERVES] = self.words[start + _PREPARED] = 0
            self.words[start + _PID] = os.getpid()

    def serves(self, slot: int, generation: int) -> None:
        """Say which generation this worker answers with; 0 takes it out of the switches that begin from now on."""
        if slot < MAX_WORKER_SLOTS:
            self.words[_FIRST + _EACH * slot + _SERVES] = generation

    def prepared(self, slot: int, generation: int, refused: bool) -> None:
        """Say that this worker has prepared a generation, or has something to say against it."""
        if slot < MAX_WORKER_SLOTS:
            self.words[_FIRST + _EACH * slot + _PREPARED] = 2 * generation + refused

    def serving(self, slots: set[int]) -> dict[int, int]:
        """Return the process id by slot of the workers in `slots` that answer requests."""
        found = {}
        for slot in slots:
            start = _FIRST + _EACH * slot
            if slot < MAX_WORKER_SLOTS and self.words[start + _SERVES]:
                found[slot] = self.words[start + _PID]
        return found

    def answer_of(self, slot: int, generation: int) -> bool | None:
        """Return whether a worker refuses a generation that it has prepared; None while it prepares."""
        value = self.words[_FIRST + _EACH * slot + _PREPARED]
        return bool(value & 1) if value >> 1 == generation else None

    def generation_of(self, slot: int) -> int:
        """Return the generation that a worker answers with."""
        return self.words[_FIRST + _EACH * slot + _SERVES]

    def is_alive(self, slot: int, pid: int, folder: Path) -> bool:
        """Return whether the worker still holds its slot. folder: that of the worker slots."""
        return self.words[_FIRST + _EACH * slot + _PID] == pid and is_locked(folder / f"{slot}.lock")
