"""`/admin/api/models/NAME`: one model as all workers of this host have it, and the merged states of the list."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import msgspec
from flask import Blueprint, Response

from tableside.blueprints.admin.changes import require_published
from tableside.contracts.schema import Contract
from tableside.errors import ContractBroken
from tableside.process import worker_slots
from tableside.repository import integrity, model_toml
from tableside.repository.model_toml import ModelConfig
from tableside.serving.generations import Generations
from tableside.serving.version_status import VersionStatus, merge_statuses, read_statuses, versions_of
from tableside.web import response
from tableside.web.extensions import catalog, settings

Rows = list[dict[str, object]]
Key = tuple[str, int]
Reported = tuple[object, VersionStatus]
"""The pid of a worker, and what it says of a version."""


def mount(blueprint: Blueprint) -> None:
    """Add the route."""
    blueprint.add_url_rule("/models/<name>", "model", model)


def model(name: str) -> Response:
    """One model: its versions on disk with their states in every worker, its aliases, and its model.toml."""
    root = settings().repository_path
    require_published(name)
    reported = _by_version(_statuses())
    config, problem = _config(name)
    versions = [
        {"version": each.version, **_contract_facts(name, each.version), **_merged(each, reported)}
        for each in versions_of(root, name, [entry for key in reported if key[0] == name for _, entry in reported[key]])
    ]
    text = model_toml.text_of(root, name)
    content = {
        "name": name,
        "generation": generation(),
        "answers": _answering(name),
        "aliases": dict(config.aliases),
        "retired": list(config.retired),
        "enabled": config.enabled,
        "reason": problem,
        "model_toml": text.decode(errors="replace") if text is not None else "",
        "versions": versions,
    }
    return with_etag(response.json_response(content))


def add_states(models: Iterable[dict[str, object]]) -> None:
    """Add to each listed version its state over all workers, in place of the one in this worker."""
    reported = _by_version(_statuses())
    merged = merge_statuses(entry for found in reported.values() for _, entry in found)
    for each in models:
        versions = each["versions"]
        assert isinstance(versions, list)
        for version in versions:
            key = (str(each["name"]), int(version["version"]))
            if key in merged:
                version |= _merged(merged[key], reported)


def generation() -> int:
    """Return the generation that this host serves; this worker's where nothing can be known of others."""
    try:
        return Generations.open(settings().run_dir).words.current or catalog().generation
    except OSError:
        return catalog().generation


def with_etag(made: Response) -> Response:
    """Add the generation as the ETag that If-Match of a change names."""
    made.headers["ETag"] = f'"{generation()}"'
    return made


def _statuses() -> list[dict[str, object]]:
    return worker_slots.statuses(settings().run_dir / "worker_slots")


def _by_version(statuses: Sequence[Mapping[str, object]]) -> dict[Key, list[Reported]]:
    found: dict[Key, list[Reported]] = {}
    for status in statuses:
        for entry in read_statuses([status]):
            found.setdefault((entry.name, entry.version), []).append((status.get("pid"), entry))
    return found


def _merged(worst: VersionStatus, reported: Mapping[Key, Sequence[Reported]]) -> dict[str, object]:
    """Return the state over all workers, how many are in which, and those that have something to say."""
    workers = reported.get((worst.name, worst.version), ())
    problems = [
        {"pid": pid, "state": entry.state.value, "reason": entry.reason} for pid, entry in workers if entry.reason
    ]
    states = Counter(entry.state.value for _, entry in workers)
    return {
        "state": worst.state.value, "reason": worst.reason, "failure_kind": worst.failure_kind.value,
        "workers": dict(states), "problems": problems,
    }  # fmt: skip


def _contract_facts(name: str, version: int) -> dict[str, object]:
    try:
        contract = integrity.read_contract(settings().repository_path, name, version)
    except ContractBroken:
        return {}
    return _facts(contract)


def _facts(contract: Contract) -> dict[str, object]:
    return {
        "estimator": contract.estimator,
        "created_at": contract.created_at,
        "sha256": contract.artifact.sha256,
        "size_bytes": contract.size_bytes,
        "columns": len(contract.input.columns),
        "outputs": [output.name for output in contract.outputs],
        "own_code": [file.file for file in contract.code],
        "source": msgspec.to_builtins(contract.source),
    }


def _config(name: str) -> tuple[ModelConfig, str]:
    try:
        return model_toml.read(settings().repository_path, name), ""
    except ContractBroken as problem:
        return ModelConfig(), str(problem)


def _answering(name: str) -> int | None:
    """Return the version that answers requests which name none, in this worker; None if none does."""
    try:
        return catalog().servable(name).version
    except Exception:  # noqa: BLE001 - the model is unknown here, or none of its versions is ready
        return None
