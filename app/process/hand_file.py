"""The hand file: what each worker of a host has in hand, in memory that outlives the worker.

The file is mapped by all workers of a run folder (MAP_SHARED), so that what a worker has written is there after SIGSEGV
or SIGKILL. Its space is reserved: a write to a mapped page without space would end the process (SIGBUS). Each worker
slot has a region with entries, one for each request in hand. The ledger is a text that all workers share: see
`tableside.process.suspects`.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from enum import IntEnum
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

FOLDER = "in_hand"
FILE = "requests.1"
"""The number is that of the layout below: releases with another layout have another file."""
KEY_BYTES = 16
HEAD_BYTES = 4096
LEDGER_BYTES = 1 << 18
SLOTS = 128
"""Workers with a higher slot number record nothing."""
ENTRIES = 512
"""Requests of one worker that can be recorded at once; some more are not."""
ENTRY = struct.Struct("<BB6xd16s48s112s")
"""State, whether it runs alone, start (seconds since 1970), digest, request id, model."""
_SLOT_HEAD = struct.Struct("<QQQQ")
"""pid, its start in clock ticks since boot, the OOM kills of the host at the last heartbeat, whether it is valid."""
_PULSE = struct.Struct("<QQ")
"""Behind the head of a slot: when the last heartbeat was, and how late it came, in microseconds."""
_CHECKSUMS = 64
"""Where the head of a slot has the checksum of each entry's request id, 4 bytes each; 0 for an entry that is free."""
_SLOT_HEAD_BYTES = 4096
_SLOT_BYTES = _SLOT_HEAD_BYTES + ENTRIES * ENTRY.size
_FIRST_SLOT = HEAD_BYTES + LEDGER_BYTES
_SIZE = _FIRST_SLOT + SLOTS * _SLOT_BYTES
_VERSION = 4
"""Index, in 8 bytes, of the ledger's version in the head. An odd version is being written."""
_USED = 5
"""Index, in 8 bytes, of the number of slots that have been taken, in the head."""
_LENGTH = struct.Struct("<I")
BEAT_S = 1.0
"""How often a worker notes a heartbeat."""
_LOCK_TRIES, _LOCK_PAUSE_S = 100, 0.002


class State(IntEnum):
    """FREE: no entry. WAITING: in the queue of its model. COMPUTING: decoded, computed or encoded. LEFT: answered 504
    while its call still runs.
    """

    FREE = 0
    WAITING = 1
    COMPUTING = 2
    LEFT = 3


# Each request uses these twice. Looking them up in the class takes longer than the rest of the line.
_FREE, _COMPUTING, _ENTRY_BYTES = int(State.FREE), int(State.COMPUTING), ENTRY.size


class Entry(NamedTuple):
    """A request in hand. digest: of its path and body, in hexadecimal. model: `name/version`."""

    state: State
    alone: bool
    started_at_s: float
    digest: str
    request_id: str
    model: str


class Holder(NamedTuple):
    """The process that has or had a slot. oom_kills: those of the host at its last heartbeat."""

    pid: int
    started: int
    oom_kills: int


class Pulse(NamedTuple):
    """A worker's last heartbeat: when it was, in seconds since 1970, how late, and the requests in hand now."""

    beat_at_s: float
    late_s: float
    in_hand: int

    def lag_s(self, now_s: float) -> float:
        """Return how late its event loop is: as late as the last beat came, or the next one is already."""
        return round(max(self.late_s, now_s - self.beat_at_s - BEAT_S, 0.0), 3)


