"""Unpacks an uploaded tar file into an empty folder: ordinary files below it, and no more of them than is allowed.

Nothing of a member but its name and its bytes is used: no owner, mode, time or link. The folder may hold part of the
files when an error is raised; the caller removes it.
"""

from __future__ import annotations

import gzip
import tarfile
import zlib
from io import BufferedIOBase
from pathlib import Path
from typing import BinaryIO, cast

from tableside.errors import RequestRejected, TooLarge
from tableside.repository import verified_files

MAX_MEMBERS = 2000
"""Most files and folders of an archive. Own code has some hundred modules at most."""
SETTING = "server.max_upload_bytes"
_GZIP_MAGIC = b"\x1f\x8b"
_CHUNK_BYTES = 1 << 18
_data_filter = getattr(tarfile, "data_filter", None)
"""The standard library's own check. Python 3.11 before 3.11.4 lacks it; `_place` refuses more than it does."""
_HEADS_BYTES = MAX_MEMBERS * 2 * tarfile.BLOCKSIZE
"""What the heads of the members and the padding of their content take in the archive, beside the content."""


class _Limited:
    """A stream that raises TooLarge after `limit_bytes`: a few kilobytes of gzip can hold gigabytes."""

    def __init__(self, stream: BufferedIOBase, limit_bytes: int) -> None:
        self._stream, self._limit_bytes, self._left = stream, limit_bytes, limit_bytes + _HEADS_BYTES

    def read(self, size: int = -1) -> bytes:
        """Read up to `size` bytes."""
        content = self._stream.read(min(size, self._left + 1) if size >= 0 else self._left + 1)
        self._left -= len(content)
        if self._left < 0:
            raise TooLarge(SETTING, self._limit_bytes)
        return content


def unpack(path: Path, into: Path, limit_bytes: int) -> None:
    """Unpack a tar file, plain or compressed with gzip. limit_bytes: the most that its files may have together.

    Raises RequestRejected for what is no such archive, for a link, a device, an absolute name, one with `..` or a
    hidden file, for a name that is there twice, and for more than MAX_MEMBERS; TooLarge above `limit_bytes`; OSError
    when it cannot be written.
    """
    with path.open("rb") as file:
        is_gzip = file.read(2) == _GZIP_MAGIC
        file.seek(0)
        stream = cast(BufferedIOBase, gzip.GzipFile(fileobj=file)) if is_gzip else cast(BufferedIOBase, file)
        source = cast(BinaryIO, _Limited(stream, limit_bytes))
        try:
            with tarfile.open(fileobj=source, mode="r|") as archive:
                _unpack_members(archive, into, limit_bytes)
        except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as problem:
            raise RequestRejected(
                f"the body is no tar file, plain or with gzip, or is cut off: {problem}. Make one with `tar -C FOLDER "
                "-cf FILE.tar .`"
            ) from problem


def _unpack_members(archive: tarfile.TarFile, into: Path, limit_bytes: int) -> None:
    total = 0
    for count, member in enumerate(archive, 1):
        if count > MAX_MEMBERS:
            raise RequestRejected(f"the archive has more than {MAX_MEMBERS} files")
        total += member.size
        if total > limit_bytes:
            raise TooLarge(SETTING, limit_bytes)
        target = _place(member, into)
        if member.isdir():
            target.mkdir(parents=True, exist_ok=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        _write(archive, member, target)


def _place(member: tarfile.TarInfo, into: Path) -> Path:
    """Return where a member belongs. Raises RequestRejected for what is no ordinary file or folder below `into`."""
    shown = repr(member.name[:100])
    if not (member.isreg() or member.isdir()) or member.issparse():
        raise RequestRejected(f"the archive has {shown}, which is a link or a device. Pack ordinary files only")
    if _data_filter is not None:
        try:
            _data_filter(member, str(into))
        except tarfile.TarError as problem:
            raise RequestRejected(f"the archive has {shown}, which would be written outside of its folder") from problem
    name = member.name.removeprefix("./").rstrip("/")
    if name in ("", ".") and member.isdir():
        return into
    if not verified_files.is_safe(name):
        raise RequestRejected(
            f"the archive has {shown}, which is no name of a file of a version: letters, digits, '_', '-', '.' and "
            "spaces, not hidden, not absolute, without '..'"
        )
    return into / name


def _write(archive: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    content = archive.extractfile(member)
    assert content is not None  # it is an ordinary file
    try:
        with target.open("xb") as file:
            while chunk := content.read(_CHUNK_BYTES):
                file.write(chunk)
    except FileExistsError as problem:
        raise RequestRejected(f"the archive has {member.name[:100]!r} twice") from problem


def content_folder(unpacked: Path) -> Path:
    """Return the folder that holds the files: `tar -c NAME` packs a folder, and `tar -C NAME -c .` its content."""
    for _ in range(2):
        entries = list(unpacked.iterdir())
        if len(entries) != 1 or not entries[0].is_dir():
            break
        unpacked = entries[0]
    return unpacked
