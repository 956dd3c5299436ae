"""The keys file: who may call the server with which scope. It has the SHA-256 of each key, never the key.

A key is 256 random bits, so nobody can find it from its hash by trying. A slow password hash would add nothing but time
to each request. The file is outside of the model repository, because whoever writes models must not make keys.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path

import msgspec

from tableside import private_files
from tableside.errors import KeysFailed

PREFIX = "tableside_"
"""The beginning of each key, by which programs that look for secrets recognize it."""
NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}\Z")
_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
_DURATION = re.compile(r"^([1-9][0-9]{0,4})([hdw])\Z")


class Scope(StrEnum):
    """What a key is good for. ADMIN includes the other two."""

    PREDICT = "predict"
    """Predictions, metadata and documents."""
    METRICS = "metrics"
    """The metrics of the host."""
    ADMIN = "admin"
    """Every route."""


class AccessKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One key. sha256: the hash of the key in hexadecimal. expires: from when on it is refused; None means never."""

    name: str
    scope: Scope
    sha256: str
    created: datetime
    expires: datetime | None = None

    def has_expired(self, now: datetime) -> bool:
        """Return whether the key is refused at this time."""
        return self.expires is not None and now >= self.expires

    def allows(self, scope: Scope) -> bool:
        """Return whether the key is good for this scope."""
        return self.scope in (scope, Scope.ADMIN)


class _Content(msgspec.Struct, forbid_unknown_fields=True):
    keys: list[AccessKey]


def digest(token: str) -> str:
    """Return the SHA-256 of a key, in hexadecimal."""
    return hashlib.sha256(token.encode()).hexdigest()


def match(keys: Iterable[AccessKey], token: str) -> AccessKey | None:
    """Return the key that this text is, None if it is none of them.

    Every key is compared, each in constant time, so that the time says neither which one it was nor how far it agreed.
    """
    given, found = digest(token), None
    for key in keys:
        if hmac.compare_digest(key.sha256, given):
            found = key
    return found


def check_name(name: str) -> None:
    """Raise KeysFailed for a text that is no name for a key."""
    if not NAME.match(name):
        raise KeysFailed(f"{name!r} is no name for a key: use 1 to 64 letters, digits, '-', '_', '.' or '@'")


def parse_duration(text: str) -> timedelta:
    """Return the time that `90d`, `12h` or `4w` means. Raises KeysFailed for another form."""
    found = _DURATION.match(text)
    if not found:
        raise KeysFailed(f"--expires {text}: expected a number of hours, days or weeks, such as 12h, 90d or 4w")
    return int(found[1]) * _UNITS[found[2]]


@dataclass(frozen=True)
class KeysFile:
    """The file with the keys. repository: the folder of the models, in which the file must not be."""

    path: Path
    repository: Path

    def stamp(self) -> tuple[int, ...]:
        """Return what changes when the file does: its inode and times; an empty tuple if there is no file."""
        try:
            found = self.path.stat()
        except OSError:
            return ()
        return (found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size)

    def read(self) -> tuple[AccessKey, ...]:
        """Return the keys; none if the file does not exist.

        Raises KeysFailed if it cannot be read, or if others than its owner may have read or changed it.
        """
        self._check_place()
        try:
            with self.path.open("rb") as file:
                if why := private_files.problem(os.fstat(file.fileno()), self.path):
                    raise KeysFailed(f"server.keys_file ({self.path}) {why}")
                content = file.read()
        except FileNotFoundError:
            return ()
        except OSError as problem:
            raise KeysFailed(f"server.keys_file ({self.path}) cannot be read: {problem.strerror}") from problem
        try:
            return tuple(msgspec.json.decode(content, type=_Content).keys)
        except (msgspec.DecodeError, UnicodeDecodeError) as problem:
            raise KeysFailed(
                f"server.keys_file ({self.path}) is damaged: {problem}. Restore it from a copy, or remove it and make "
                "new keys with `tableside keys add`"
            ) from problem

    def add(self, name: str, scope: Scope, now: datetime, lifetime: timedelta | None = None) -> str:
        """Make a key and return it: it is not kept. Raises KeysFailed for a name that is in use or not possible."""
        check_name(name)
        token = f"{PREFIX}{secrets.token_urlsafe(32)}"
        now = now.replace(microsecond=0)
        made = AccessKey(name, scope, digest(token), now, now + lifetime if lifetime else None)
        with self._locked():
            keys = self.read()
            if any(key.name == name for key in keys):
                raise KeysFailed(
                    f"there is a key {name!r} already. To replace it without a gap, add one with another name, give it "
                    f"to the callers, then run `tableside keys revoke {name}`"
                )
            self._write([*keys, made])
        return token

    def revoke(self, name: str) -> AccessKey:
        """Remove a key and return what it was. Raises KeysFailed if there is none of this name."""
        with self._locked():
            keys = self.read()
            removed = next((key for key in keys if key.name == name), None)
            if removed is None:
                known = ", ".join(key.name for key in keys) or "none"
                raise KeysFailed(f"there is no key {name!r} in {self.path}; its keys: {known}")
            self._write([key for key in keys if key.name != name])
        return removed

    def _check_place(self) -> None:
        if self.path.resolve().is_relative_to(self.repository.resolve()):
            raise KeysFailed(
                f"server.keys_file ({self.path}) is inside the repository {self.repository}, so whoever writes models "
                "could make keys. Set it to a file outside of the repository"
            )

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock of the file's folder: two commands at once must not lose a key."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as problem:
            raise KeysFailed(f"server.keys_file ({self.path}): {problem.strerror}") from problem
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)

    def _write(self, keys: Sequence[AccessKey]) -> None:
        """Replace the file in one step: a reader sees the earlier keys or these."""
        content = msgspec.json.format(msgspec.json.encode(_Content(list(keys)))) + b"\n"
        try:
            private_files.write(self.path, content)
        except OSError as problem:
            raise KeysFailed(f"server.keys_file ({self.path}) cannot be written: {problem.strerror}") from problem
