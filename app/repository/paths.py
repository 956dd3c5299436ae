"""File names, folder names and name rules of a model repository: `ROOT/NAME/VERSION/`.

All other modules take the paths below a repository's root from here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from tableside.errors import ModelNotFound, PublishFailed
from tableside.nearest_names import did_you_mean, listed

NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}\Z")
VERSION = re.compile(r"^[1-9][0-9]{0,17}\Z")
ALIAS = re.compile(r"^[A-Za-z][A-Za-z0-9_.-]{0,63}\Z")
CONTRACT = "contract.json"
ARTIFACT = "model.skops"
GRAPH = "model.onnx"
CHECKSUMS = "checksums.sha256"
SIGNATURE = "signature.json"
MODEL_TOML = "model.toml"
VERSION_RECORD = "versions.jsonl"
DEFAULT = "default"
"""The alias that answers requests which name no version."""
RESERVED_ALIASES = frozenset(("latest",))
RESERVED_NAMES = frozenset(("stats",))
"""The Open Inference Protocol uses `/v2/models/stats` for the statistics of all models."""


def check_name(name: str) -> str:
    """Return `name` if it is a valid model name.

    Raises PublishFailed for a name that could be read as a path, a hidden file or a command-line option, and for one of
    RESERVED_NAMES.
    """
    if not NAME.match(name) or ".." in name:
        raise PublishFailed(
            f"{name!r} is not a valid model name. Use 1 to 100 ASCII letters, digits, '_', '-' or '.', starting with "
            "a letter or a digit, without '..'"
        )
    if name in RESERVED_NAMES:
        raise PublishFailed(
            f"the model name {name!r} is reserved by the protocol (/v2/models/{name}). Choose another name"
        )
    return name


def check_alias(alias: str) -> str:
    """Return `alias` if it is a valid alias.

    Raises PublishFailed for one that could be read as a version number, and for one of RESERVED_ALIASES.
    """
    if alias in RESERVED_ALIASES:
        raise PublishFailed(
            f"the alias {alias!r} is reserved: it always means the newest version. Choose another alias"
        )
    if not ALIAS.match(alias):
        raise PublishFailed(
            f"{alias!r} is not a valid alias. Use 1 to 64 ASCII letters, digits, '_', '-' or '.', "
            "starting with a letter"
        )
    return alias


def models(root: Path) -> list[str]:
    """Return the sorted names of the models that have a published version; empty when `root` does not exist."""
    return [name for name, _ in published(root)] if root.is_dir() else []


def published(root: Path) -> Iterator[tuple[str, list[int]]]:
    """Yield the name and the versions of each model that has a published version, sorted by name.

    Raises OSError if `root` cannot be read.
    """
    for name in sorted(os.listdir(root)):
        numbers = versions(root, name)
        if numbers:
            yield name, numbers


def versions(root: Path, name: str) -> list[int]:
    """Return the published versions of a model, lowest first. A folder without a contract is not a version."""
    if not NAME.match(name):
        return []
    try:
        with os.scandir(root / name) as entries:
            numbered = [entry for entry in entries if VERSION.match(entry.name)]
    except (NotADirectoryError, FileNotFoundError):
        return []
    return sorted(int(entry.name) for entry in numbered if os.path.isfile(f"{entry.path}/{CONTRACT}"))


def version_folder(root: Path, name: str, version: int) -> Path:
    """Return the folder of a version, whether or not it exists."""
    return root / name / str(version)


def split_spec(spec: str) -> tuple[str, str | None]:
    """Split `name`, `name@alias` or `name/version` into the name and the alias or version, None without one."""
    for separator in ("@", "/"):
        name, match, rest = spec.partition(separator)
        if match:
            return name, rest
    return spec, None


def find(root: Path, spec: str, aliases: Mapping[str, int]) -> int:
    """Return the published version that `spec` means: for `name`, what a request without a version gets.

    That is the alias `default` if there is one, else the newest; `name@latest` is always the newest.
    Raises ModelNotFound when the model has no published version, or not the one that `spec` names.
    """
    name, wanted = split_spec(spec)
    published = versions(root, name)
    if not published:
        known = models(root)
        held = listed(known or ["no published model"])
        raise ModelNotFound(f"no model {name!r} in {root}.{did_you_mean(name, known)} It holds: {held}")
    if wanted is None and DEFAULT in aliases:
        wanted = DEFAULT
    if wanted is None or wanted == "latest":
        return published[-1]
    number = aliases.get(wanted) or (int(wanted) if VERSION.match(wanted) else 0)
    if number not in published:
        raise ModelNotFound(
            f"model {name!r} has no version or alias {wanted!r}.{did_you_mean(wanted, aliases)} It has: "
            f"{listed([*map(str, published), *sorted(aliases)])}"
        )
    return number
