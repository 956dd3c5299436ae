"""Environment variables that override settings: `TABLESIDE__SECTION__KEY`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

import msgspec

from tableside.errors import SettingsError
from tableside.setting_texts import check_variable, list_in_variable, readable

ENV_PREFIX = "TABLESIDE__"
FOLDER_VARIABLE = "TABLESIDE_FOLDER"
"""Variable with the folder from which relative paths count; without it the working directory. `tableside run` sets it
for its programs, which run in the folder of the project, when it was started in another one.
"""
_PATHS = {
    "server": {"keys_file": "keys.json", "tls_certificate": "", "tls_key": "", "environments_dir": ""},
    "repository": {"consent_file": "consent.jsonl"},
    "tracing": {"headers_file": ""},
}
"""The settings that are paths, with their defaults, beside those that `tableside run` itself passes on absolute."""


def rooted(merged: dict[str, object], environ: Mapping[str, str]) -> dict[str, object]:
    """Return the settings with absolute paths, where FOLDER_VARIABLE says from which folder relative ones count."""
    folder = environ.get(FOLDER_VARIABLE)
    for section, paths in _PATHS.items() if folder else ():
        values = merged.setdefault(section, {})
        if not isinstance(values, dict):
            continue  # `load` refuses a section that is not a table
        for key, default in paths.items():
            written = values.get(key, default)
            if isinstance(written, str) and written:
                values[key] = os.path.join(str(folder), written)
    return merged


def override(merged: dict[str, object], variable: str, value: str, settings: type[msgspec.Struct]) -> None:
    """Set the setting that a variable names, in `merged`: tables of settings by section.

    settings: the struct of all sections. Raises SettingsError, which names the variable, for an unknown setting and for
    a value of another type.
    """
    section, separator, key = variable[len(ENV_PREFIX) :].lower().partition("__")
    known = {field.name for field in msgspec.structs.fields(settings)}
    if not separator or section not in known:
        raise SettingsError(
            f"{variable}: unknown setting. Write {ENV_PREFIX}SECTION__KEY with a section of {_names(known)}"
        )
    if section == "environments":
        check_variable(value, variable)
        _override_environment(merged, variable, key, value)
        return
    section_type = {field.name: field.type for field in msgspec.structs.fields(settings)}[section]
    keys = {field.name: field for field in msgspec.structs.fields(section_type)}
    if key not in keys:
        raise SettingsError(f"{variable}: unknown setting. Section '{section}' has {_names(keys)}")
    parsed: str | list[str] = value
    if isinstance(keys[key].default, tuple):
        parsed = list_in_variable(value, variable)
    else:
        check_variable(value, variable)
    try:
        msgspec.convert(parsed, keys[key].type, strict=False)
    except msgspec.ValidationError as problem:
        raise SettingsError(f"{variable}: {readable(str(problem))}") from problem
    values = merged.setdefault(section, {})
    if isinstance(values, dict):  # `load` refuses a section that is not a table
        values[key] = parsed


def _override_environment(merged: dict[str, object], variable: str, key: str, value: str) -> None:
    """Set a key of an environment: `TABLESIDE__ENVIRONMENTS__NAME__PYTHON`. `load` checks name, key and value."""
    name, separator, key = key.rpartition("__")
    if not separator:
        raise SettingsError(f"{variable}: unknown setting. Write {ENV_PREFIX}ENVIRONMENTS__NAME__PYTHON")
    environments = merged.setdefault("environments", {})
    if isinstance(environments, dict):
        environments[name] = {**environments.get(name, {}), key: value}


def _names(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
