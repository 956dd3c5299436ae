"""What `publish` says about the requests that a new version will get."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tableside.errors import ContractBroken

if TYPE_CHECKING:
    from tableside.contracts.schema import Contract
    from tableside.repository.model_toml import ModelConfig


def configuration(root: Path, name: str) -> ModelConfig:
    """Return the configuration of a model before a publish, with which `notes` compares."""
    from tableside.repository import live_versions, model_toml, paths

    return live_versions.config_of(root, name) if paths.NAME.match(name) else model_toml.ModelConfig()


def notes(root: Path, contract: Contract, before: ModelConfig | None = None, alias: str | None = None) -> list[str]:
    """Return what clients see of a new version, and how it is taken live if it does not get their requests.

    before: the model's configuration before the publish, if it may have changed it. alias: the alias that
    was pointed at the version.
    """
    from tableside.repository import live_versions

    moves = live_versions.moves_of_publish(root, contract.name, contract, contract.version, alias, before)
    return [*live_versions.in_words(contract.name, moves), *_of_traffic(root, contract)]


def _of_traffic(root: Path, contract: Contract) -> list[str]:
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
        f"/v1/models/{name}/versions/{version}:predict, then take it live: `tableside promote {name}/{version}`",
        *_when_promoted(root, contract, now, config),
    ]


def _when_promoted(root: Path, contract: Contract, now: int, config: ModelConfig) -> list[str]:
    """What clients would see if the version took the requests of the version `now`."""
    from tableside.repository import compatibility, integrity

    try:
        found = compatibility.compare(integrity.read_contract(root, contract.name, now), contract, config.columns)
    except ContractBroken:
        return []
    if not found:
        return []
    breaks = " Some of that breaks clients, so `tableside promote` asks for --breaking" if found[0].breaking else ""
    return [f"for clients it differs from {contract.name}/{now}: {compatibility.in_words(found)}.{breaks}"]
