"""Preflight results, kept as files in the run folder for all workers of the host.

A result is valid while the version's files, the libraries and the settings that matter stay the same. Failures are kept
too: otherwise each worker would wait for the time limit of a version that hangs. They are removed when an operator
requests a load or reload, and when gunicorn starts.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import orjson

from tableside import __version__
from tableside.contracts.environment import environment
from tableside.errors import FailureKind
from tableside.preflight.memory_need import Held
from tableside.process.file_locks import try_lock
from tableside.settings import Repository

Fingerprint = tuple[tuple[str, int, int, int], ...] | None
"""A version's files: name, inode, size in bytes, modification time in ns. None if the folder cannot be read."""
PREFLIGHT_FOLDER = "preflight"
"""Name of the results' folder below the run folder."""
_ASKED = ".asked"
_RELEASE = str(Path(__file__).resolve().parent)
"""The folder of this code, without links: releases in other folders do not share results."""
KEEP = 2000
"""How many result files `forget_failures` leaves in the folder; the oldest are removed first."""


@dataclass(frozen=True)
class VersionFiles:
    """A version, identified by its name, number and the fingerprint of its files.

    environment: the stamp of the environment in which it runs (see known_environments.stamp), after the
    environment's name; empty for the server's own.
    """

    name: str
    version: int
    fingerprint: Fingerprint
    environment: str = ""


class PreflightResult(msgspec.Struct, frozen=True):
    """The result of one preflight.

    failure_kind: NONE if the version may be loaded. reason: what is wrong. stderr_tail: the end of what the process
    wrote to stderr, for the log. is_permanent: whether the version itself is the cause; results of passing causes, such
    as a process that could not be started, are not kept. held: the memory that the load took in the preflight process.
    """

    failure_kind: FailureKind
    reason: str = ""
    stderr_tail: str = ""
    is_permanent: bool = True
    held: Held = Held()


@dataclass(frozen=True)
class PreflightResults:
    """The results known so far. complete: whether these are all."""

    known: Mapping[VersionFiles, PreflightResult] = field(default_factory=dict)
    complete: bool = True


class ResultStore:
    """The result files in one folder.

    Where the folder cannot be written, each worker runs its own preflights; versions are loaded all the same.
    """

    def __init__(self, folder: Path, policy: Repository) -> None:
        self._folder = folder
        self._policy = policy

    def path(self, files: VersionFiles) -> Path:
        """Return the file of a version's result; it may not exist. Its name is a hash of all that makes it valid."""
        return self._path(files, environment())

    def _path(self, files: VersionFiles, libraries: dict[str, str]) -> Path:
        policy = self._policy
        parts = (
            files.name, files.version, files.fingerprint, libraries, sys.executable, __version__, _RELEASE,
            policy.trusted_types, policy.trusted_libraries, policy.environment_skew, policy.load_timeout_s,
            policy.shared_memory_above_mb, policy.consent_file, files.environment, policy.trusted_keys,
        )  # fmt: skip
        return self._folder / f"{hashlib.sha256(orjson.dumps(parts)).hexdigest()[:32]}.json"

    def read(self, candidates: Iterable[VersionFiles]) -> dict[VersionFiles, PreflightResult]:
        """Return the kept results of these versions. Versions without a readable result are left out."""
        libraries, found = environment(), {}
        for files in candidates:
            with suppress(OSError, msgspec.DecodeError, UnicodeDecodeError):
                found[files] = msgspec.json.decode(self._path(files, libraries).read_bytes(), type=PreflightResult)
        return found

    def write(self, files: VersionFiles, result: PreflightResult) -> None:
        """Keep a permanent result. Does nothing for other results, or if the folder cannot be written."""
        if not result.is_permanent or files.fingerprint is None:
            return
        content = {
            "name": files.name, "version": files.version, "time": time.time(),
            "failure_kind": result.failure_kind.value, "reason": result.reason,
            "held": {"own": result.held.own, "shared": result.held.shared},
        }  # fmt: skip
        path = self.path(files)
        draft = path.with_suffix(f".{os.getpid()}")
        with suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            draft.write_bytes(orjson.dumps(content))
            draft.replace(path)
            path.with_suffix(_ASKED).unlink(missing_ok=True)

    def ask(self, wanted: Iterable[VersionFiles]) -> None:
        """Let the process that runs the preflights know which versions requests of this worker wait for."""
        for files in wanted:
            with suppress(OSError):
                self.path(files).with_suffix(_ASKED).touch()

    def asked(self, candidates: Iterable[VersionFiles]) -> list[VersionFiles]:
        """Return those of the versions that workers have asked for, and forget the questions of all others."""
        with suppress(OSError):
            marks = {file.name for file in self._folder.iterdir() if file.suffix == _ASKED}
            if marks:
                found = [files for files in candidates if self.path(files).with_suffix(_ASKED).name in marks]
                kept = {self.path(files).with_suffix(_ASKED).name for files in found}
                for name in marks - kept:
                    (self._folder / name).unlink(missing_ok=True)
                return found
        return []

    def lock(self) -> int | None:
        """Take the lock that lets one process of the host run preflights.

        Returns a descriptor that holds the lock until it is closed; None while another process has it; -1 where the
        folder cannot be written, and each worker then runs its own preflights.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            return try_lock(self._folder / "lock")
        except OSError:
            return -1


def measured(folder: Path) -> dict[tuple[str, int], Held]:
    """Return what the versions that have passed take in memory, by name and number: of each the newest result."""
    found: dict[tuple[str, int], tuple[float, Held]] = {}
    for file in folder.glob("*.json"):
        with suppress(OSError, msgspec.DecodeError, UnicodeDecodeError):
            kept = msgspec.json.decode(file.read_bytes(), type=_Kept)
            key = (kept.name, kept.version)
            if not kept.failure_kind and kept.time >= found.get(key, (0.0, None))[0]:
                found[key] = (kept.time, kept.held)
    return {key: held for key, (_, held) in found.items()}


class _Kept(msgspec.Struct):
    """What is read of a result file."""

    name: str
    version: int
    time: float
    failure_kind: str = ""
    held: Held = Held()


def forget_failures(folder: Path, name: str | None = None) -> None:
    """Remove the failures of one model, or of all, so that they are tried again. Keep the newest KEEP results."""
    files = sorted(folder.glob("*.json"), key=lambda file: file.name)
    for file in files:
        with suppress(OSError, orjson.JSONDecodeError):
            content = orjson.loads(file.read_bytes())
            if content.get("failure_kind") and name in (None, content.get("name")):
                file.unlink()
    if len(files) > KEEP:
        for file in sorted(folder.glob("*.json"), key=_changed_at_s)[:-KEEP]:
            file.unlink(missing_ok=True)


def _changed_at_s(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0
