"""The file of a checked artifact: a checksum, an index in JSON, then arrays, each at a multiple of 64 bytes.

A reader maps the file, so that the arrays of all workers of a host are the same memory.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.lib import format as npy

from tableside.contracts.array_type import Array
from tableside.process.private_mapping import map_private
from tableside.runtimes.skops_records import Records, TypeKey

_MAGIC = b"tableside checked artifact 1\n"
_HEAD = len(_MAGIC) + hashlib.sha256().digest_size
_LENGTH = 8
_ALIGNMENT = 64


class Index(msgspec.Struct, frozen=True):
    """What a file says before its arrays.

    artifact: its SHA-256. untrusted: the types in it that skops does not trust. arrays: (place in `dtypes`, shape,
    whether it is in Fortran's order, first byte after the index). kept: (first byte, length). root: the record of
    the estimator. is_finished: whether that is the whole estimator, so that nothing has to be put into it.
    """

    artifact: str
    untrusted: tuple[str, ...]
    is_finished: bool
    types: tuple[TypeKey, ...]
    dtypes: tuple[Any, ...]
    arrays: tuple[tuple[int, tuple[int, ...], bool, int], ...]
    kept: tuple[tuple[int, int], ...]
    root: Any


def write(path: Path, artifact: str, untrusted: Sequence[str], records: Records, is_finished: bool) -> None:
    """Write a file that only this user can read. Raises OSError, and FileExistsError if there is one."""
    blocks = [*records.arrays, *(np.frombuffer(each, np.uint8) for each in records.kept)]
    starts = list(_starts(blocks))
    dtypes: list[Any] = []
    arrays = []
    for array, start in zip(records.arrays, starts, strict=False):
        written = npy.dtype_to_descr(array.dtype)
        if written not in dtypes:
            dtypes.append(written)
        is_fortran = array.flags.f_contiguous and not array.flags.c_contiguous
        arrays.append((dtypes.index(written), array.shape, is_fortran, start))
    kept = [(start, len(each)) for start, each in zip(starts[len(arrays) :], records.kept, strict=True)]
    index = msgspec.json.encode(
        Index(
            artifact, tuple(untrusted), is_finished, tuple(records.types), tuple(dtypes), tuple(arrays), tuple(kept),
            records.root,
        )
    )  # fmt: skip
    with path.open("xb") as file:
        os.fchmod(file.fileno(), 0o400)
        digest = hashlib.sha256()
        file.seek(_HEAD)
        for part in _parts(index, blocks):
            digest.update(part)
            file.write(part)
        file.seek(0)
        file.write(_MAGIC + digest.digest())


def _starts(blocks: Sequence[Array]) -> Iterator[int]:
    start = 0
    for block in blocks:
        yield start
        start += block.nbytes + -block.nbytes % _ALIGNMENT


def _parts(index: bytes, blocks: Sequence[Array]) -> Iterator[bytes]:
    head = len(index).to_bytes(_LENGTH, "little") + index
    yield head
    yield bytes(-(_HEAD + len(head)) % _ALIGNMENT)
    for block in blocks:
        yield block.tobytes("A")
        yield bytes(-block.nbytes % _ALIGNMENT)


def read(path: Path) -> tuple[Index, Records] | None:
    """Map a file and return its index and records; None if there is none.

    Raises OSError, ValueError or msgspec's errors for a file that is not whole, or that others could have written.
    """
    content = verified(path, _MAGIC)
    if content is None:
        return None
    end = _LENGTH + int.from_bytes(content[:_LENGTH], "little")
    index = msgspec.json.decode(content[_LENGTH:end], type=Index)
    base = end + -(_HEAD + end) % _ALIGNMENT
    dtypes = [_dtype(written) for written in index.dtypes]
    arrays = [
        np.ndarray(shape, dtypes[at], content, base + start, order="F" if is_fortran else "C")
        for at, shape, is_fortran, start in index.arrays
    ]
    kept = [bytes(content[base + start : base + start + size]) for start, size in index.kept]
    return index, Records(index.root, list(index.types), arrays, kept)


def verified(path: Path, magic: bytes) -> memoryview | None:
    """Map a file that holds `magic`, the SHA-256 of the rest, and the rest. Return the rest; None if there is no file.

    It is writable; what is written stays in this process. Raises OSError, or ValueError for a file that does not match
    its checksum or that others could have written.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        state = os.fstat(fd)
        if not stat.S_ISREG(state.st_mode) or state.st_uid != os.geteuid() or state.st_mode & 0o022:
            raise ValueError("not a file that only the server's user can write")
        mapping = map_private(fd, state.st_size)
    finally:
        os.close(fd)
    content = memoryview(mapping).cast("B")
    head = len(magic) + hashlib.sha256().digest_size
    if content[: len(magic)] != magic or content[len(magic) : head] != hashlib.sha256(content[head:]).digest():
        raise ValueError("the file does not match its checksum")
    return content[head:]


def _dtype(written: Any) -> np.dtype[Any]:
    """The dtype of a description: JSON has lists where numpy's has tuples."""
    if isinstance(written, str):
        return np.dtype(written)
    fields: Any = [tuple(tuple(part) if isinstance(part, list) else part for part in field) for field in written]
    found: np.dtype[Any] = npy.descr_to_dtype(fields)
    return found
