"""What the files of the repository ask for, as a statement: the desired state, less what workers have refused."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from tableside.errors import ContractBroken, FailureKind
from tableside.repository import model_toml, paths, version_record
from tableside.repository.model_toml import ModelConfig
from tableside.repository.paths import DEFAULT, MODEL_TOML
from tableside.serving.statement import EMPTY, Key, ModelStatement, Refusal, Statement

NOTHING = ModelStatement()


def read(
    root: Path, before: Statement = EMPTY, refused: Mapping[Key, Refusal] | None = None, reason: str = ""
) -> Statement:
    """Read the repository below `root` and return the statement that it asks for, with generation 0.

    before: the statement in force. A model whose model.toml cannot be read stays as it is there. An alias moves only to
    a version that is not refused, and what answers goes on until its successor can. refused: the versions that a worker
    cannot serve. Raises OSError if `root` cannot be read.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"the repository {root} does not exist; create it, or correct repository.path")
    by_model: dict[str, dict[int, Refusal]] = {}
    for (name, version), refusal in (refused or {}).items():
        by_model.setdefault(name, {})[version] = refusal
    models = {}
    for name, published in paths.published(root):
        found = _of_model(root, name, published, before.models.get(name, NOTHING), by_model.get(name, {}))
        models[name] = msgspec.structs.replace(found, files=files_of(root, name, published))
    return Statement(0, models, reason, time.time(), str(root))


def files_of(root: Path, name: str, published: list[int]) -> str:
    """Return a value that changes when files of these versions appear, leave or are replaced. No content is read."""
    seen = hashlib.blake2b(digest_size=8)
    for version in published:
        folder = f"{root}/{name}/{version}"
        with suppress(OSError):
            contract = os.stat(f"{folder}/{paths.CONTRACT}")
            stated = (version, os.stat(folder).st_mtime_ns, contract.st_mtime_ns, contract.st_size)
            seen.update(repr(stated).encode())
    return seen.hexdigest()


def _of_model(
    root: Path, name: str, published: list[int], before: ModelStatement, refused: Mapping[int, Refusal]
) -> ModelStatement:
    try:
        text = _text(root, name)
        config = ModelConfig() if text is None else model_toml.decode(name, text.encode())
    except ContractBroken as problem:
        return _unreadable(problem, published, before)
    wanted = config.wanted(published)
    if not config.enabled:
        return ModelStatement(text, tuple(wanted), config.aliases)
    out = {version: refused[version] for version in published if version in refused}
    out |= _taken(root, name, published)
    sound = [version for version in published if version not in out]
    aliases = _aliases(config, before, sound)
    chosen = {*wanted, *(version for version in aliases.values() if version in published)}
    chosen |= {version for version in config.wanted(sound) if version in before.versions}
    if not _answers(aliases, chosen, sound):
        chosen |= {version for version in _answered(before) if version in sound}
    return ModelStatement(
        text,
        tuple(sorted(chosen)),
        aliases,
        {version: refusal for version, refusal in out.items() if version in chosen},
    )


def _text(root: Path, name: str) -> str | None:
    """The text of a model.toml; None without one. Raises ContractBroken if it cannot be read."""
    try:
        content = model_toml.text_of(root, name)
        return None if content is None else content.decode()
    except OSError as problem:
        raise ContractBroken(f"{name}/{MODEL_TOML}: {problem.strerror or problem}") from problem
    except UnicodeDecodeError as problem:
        raise ContractBroken(f"{name}/{MODEL_TOML}: {problem}") from problem


def _unreadable(problem: ContractBroken, published: list[int], before: ModelStatement) -> ModelStatement:
    """A model whose file cannot be read stays as it is. One that was not served before is refused."""
    reason, kind = str(problem), problem.failure_kind
    kept = tuple(version for version in before.versions if version in published)
    if any(version not in before.refused for version in kept):
        left = {version: refusal for version, refusal in before.refused.items() if version in kept}
        return msgspec.structs.replace(before, versions=kept, refused=left, problem=reason, problem_kind=kind)
    refused = {version: Refusal(kind, reason) for version in published}
    return ModelStatement(None, tuple(published), {}, refused, reason, kind)


def _taken(root: Path, name: str, published: list[int]) -> dict[int, Refusal]:
    """Versions with the number of a deleted one. A record that cannot be read takes nothing out of service."""
    try:
        found = version_record.taken_numbers(root, name, published)
        return {version: Refusal(FailureKind.OTHER, reason) for version, reason in found}
    except ContractBroken:
        return {}


def _aliases(config: ModelConfig, before: ModelStatement, sound: list[int]) -> dict[str, int]:
    """Return the aliases that answer: each moves only to a version that is not refused.

    Without a former target that could go on, an alias names its target all the same, and requests get the reason. Only
    a new `default` waits for its target while something else answers.
    """
    found = {}
    for alias, target in config.aliases.items():
        former = before.aliases.get(alias)
        if target in sound or former == target:
            found[alias] = target
        elif former is not None and former in sound:
            found[alias] = former
        elif former is not None or alias != DEFAULT or not before.sound:
            found[alias] = target
    return found


def _answers(aliases: Mapping[str, int], chosen: set[int], sound: list[int]) -> bool:
    """Whether a version that is not refused answers requests that name none."""
    return aliases[DEFAULT] in sound if DEFAULT in aliases else any(version in sound for version in chosen)


def _answered(before: ModelStatement) -> list[int]:
    """The version that answered requests that name none, if there was one."""
    return [before.aliases[DEFAULT]] if DEFAULT in before.aliases else before.sound[-1:]
