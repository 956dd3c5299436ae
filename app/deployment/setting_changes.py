"""Says in the log which settings a new instance has that the one before it had not."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import msgspec

from tableside import private_files
from tableside.errors import SettingsError
from tableside.setting_origins import Shown, effective
from tableside.settings import Settings
from tableside.telemetry import logs

FILE = "settings.json"
"""In the run folder: the settings of the instance that was started last. Paths of files with keys are not in it."""
log = logs.get_logger("settings")


def note(settings: Settings) -> None:
    """Write the settings down, and one log line with those that differ from the last ones. Never raises OSError."""
    try:
        now = effective(settings)
    except SettingsError:  # the file has changed since these were read, and cannot be read any more
        return
    path = settings.run_dir / FILE
    before = _read(path)
    if before and (changes := differences(before, now)):
        log.info("settings_changed", reason="a new instance was started", changes=", ".join(changes))
    with suppress(OSError):
        private_files.write(path, msgspec.json.encode(now))


def differences(before: list[Shown], now: list[Shown]) -> list[str]:
    """Return each setting with another value, such as `server.workers 2 -> 4 (file)`, with where it comes from now."""
    known = {each.name: each.value for each in before}
    return [
        f"{each.name} {_text(known[each.name])} -> {_text(each.value)} ({each.origin})"
        for each in now
        if each.name in known and known[each.name] != _plain(each.value)
    ]


def _read(path: Path) -> list[Shown]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[Shown])
    except (OSError, msgspec.MsgspecError):
        return []


def _plain(value: object) -> object:
    """Return a value as it comes back from the file."""
    return msgspec.json.decode(msgspec.json.encode(value))


def _text(value: object) -> str:
    return msgspec.json.encode(value).decode()
