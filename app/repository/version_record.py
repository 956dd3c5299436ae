"""The record of the version numbers of a model, `NAME/versions.jsonl`: a number is never used twice.

Versions can be removed, with `tableside delete` or with `rm`, and clients and logs still name them. So each publish
adds its number here, each delete says so, and a number in the record is not given to another version. The file is only
appended to. A version's identity is the SHA-256 of its contract, which names the SHA-256 of every other file: the same
version that is copied back keeps its number.
"""

from __future__ import annotations

import getpass
import os
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec

from tableside.contracts.environment import sha256
from tableside.errors import ContractBroken, FailureKind
from tableside.process import plain_files
from tableside.repository import paths
from tableside.repository.paths import CONTRACT, VERSION_RECORD

MAX_BYTES = 1 << 24


class Entry(msgspec.Struct, frozen=True):
    """One line. act: `published`; `seen`, for a version that came by another road; `deleted`. at: UTC, ISO 8601."""

    version: int
    act: Literal["published", "seen", "deleted"]
    contract_sha256: str
    at: str = ""
    by: str = ""


def read(root: Path, name: str) -> list[Entry]:
    """Return the entries of a model's record, oldest first. A line that was cut off by a full disk is skipped.

    Raises ContractBroken if the file cannot be read.
    """
    try:
        content = plain_files.read(root / name / VERSION_RECORD, MAX_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as problem:
        raise ContractBroken(f"{name}/{VERSION_RECORD}: {problem.strerror or problem}") from problem
    found = []
    for line in content.splitlines():
        with suppress(msgspec.DecodeError):
            found.append(msgspec.json.decode(line, type=Entry))
    return found


def append(root: Path, name: str, entries: Iterable[Entry]) -> None:
    """Add lines to a model's record, and wait until they are on the disk. Raises OSError if they cannot be written."""
    lines = b"".join(msgspec.json.encode(entry) + b"\n" for entry in entries)
    if not lines:
        return
    fd = os.open(root / name / VERSION_RECORD, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        size = os.fstat(fd).st_size
        if size and os.pread(fd, 1, size - 1) != b"\n":
            lines = b"\n" + lines
        while lines:
            lines = lines[os.write(fd, lines) :]
        os.fsync(fd)
    finally:
        os.close(fd)


def entry(root: Path, name: str, version: int, act: Literal["published", "seen", "deleted"]) -> Entry:
    """Return the line that says that the version in the repository was published, seen or deleted, now and by whom.

    Raises OSError if its contract cannot be read.
    """
    digest = sha256(paths.version_folder(root, name, version) / CONTRACT)
    return Entry(version, act, digest, datetime.now(UTC).isoformat(timespec="seconds"), _user())


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return str(os.getuid())


def note(root: Path, name: str, published: int | None = None) -> None:
    """Record the versions that are not in the record yet: the one that was just published, and those that came by
    another road, such as rsync. A repository that cannot be written stays as it is.

    Raises ContractBroken if the record cannot be read.
    """
    known = {each.version for each in read(root, name)}
    with suppress(OSError):
        new = [version for version in paths.versions(root, name) if version not in known]
        append(root, name, [entry(root, name, each, "published" if each == published else "seen") for each in new])


def note_all(root: Path) -> None:
    """Record the versions of every model, as `note` does. What cannot be read is left to those who report it."""
    with suppress(OSError):
        for name in sorted(os.listdir(root)):
            with suppress(ContractBroken, OSError):
                note(root, name)


def next_number(root: Path, name: str) -> int:
    """Return the number of the next version: one more than the highest that was ever used."""
    return max((0, *paths.versions(root, name), *(each.version for each in read(root, name)))) + 1


def used(root: Path, name: str, version: int) -> Entry | None:
    """Return the last line about a number that is in the record; None for a number that was never used."""
    return next((each for each in reversed(read(root, name)) if each.version == version), None)


def taken_numbers(root: Path, name: str, published: Collection[int]) -> Iterator[tuple[int, str]]:
    """Yield each published version that has the number of a deleted one, with the reason why it is not served.

    Raises ContractBroken if the record cannot be read.
    """
    last = {each.version: each for each in read(root, name)}
    for version in published:
        before = last.get(version)
        if before is not None and before.act == "deleted":
            reason = _refusal(root, name, version, before)
            if reason:
                yield version, reason


def check(root: Path, name: str, version: int) -> None:
    """Raise ContractBroken if the version has the number of another one that was deleted."""
    for _, reason in taken_numbers(root, name, [version]):
        raise ContractBroken(reason, FailureKind.OTHER)


def _refusal(root: Path, name: str, version: int, before: Entry) -> str:
    with suppress(OSError):
        if entry(root, name, version, "seen").contract_sha256 == before.contract_sha256:
            return ""
    return (
        f"{name}/{version} was deleted at {before.at}, and this folder holds another version with its number. A number "
        f"is never used twice: move the folder away and publish the model again, which gives it the number "
        f"{next_number(root, name)}"
    )
