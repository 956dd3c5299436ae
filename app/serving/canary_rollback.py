"""Ends a canary that fails too often: it is taken out of model.toml, the workers follow, and the audit log says why.

Exactly one worker of a host does it, under a lock. The alias `default` has not moved, so its version answers all
requests again.
"""

from __future__ import annotations

import os
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import msgspec

from tableside.errors import TablesideError
from tableside.process.audit_log import AuditLog
from tableside.process.file_locks import try_lock
from tableside.repository import model_toml, traffic_edits
from tableside.repository.model_toml import ModelConfig
from tableside.repository.traffic_config import CanaryConfig
from tableside.serving import comparisons
from tableside.serving.comparisons import FOLDER, ids
from tableside.serving.judgement import fails_too_often
from tableside.settings import Settings
from tableside.telemetry import logs

NOTES = "rolled_back"
"""In FOLDER: a file for each model whose canary was rolled back."""
EVENT = "canary_rolled_back"
log = logs.get_logger("traffic")


class RolledBack(msgspec.Struct, frozen=True):
    """A canary that was rolled back. time: when, in ISO 8601. reason: the figures."""

    version: int
    time: str
    reason: str


def roll_back_if_it_fails(settings: Settings, name: str, config: ModelConfig) -> bool:
    """Take a canary out of model.toml if its errors say so. Return whether this worker did.

    Nothing is done without a line in the audit log. An error is logged, and another look follows with the next failure.
    """
    canary, wanted = config.canary, ids(name, config).get("canary")
    if canary is None or wanted is None:
        return False
    folder = settings.run_dir / FOLDER
    why = fails_too_often(config.rules, comparisons.merged(folder, [wanted])[wanted])
    lock = try_lock(folder / "rollback.lock") if why else None
    if lock is None:
        return False
    try:
        if model_toml.read(settings.repository_path, name).canary != canary:
            return False  # somebody has ended or changed it
        _roll_back(settings, name, canary, why)
        return True
    except (TablesideError, OSError) as problem:
        log.error("canary_not_rolled_back", model=name, version=canary.version, reason=why, error=str(problem))
        return False
    finally:
        os.close(lock)


def _roll_back(settings: Settings, name: str, canary: CanaryConfig, why: str) -> None:
    from tableside.serving import changes  # here: commands that show the notes of this module do without scikit-learn

    audit, now = AuditLog(settings.run_dir, settings.log.max_bytes), datetime.now(UTC).isoformat()
    line: dict[str, object] = {
        "time": now, "level": "warning", "source": "audit", "event": EVENT, "model": name, "version": canary.version,
        "key": "tableside", "reason": why,
    }  # fmt: skip
    audit.begin(line | {"state": "begun"})
    try:
        edit = partial(traffic_edits.stop, settings.repository_path, name, "canary", canary)
        changes.apply(settings, name, edit, f"rollback of the canary {name}/{canary.version}")
        _note(settings.run_dir, name, RolledBack(canary.version, now, why))
    except (TablesideError, OSError) as problem:
        audit.end(line | {"state": "failed", "error": type(problem).__name__})
        raise
    audit.end(line | {"state": "done"})
    log.error(EVENT, model=name, version=canary.version, reason=why)


def _note(run_dir: Path, name: str, note: RolledBack) -> None:
    folder = run_dir / FOLDER / NOTES
    with suppress(OSError):  # the log and the audit log say it too
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.json").write_bytes(msgspec.json.encode(note))


def last(run_dir: Path, name: str) -> RolledBack | None:
    """Return the canary of a model that was rolled back last on this host; None if none was."""
    try:
        return msgspec.json.decode((run_dir / FOLDER / NOTES / f"{name}.json").read_bytes(), type=RolledBack)
    except (OSError, msgspec.MsgspecError):
        return None
