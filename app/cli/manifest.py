"""The manifest of `tableside publish --from`: a TOML file with many models to publish in one process."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TypeVar

import msgspec

from tableside.cli.publish_options import PublishOptions, path_hook
from tableside.errors import PublishFailed

T = TypeVar("T")


class Entry(msgspec.Struct, frozen=True):
    """One model to publish: its name, the file or folder of its estimator, and the options of `tableside publish`."""

    name: str
    estimator: Path
    options: PublishOptions


def read(path: Path) -> list[Entry]:
    """Return the models of a manifest, in its order.

    Each `[[model]]` has `name`, `estimator` and options of `tableside publish`, with `_` for `-`; `[defaults]` has
    options for all of them. Paths are relative to the manifest's folder. Raises PublishFailed with the entry and the
    key that is wrong.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else problem
        raise PublishFailed(f"{path}: {reason}") from problem
    unknown = sorted(content.keys() - {"defaults", "model"})
    if unknown:
        raise PublishFailed(
            f"{path}: unknown key {unknown[0]!r}. A manifest has [defaults] and a [[model]] for each model"
        )
    defaults = content.get("defaults", {})
    tables = content.get("model", [])
    if not isinstance(defaults, dict) or not isinstance(tables, list) or not tables:
        raise PublishFailed(f"{path}: write a [[model]] with name and estimator for each model to publish")
    return [_entry(path, f"model {at}", defaults, table) for at, table in enumerate(tables, 1)]


def _entry(path: Path, label: str, defaults: dict[str, object], table: object) -> Entry:
    if not isinstance(table, dict):
        raise PublishFailed(f"{path}: {label}: write [[model]], with two brackets")
    name = table.get("name")
    label = f"{label} ({name})" if isinstance(name, str) else label
    given = {key: value for key, value in {**defaults, **table}.items() if key not in ("name", "estimator")}
    options = _convert(given, PublishOptions, f"{path}: {label}")
    head = {key: table[key] for key in ("name", "estimator") if key in table}
    entry = _convert({**head, "options": options}, Entry, f"{path}: {label}")
    folder = path.parent
    return msgspec.structs.replace(entry, estimator=folder / entry.estimator, options=options.below(folder))


def _convert(content: dict[str, object], kind: type[T], label: str) -> T:
    try:
        return msgspec.convert(content, kind, dec_hook=path_hook)
    except msgspec.ValidationError as problem:
        text, _, place = str(problem).partition(" - at ")
        key = place.strip("`").removeprefix("$.")
        raise PublishFailed(": ".join(filter(None, (label, key, text)))) from problem
