"""What `publish` says about the requests that a new version will get."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tableside.errors import ContractBroken

if TYPE_CHECKING:
    from tableside.contract.schema import Contract


def notes(root: Path, contract: Contract) -> list[str]:
    """Return how a new version is tried and taken live, if it does not get the requests that name no version."""
    from tableside.repository import model_toml, paths

    name, version = contract.name, contract.version
    try:
        config = model_toml.read(root, name)
    except ContractBroken as problem:
        return [f"it will not be served until the file is corrected: {problem}"]
    if version not in config.wanted(paths.versions(root, name)):
        return [
            f"it will not be served: `versions` in {name}/{paths.MODEL_TOML} leaves it out. Load it: `tableside alias "
            f"{name} candidate {version}`"
        ]
    now = config.aliases.get(paths.DEFAULT)
    if now is None or now == version:
        return []
    return [
        f"it takes no traffic yet: requests without a version get {name}/{now} (alias `default`). Try it at "
        f"/v1/models/{name}/versions/{version}:predict, then take it live: `tableside promote {name}/{version}`"
    ]