class HandFile:
    """The file, mapped by this process. Each process opens it for itself: a lock belongs to one opening."""

    def __init__(self, run_dir: Path) -> None:
        """Open the file, and make it if it is missing. Raises OSError, also where there is no space for it."""
        self.folder = run_dir / FOLDER
        self.folder.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(self.folder / FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if os.fstat(self._fd).st_size < _SIZE:
                os.ftruncate(self._fd, _SIZE)
            os.posix_fallocate(self._fd, 0, _FIRST_SLOT)
            self._map = mmap.mmap(self._fd, _SIZE)
        except OSError:
            os.close(self._fd)
            raise
        self._words = memoryview(self._map).cast("Q")
        self._short_words = memoryview(self._map).cast("I")
        self._free: dict[int, list[int]] = {}
        with self._locked() as is_locked:
            if is_locked and not any(self._map[:KEY_BYTES]):
                self._map[:KEY_BYTES] = os.urandom(KEY_BYTES)
        self._hasher = blake2b(key=self._map[:KEY_BYTES], digest_size=16)

    def close(self) -> None:
        """Unmap the file. Nothing may be called afterwards."""
        self._words.release()
        self._short_words.release()
        self._map.close()
        os.close(self._fd)

    def digest(self, path: str, body: bytes) -> bytes:
        """Return the keyed digest (16 bytes) by which a request is recognized; its values cannot be guessed from it."""
        hasher = self._hasher.copy()
        hasher.update(b"%b\n" % path.encode())
        hasher.update(body)
        return hasher.digest()

    @property
    def version(self) -> int:
        """The ledger's version; another number means that it has changed."""
        return self._words[_VERSION]

    def read_ledger(self) -> tuple[int, bytes]:
        """Return the ledger's version and text. The version is odd if another process was writing: read it again."""
        before = self.version
        size = min(_LENGTH.unpack_from(self._map, HEAD_BYTES)[0], LEDGER_BYTES - _LENGTH.size)
        text = self._map[HEAD_BYTES + _LENGTH.size : HEAD_BYTES + _LENGTH.size + size]
        return (before if before == self.version else before | 1), text

    def update_ledger(self, change: Callable[[bytes], bytes | None], then: Callable[[], None] | None = None) -> bool:
        """Replace the ledger's text by `change(text)`, while no other process does; None leaves it as it is.

        then: is called after that and before another process may write, so that whoever sees what it did can also read
        the new text. Returns False if the lock is not free within a fifth of a second, or the new text is too long.
        """
        with self._locked() as is_locked:
            if not is_locked:
                return False
            text = change(self.read_ledger()[1])
            has_room = text is None or len(text) <= LEDGER_BYTES - _LENGTH.size
            if text is not None and has_room:
                self._words[_VERSION] |= 1
                _LENGTH.pack_into(self._map, HEAD_BYTES, len(text))
                self._map[HEAD_BYTES + _LENGTH.size : HEAD_BYTES + _LENGTH.size + len(text)] = text
                self._words[_VERSION] += 1
            if then is not None:
                then()
        return has_room

    def wait_for_writer(self) -> None:
        """Wait until no other process writes the ledger, at most a fifth of a second."""
        with self._locked():
            pass

    def take(self, slot: int, holder: Holder) -> None:
        """Reserve the region of a slot and empty it, for the worker that has taken the slot. Raises OSError if full."""
        at = _offset(slot)
        os.posix_fallocate(self._fd, at, _SLOT_BYTES)
        self._map[at : at + _SLOT_BYTES] = bytes(_SLOT_BYTES)
        _SLOT_HEAD.pack_into(self._map, at, *holder, 1)
        self._free[slot] = list(range(ENTRIES - 1, -1, -1))
        self._words[_USED] = max(self._words[_USED], slot + 1)

    def free(self, slot: int) -> None:
        """Empty the region of a slot whose worker has ended."""
        at = _offset(slot)
        self._map[at : at + _SLOT_BYTES] = bytes(_SLOT_BYTES)

    def beat(self, slot: int, oom_kills: int, now_s: float) -> None:
        """Note a heartbeat, and the OOM kills of the host at it."""
        at = _offset(slot)
        self._words[at // 8 + 2] = oom_kills
        before_us, _ = _PULSE.unpack_from(self._map, at + _SLOT_HEAD.size)
        late_s = max(0.0, now_s - before_us / 1e6 - BEAT_S) if before_us else 0.0
        _PULSE.pack_into(self._map, at + _SLOT_HEAD.size, int(now_s * 1e6), int(late_s * 1e6))

    def pulse(self, slot: int) -> Pulse | None:
        """Return the last heartbeat of a slot's worker; None before the first one."""
        at = _offset(slot)
        beat_us, late_us = _PULSE.unpack_from(self._map, at + _SLOT_HEAD.size)
        taken = self._map[at + _CHECKSUMS : at + _CHECKSUMS + 4 * ENTRIES]
        in_hand = sum(1 for each in memoryview(taken).cast("I") if each)
        return Pulse(beat_us / 1e6, late_us / 1e6, in_hand) if beat_us else None

    def holder(self, slot: int) -> Holder | None:
        """Return the worker that has the slot, or had it and was not settled; None if there is none."""
        *holder, is_valid = _SLOT_HEAD.unpack_from(self._map, _offset(slot))
        return Holder(*holder) if is_valid else None

    def slots(self) -> Iterator[int]:
        """Yield the slots that have a holder."""
        for slot in range(min(self._words[_USED], SLOTS)):
            if self._words[_offset(slot) // 8]:
                yield slot

    def put(self, slot: int, digest: bytes, request_id: str, model: str, alone: bool, now_s: float) -> int:
        """Record a request as COMPUTING, in a slot that this object has taken. Return its place; 0 if there is none."""
        if not (free := self._free[slot]):
            return 0
        entry, name, first = free.pop(), request_id.encode(), _FIRST_SLOT + slot * _SLOT_BYTES
        at = first + _SLOT_HEAD_BYTES + entry * _ENTRY_BYTES
        ENTRY.pack_into(self._map, at, _COMPUTING, alone, now_s, digest, name, model.encode())
        self._short_words[(first + _CHECKSUMS) // 4 + entry] = zlib.crc32(name) or 1
        return at

    def mark(self, place: int, state: State) -> None:
        """Set the state of an entry. Place 0 is no entry."""
        if place:
            self._map[place] = state

    def forget(self, slot: int, place: int) -> None:
        """Free an entry of a slot that this object has taken."""
        if place:
            first = _FIRST_SLOT + slot * _SLOT_BYTES
            entry = (place - first - _SLOT_HEAD_BYTES) // _ENTRY_BYTES
            self._map[place] = _FREE
            self._short_words[(first + _CHECKSUMS) // 4 + entry] = 0
            self._free[slot].append(entry)

    def entries(self, slot: int) -> list[Entry]:
        """Return the entries of a slot."""
        first = _offset(slot) + _SLOT_HEAD_BYTES
        places = range(first, first + ENTRIES * ENTRY.size, ENTRY.size)
        return [self._entry(at) for at in places if self._map[at]]

    def find(self, request_id: str, other_than: int) -> list[int]:
        """Return the other slots in which a request with this id is perhaps in hand."""
        checksum, found = struct.pack("=I", zlib.crc32(request_id.encode()) or 1), []
        for slot in self.slots():
            at = _offset(slot) + _CHECKSUMS
            if slot != other_than and checksum in self._map[at : at + 4 * ENTRIES]:
                found.append(slot)
        return found

    def _entry(self, at: int) -> Entry:
        state, alone, started_at_s, digest, request_id, model = ENTRY.unpack_from(self._map, at)
        return Entry(State(state), bool(alone), started_at_s, digest.hex(), _text(request_id), _text(model))

    def _locked(self) -> _Lock:
        return _Lock(self._fd)


class _Lock:
    """Holds flock(2) on the file. A process that was stopped while it held the lock must not stop all others."""

    def __init__(self, fd: int) -> None:
        self._fd, self._is_locked = fd, False

    def __enter__(self) -> bool:
        for _ in range(_LOCK_TRIES):
            with suppress(OSError):
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._is_locked = True
                break
            time.sleep(_LOCK_PAUSE_S)
        return self._is_locked

    def __exit__(self, *problem: object) -> None:
        if self._is_locked:
            fcntl.flock(self._fd, fcntl.LOCK_UN)


def _offset(slot: int) -> int:
    return _FIRST_SLOT + slot * _SLOT_BYTES


def _text(padded: bytes) -> str:
    return padded.rstrip(b"\0").decode(errors="replace")
