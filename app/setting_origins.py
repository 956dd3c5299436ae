"""The settings in force with their origins, for operators: what is set where, and what a restart would change."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from tableside import settings as settings_module
from tableside.errors import SettingsError
from tableside.setting_variables import ENV_PREFIX
from tableside.settings import Settings

REDACTED = frozenset(("server.tls_key", "server.keys_file", "tracing.headers_file"))
"""Settings whose value is not shown: paths of files with keys."""
HIDDEN = "***"


class Shown(msgspec.Struct, frozen=True):
    """One setting. origin: `default`, `file` or `variable`. pending: whether a restart would give it another value."""

    name: str
    value: object
    origin: str
    pending: bool = False


def effective(settings: Settings, environ: Mapping[str, str] | None = None, config: Path | None = None) -> list[Shown]:
    """Return every setting with its value and origin, sorted by name as in docs/reference/settings.md.

    settings: those in force. environ, config: as for `tableside.settings.load`; the file is read anew, so that what has
    changed in it since the start is seen. Raises SettingsError if it cannot be read now.
    """
    environ = os.environ if environ is None else environ
    in_file = _dotted(settings_module.read_file(environ, config))
    in_variables = {
        name[len(ENV_PREFIX) :].lower().replace("__", ".") for name in environ if name.startswith(ENV_PREFIX)
    }
    try:
        now = _values(settings_module.load(environ, config))
    except SettingsError:
        now = {}
    return [
        Shown(
            name,
            HIDDEN if name in REDACTED and value else value,
            "variable" if name in in_variables else "file" if name in in_file else "default",
            bool(now) and now.get(name) != value,
        )
        for name, value in _values(settings).items()
    ]


def _values(settings: Settings) -> dict[str, object]:
    return _dotted(msgspec.to_builtins(settings))


def _dotted(tables: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Return the values of nested tables by dotted name."""
    found: dict[str, object] = {}
    for key, value in tables.items():
        if isinstance(value, Mapping):
            found |= _dotted(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found
