"""Operations: long acts of the control plane, each a file in the run folder that every worker can read.

Who carries an operation out holds a lock on a second file. The kernel frees it when that process ends, even by SIGKILL,
so that an operation that nobody carries out any more is seen to be lost.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec

from tableside.process.file_locks import is_locked, try_lock

FOLDER = "operations"
"""In the run folder."""
KEEP = 200
"""How many operations that are over are kept; the oldest are removed first."""
LOST = (
    "the process that carried it out has ended before it said how. `tableside list` and GET /admin/api/models show "
    "what was done"
)
_ID = re.compile(r"[0-9]{8}T[0-9]{6}-[0-9a-f]{8}\Z")
State = Literal["running", "done", "failed", "lost"]


class Operation(msgspec.Struct, frozen=True):
    """One operation.

    kind: `publish`, `promote` and so on. by: the name of the key of whoever asked. step: what is being done. result:
    what it has brought, if it is done. status, error: the HTTP status and the text of what went wrong; empty otherwise.
    reasons: one line for each worker that refuses. Times are UTC, ISO 8601.
    """

    id: str
    kind: str
    model: str
    by: str
    started_at: str
    state: State = "running"
    step: str = ""
    ended_at: str = ""
    result: Mapping[str, object] = {}
    status: int = 0
    error: str = ""
    reasons: tuple[str, ...] = ()


class RunningOperation:
    """An operation that this process carries out, until `end` or `fail`."""

    def __init__(self, run_dir: Path, operation: Operation, lock: int) -> None:
        """lock: the descriptor that holds the lock. It may be one that was inherited."""
        self._run_dir, self.operation, self.lock = run_dir, operation, lock

    def step(self, step: str) -> None:
        """Say what is being done now. A full disk is no reason to stop."""
        if step != self.operation.step:
            with suppress(OSError):
                self._write(msgspec.structs.replace(self.operation, step=step))

    def end(self, result: Mapping[str, object]) -> Operation:
        """Say what the operation has brought. Return it as it is now."""
        return self._close(msgspec.structs.replace(self.operation, state="done", step="", result=result))

    def fail(self, status: int, error: str, reasons: tuple[str, ...] = ()) -> Operation:
        """Say why nothing came of it. status: of HTTP. Return it as it is now."""
        failed = msgspec.structs.replace(
            self.operation, state="failed", step="", status=status, error=error, reasons=reasons
        )
        return self._close(failed)

    def hand_over(self) -> None:
        """Leave the operation to a process that has inherited the lock."""
        os.close(self.lock)

    def _close(self, operation: Operation) -> Operation:
        with suppress(OSError):
            self._write(msgspec.structs.replace(operation, ended_at=_now()))
        os.close(self.lock)
        return self.operation

    def _write(self, operation: Operation) -> None:
        self.operation = operation
        path = _file(self._run_dir, operation.id)
        draft = path.with_suffix(".draft")
        draft.write_bytes(msgspec.json.encode(operation))
        draft.replace(path)


def begin(run_dir: Path, kind: str, model: str, by: str) -> RunningOperation:
    """Begin an operation, and remove the oldest that are over. Raises OSError if its file cannot be written."""
    folder = run_dir / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    _sweep(folder)
    now = datetime.now(UTC)
    operation = Operation(f"{now:%Y%m%dT%H%M%S}-{secrets.token_hex(4)}", kind, model, by, now.isoformat())
    lock = try_lock(_file(run_dir, operation.id).with_suffix(".lock"))
    assert lock is not None  # nobody else knows the id
    running = RunningOperation(run_dir, operation, lock)
    try:
        running._write(operation)
    except OSError:
        os.close(lock)
        _file(run_dir, operation.id).with_suffix(".lock").unlink(missing_ok=True)
        raise
    return running


def find(run_dir: Path, operation_id: str) -> Operation | None:
    """Return an operation as it is now; None if there is none with this id."""
    if not _ID.match(operation_id):
        return None
    path = _file(run_dir, operation_id)
    holder_lives = is_locked(path.with_suffix(".lock"))
    try:
        operation = msgspec.json.decode(path.read_bytes(), type=Operation)
    except (OSError, msgspec.DecodeError):
        return None
    if operation.state == "running" and not holder_lives:
        return msgspec.structs.replace(operation, state="lost", status=500, error=LOST)
    return operation


def recent(run_dir: Path, most: int) -> list[Operation]:
    """Return the newest operations, the newest first."""
    ids = _ids(run_dir / FOLDER)[-most:]
    return [found for each in reversed(ids) if (found := find(run_dir, each)) is not None]


def _ids(folder: Path) -> list[str]:
    try:
        return sorted(name[:-5] for name in os.listdir(folder) if name.endswith(".json"))
    except OSError:
        return []


def _sweep(folder: Path) -> None:
    for each in _ids(folder)[:-KEEP]:
        if not is_locked(folder / f"{each}.lock"):
            for suffix in (".json", ".lock", ".draft"):
                (folder / f"{each}{suffix}").unlink(missing_ok=True)


def _file(run_dir: Path, operation_id: str) -> Path:
    return run_dir / FOLDER / f"{operation_id}.json"


def _now() -> str:
    return datetime.now(UTC).isoformat()
