"""Names and places in a repository. Nothing outside this module spells a path below it."""

from __future__ import annotations

import re
from pathlib import Path

from tableside.errors import ModelNotFound, PublishFailed

NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}\Z")
VERSION = re.compile(r"^[1-9][0-9]{0,17}\Z")
ALIAS = re.compile(r"^[A-Za-z][A-Za-z0-9_.-]{0,63}\Z")
CONTRACT = "contract.json"
ARTIFACT = "model.skops"
GRAPH = "model.onnx"
CHECKSUMS = "checksums.sha256"
MODEL_TOML = "model.toml"
RESERVED_ALIASES = frozenset(("latest",))
RESERVED_NAMES = frozenset(("stats",))
"""`/v2/models/stats` is every model's statistics."""


def check_name(name: str) -> str:
    """The name, if a model may bear it. Raises PublishFailed."""
    if not NAME.match(name) or ".." in name:
        raise PublishFailed(
            f"{name!r} is no model name: at most 100 ASCII letters, digits, '_', '-' and '.', a letter or digit first"
        )
    if name in RESERVED_NAMES:
        raise PublishFailed(f"{name!r} has a meaning of its own in the protocol; choose another model name")
    return name


def check_alias(alias: str) -> str:
    """The alias, if it may be used. Raises PublishFailed."""
    if not ALIAS.match(alias) or alias in RESERVED_ALIASES:
        raise PublishFailed(f"{alias!r} is no alias: letters, digits, '_', '-' and '.', beginning with a letter")
    return alias


def models(root: Path) -> list[str]:
    """Names of the models with a published version below `root`, sorted."""
    if not root.is_dir():
        return []
    return sorted(entry.name for entry in root.iterdir() if versions(root, entry.name))


def versions(root: Path, name: str) -> list[int]:
    """Published versions, lowest first. A folder without a contract is none."""
    folder = root / name
    if not NAME.match(name) or not folder.is_dir():
        return []
    found = [entry for entry in folder.iterdir() if VERSION.match(entry.name) and (entry / CONTRACT).is_file()]
    return sorted(int(entry.name) for entry in found)


def version_folder(root: Path, name: str, version: int) -> Path:
    """Where a version lies."""
    return root / name / str(version)


def split_spec(spec: str) -> tuple[str, str | None]:
    """`name`, `name@alias` or `name/version` to (name, version or alias or None)."""
    for mark in ("@", "/"):
        name, found, rest = spec.partition(mark)
        if found:
            return name, rest
    return spec, None


def find(root: Path, spec: str, aliases: dict[str, int]) -> int:
    """The published version a spec means; the highest without one. Raises ModelNotFound."""
    name, wanted = split_spec(spec)
    published = versions(root, name)
    if not published:
        known = ", ".join(models(root)) or "none"
        raise ModelNotFound(f"no model {name!r} in {root}; there is {known}")
    if wanted is None or wanted == "latest":
        return published[-1]
    number = aliases.get(wanted) or (int(wanted) if VERSION.match(wanted) else 0)
    if number not in published:
        raise ModelNotFound(f"model {name!r} has no version or alias {wanted!r}; it has {published}")
    return number
