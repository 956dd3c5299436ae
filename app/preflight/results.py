"""What preflights found, remembered on the host: while its files, the libraries and the policy stay, no version is
tried twice.

Failures are remembered too, so that workers that start together, or are born later, do not each wait for a version
that hangs. They are forgotten when the operator asks for a load, and whenever web starts anew.
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
from tableside.contract.environment import environment
from tableside.errors import FailureKind
from tableside.process.file_locks import try_lock
from tableside.settings import Repository

Fingerprint = tuple[tuple[str, int, int, int], ...] | None
"""A version's files: name, inode, size in bytes, time of change in ns. None when they cannot be seen."""
PREFLIGHT_FOLDER = "preflight"
"""Their folder below the run folder."""
KEEP = 2000


@dataclass(frozen=True)
class VersionFiles:
    """A version as its files were when somebody looked."""

    name: str
    version: int
    fingerprint: Fingerprint


class PreflightResult(msgspec.Struct, frozen=True):
    """What a preflight found; no failure kind when the version may be loaded. stderr_tail: the last its process wrote,
    for the log.

    is_permanent: whether it says something of the version, rather than of the moment.
    """

    failure_kind: FailureKind
    reason: str = ""
    stderr_tail: str = ""
    is_permanent: bool = True


@dataclass(frozen=True)
class PreflightResults:
    """What is known so far; `complete` when no more will come."""

    known: Mapping[VersionFiles, PreflightResult] = field(default_factory=dict)
    complete: bool = True


class ResultStore:
    """Preflight results as files below one folder. A folder that cannot be written costs preflights, never a load."""

    def __init__(self, folder: Path, policy: Repository) -> None:
        self._folder = folder
        self._policy = policy

    def _path(self, files: VersionFiles, environment: dict[str, str]) -> Path:
        policy = self._policy
        parts = (
            files.name, files.version, files.fingerprint, environment, sys.executable, __version__,
            policy.trusted_types, policy.environment_skew, policy.load_timeout_s, policy.shared_memory_above_mb,
        )  # fmt: skip
        return self._folder / f"{hashlib.sha256(orjson.dumps(parts)).hexdigest()[:32]}.json"

    def read(self, candidates: Iterable[VersionFiles]) -> dict[VersionFiles, PreflightResult]:
        """What is remembered of them."""
        libraries, found = environment(), {}
        for files in candidates:
            with suppress(OSError, msgspec.DecodeError, UnicodeDecodeError):
                found[files] = msgspec.json.decode(self._path(files, libraries).read_bytes(), type=PreflightResult)
        return found

    def write(self, files: VersionFiles, result: PreflightResult) -> None:
        """Keep a lasting preflight result, for every worker of this host."""
        if not result.is_permanent or files.fingerprint is None:
            return
        content = {
            "name": files.name, "version": files.version, "time": time.time(),
            "failure_kind": result.failure_kind.value, "reason": result.reason,
        }  # fmt: skip
        path = self._path(files, environment())
        draft = path.with_suffix(f".{os.getpid()}")
        with suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            draft.write_bytes(orjson.dumps(content))
            draft.replace(path)

    def lock(self) -> int | None:
        """A descriptor that holds the right to try, to be closed; None while another process has it.

        Where no lock can be had at all, -1: then each worker tries for itself.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            return try_lock(self._folder / "lock")
        except OSError:
            return -1


def forget_failures(folder: Path, name: str | None = None) -> None:
    """Let the versions that failed (of one model, or of all) be tried again; drop what is long out of use."""
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
