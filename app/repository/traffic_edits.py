"""Changes of a model.toml that divide the traffic of a model: its canary and its shadow.

Each function checks what must hold while it has the model's lock, so that no other command comes between.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from datetime import datetime
from pathlib import Path
from typing import Literal

import tomlkit

from tableside.contracts import table_fit
from tableside.errors import ContractBroken
from tableside.repository import integrity, model_toml, release_edits
from tableside.repository.model_toml import ModelConfig
from tableside.repository.model_toml_edits import edit
from tableside.repository.paths import DEFAULT
from tableside.repository.refusals import ReleaseRefused
from tableside.repository.release_edits import Change
from tableside.repository.traffic_config import CanaryConfig, ShadowConfig

Kind = Literal["canary", "shadow"]


def set_canary(
    root: Path, name: str, version: int, percent: float, sticky: str | None, now: datetime, *, breaking: bool = False
) -> Change:
    """Let a version answer a part of the requests that name no version.

    sticky: None keeps the header of a canary of the same version. now: when the comparison begins, if it does. Raises
    ReleaseRefused if `default` names nothing or this version, if the version breaks clients and `breaking` is false,
    and as `release_edits.move_alias` does.
    """
    wanted: dict[str, object] = {"percent": percent}
    if sticky is not None:
        wanted["sticky"] = sticky
    return _set(root, name, "canary", version, wanted, now, breaking=breaking)


def set_shadow(root: Path, name: str, version: int, percent: float, cpu_share: float | None, now: datetime) -> Change:
    """Let a version compute a part of the answered requests once more.

    Raises as `set_canary` does, and ReleaseRefused for a version that takes other tables than that of `default`, or
    has another default output.
    """
    wanted: dict[str, object] = {"percent": percent}
    if cpu_share is not None:
        wanted["cpu_share"] = cpu_share
    return _set(root, name, "shadow", version, wanted, now, breaking=False)


def stop(root: Path, name: str, kind: Kind, only: CanaryConfig | ShadowConfig | None = None) -> Change:
    """Remove the canary or the shadow. only: what it must be; another one stays.

    Raises ReleaseRefused if there is none, or another one, and as `release_edits.move_alias` does.
    """
    text = model_toml.text_of(root, name)
    with edit(root, name) as (document, before):
        found = _tried(before, kind)
        if found is None or (only is not None and (found.version, found.since) != (only.version, only.since)):
            raise ReleaseRefused(f"model {name!r} has no {kind}" + (f" {only.version} any more" if only else ""))
        document.pop(kind)
    return Change(name, found.version, text, model_toml.text_of(root, name))


def _set(
    root: Path, name: str, kind: Kind, version: int, wanted: Mapping[str, object], now: datetime, *, breaking: bool
) -> Change:
    text = model_toml.text_of(root, name)
    with edit(root, name, release_edits.clients_check(root, name, breaking)) as (document, before):
        release_edits.check_target(root, name, version, before)
        _check_default(root, name, version, before, kind)
        found = _tried(before, kind)
        if kind == "shadow":
            _check_tables(root, name, version, before)
        if found is None:
            document[kind] = tomlkit.table()
        table = document[kind]
        assert isinstance(table, MutableMapping)
        if found is None or found.version != version:
            for key in ("sticky", "cpu_share"):
                table.pop(key, None)
            table["version"] = version
        for key, value in wanted.items():
            table[key] = value
        if not table.get("sticky", "."):
            del table["sticky"]
        if found is None or found.version != version:
            table["since"] = now
    return Change(name, found.version if found else None, text, model_toml.text_of(root, name))


def _check_tables(root: Path, name: str, version: int, before: ModelConfig) -> None:
    """A contract that cannot be read is not compared: its version does not load, and computes nothing."""
    try:
        served = integrity.read_contract(root, name, before.aliases[DEFAULT])
        candidate = integrity.read_contract(root, name, version)
    except ContractBroken:
        return
    found = table_fit.input_differences(served.input, candidate.input)
    found += table_fit.output_differences([served.default_output], candidate)
    if found:
        raise ReleaseRefused(
            f"{name}/{version} cannot compute what {name}/{served.version} was asked: {'; '.join(found)}. Nothing has "
            "changed"
        )


def _tried(config: ModelConfig, kind: Kind) -> CanaryConfig | ShadowConfig | None:
    return config.canary if kind == "canary" else config.shadow


def _check_default(root: Path, name: str, version: int, before: ModelConfig, kind: Kind) -> None:
    default = before.aliases.get(DEFAULT)
    if default is None:
        raise ReleaseRefused(
            f"model {name!r} has no alias `default`, so its highest version that is ready takes all requests without a "
            f"version. Hold them first, with the version that answers now: `tableside promote {name}/N`"
        )
    if default == version:
        raise ReleaseRefused(
            f"{name}/{version} is what `default` names: it answers already. A {kind} is another version"
        )
