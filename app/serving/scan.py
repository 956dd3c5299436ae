"""The scan: reads the names, the settings and the state of files of a repository, and finds what has to be loaded."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tableside.contract.consent_digest import FOLDER, PICKLE
from tableside.errors import ContractBroken, FailureKind
from tableside.model_process.environment_pools import Environments
from tableside.preflight.results import Fingerprint, VersionFiles
from tableside.repository import consent_file, integrity, model_toml, paths, version_record
from tableside.repository.model_toml import ModelConfig
from tableside.repository.paths import DEFAULT
from tableside.serving.catalog import Catalog, Model, aliases_that_moved, unnamed
from tableside.serving.lifecycle import State
from tableside.serving.servable import Servable
from tableside.settings import Repository

UNLOADED = "unloaded: enabled is false in model.toml"
"""The reason of every version of a model that the operator has turned off."""


@dataclass(frozen=True)
class PendingVersion:
    """A version that has to be loaded: it is new, or its files or its environment have changed.

    old: what is served until then, and after it if the new files do not load. is_newest: whether requests that name no
    version get it.
    """

    files: VersionFiles
    old: Servable | None
    is_newest: bool

    @property
    def key(self) -> tuple[str, int]:
        """The model's name and the version's number."""
        return self.files.name, self.files.version

    @property
    def size_bytes(self) -> int:
        """The size of its files."""
        return sum(size for _, _, size, _ in self.files.fingerprint or ())


@dataclass(frozen=True)
class Scan:
    """The repository as it was read, without loading anything.

    models: what is served until the pending versions are loaded; those that serve nothing yet are LOADING. A model in
    which nothing has changed is the one of the catalog before. pending: the versions to load, in the best order: first
    those that requests get without naming a version, small ones before large ones.
    """

    models: dict[str, Model]
    pending: tuple[PendingVersion, ...]


def scan(root: Path, policy: Repository | None, before: Catalog, environments: Environments | None = None) -> Scan:
    """Read the repository below `root`: names, settings of models and the state of files. Nothing is loaded.

    before: the current catalog. policy: without one, a change of consent is not seen.
    Runs in a native thread, so it neither logs nor counts. Raises OSError if `root` cannot be read.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"the repository {root} does not exist; create it, or correct repository.path")
    models: dict[str, Model] = {}
    pending: list[PendingVersion] = []
    for name, published in paths.published(root):
        models[name] = _scan_model(root, name, published, policy, before, environments, pending)
    pending.sort(key=lambda each: (not each.is_newest, each.size_bytes))
    return Scan(models, tuple(pending))


def _scan_model(
    root: Path, name: str, published: list[int], policy: Repository | None, before: Catalog,
    environments: Environments | None, pending: list[PendingVersion],
) -> Model:  # fmt: skip
    try:
        config = model_toml.read(root, name)
    except ContractBroken as problem:
        return _without_config(name, published, before, problem)
    numbers = config.wanted(published)
    if not config.enabled:
        return Model(name, tuple(_failed(name, number, UNLOADED) for number in numbers), config.aliases)
    kept = _served_before(before, name)
    was = before.models.get(name)
    numbers = sorted({*numbers, *_still_answering(config, numbers, was, kept, published)})
    taken = dict(_taken_numbers(root, name, numbers))
    environment = _stamp(model_toml.environment_of(name, config, policy), environments)
    servables = []
    for number in numbers:
        if number in taken:
            servables.append(_failed(name, number, taken[number], FailureKind.OTHER))
            continue
        old, files = kept.get(number), VersionFiles(name, number, fingerprint(root, name, number, policy), environment)
        if old is not None and _is_unchanged(old, files):
            old.report_warning()
            servables.append(old)
            continue
        pending.append(PendingVersion(files, old, number == numbers[-1] or number in config.aliases.values()))
        servables.append(old if old is not None and _stands_in(old, files) else Servable(name, number))
    aliases = aliases_that_moved(config.aliases, was.aliases if was is not None else {}, servables)
    model = Model(name, tuple(servables), aliases, config=config)
    return was if was is not None and was == model else model


def _still_answering(
    config: ModelConfig, wanted: list[int], was: Model | None, kept: Mapping[int, Servable], published: list[int]
) -> Iterator[int]:
    """Yield what answers until other versions can, although model.toml does not select it any more.

    That is what an alias names until its new target is READY, and what answers without a version until the next one is.
    """
    if was is None:
        return
    ready = {version for version, servable in kept.items() if servable.state is State.READY}
    for alias, target in config.aliases.items():
        former = was.aliases.get(alias)
        if former in published and former in ready and target not in ready:
            yield former
    successor = config.aliases.get(DEFAULT, wanted[-1] if wanted else None)
    if successor not in ready:
        yield from (version for version in unnamed(was) if version in published)


def _taken_numbers(root: Path, name: str, numbers: list[int]) -> Iterator[tuple[int, str]]:
    """As in `version_record`. A record that cannot be read takes no version out of service; `publish` reports it."""
    with suppress(ContractBroken):
        yield from version_record.taken_numbers(root, name, numbers)


def versions_to_load(
    root: Path, before: Catalog, policy: Repository | None = None, environments: Environments | None = None
) -> list[VersionFiles]:
    """Return the versions that a reload would load now. The arguments and errors are those of `scan`."""
    return [pending.files for pending in scan(root, policy, before, environments).pending]


def _served_before(before: Catalog, name: str) -> dict[int, Servable]:
    model = before.models.get(name)
    return {servable.version: servable for servable in model.servables} if model else {}


def _stamp(environment: str, environments: Environments | None) -> str:
    return environments.stamp(environment) if environment and environments is not None else environment


def _is_unchanged(old: Servable, files: VersionFiles) -> bool:
    return old.state is State.READY and old.fingerprint == files.fingerprint and old.environment == files.environment


def _stands_in(old: Servable, files: VersionFiles) -> bool:
    """Whether a servable stays in the catalog until the version is loaded: it serves, or it has failed unchanged."""
    return old.state is State.READY or (old.state is State.UNAVAILABLE and old.fingerprint == files.fingerprint)


def _without_config(name: str, published: list[int], before: Catalog, problem: ContractBroken) -> Model:
    """A model whose model.toml cannot be read. Versions that are served stay served, with the problem as a warning."""
    kept = [servable for servable in _served_before(before, name).values() if servable.state is State.READY]
    for servable in kept:
        servable.report_problem(f"{problem}; still serving what was loaded before", problem.failure_kind)
    if not kept:
        kept = [_failed(name, number, str(problem), problem.failure_kind) for number in published]
    old = before.models.get(name)
    return Model(name, tuple(kept), old.aliases if old else {}, str(problem))


def refused(pending: PendingVersion, reason: str) -> Servable:
    """Return a servable that stands for a version that was not loaded, because of `reason`."""
    servable = _failed(*pending.key, reason, FailureKind.OTHER)
    servable.fingerprint, servable.environment = pending.files.fingerprint, pending.files.environment
    return servable


def _failed(name: str, number: int, reason: str, failure_kind: FailureKind = FailureKind.NONE) -> Servable:
    servable = Servable(name, number)
    servable.fail(reason, failure_kind)
    return servable


def fingerprint(root: Path, name: str, number: int, policy: Repository | None = None) -> Fingerprint:
    """Return a value that changes when any file of the version changes; None if the folder cannot be read.

    A file counts as changed by its name, inode, size or modification time. Its content is not read. With a policy, the
    value of a version with own code or a pickle also changes when consent to it is given or revoked.
    """
    folder = paths.version_folder(root, name, number)
    try:
        found = tuple(sorted(_stats(str(folder))))
    except OSError:
        return None
    if policy is None or not any(file in (FOLDER, PICKLE) for file, *_ in found):
        return found
    return (*found, ("consent", int(_has_consent(root, name, number, policy)), 0, 0))


def _stats(folder: str, prefix: str = "") -> Iterator[tuple[str, int, int, int]]:
    """The files of a folder, and those below its folder of own code. A link in its place is not followed."""
    with os.scandir(folder) as entries:
        for entry in entries:
            stat = entry.stat()
            yield prefix + entry.name, stat.st_ino, stat.st_size, stat.st_mtime_ns
            if (prefix or entry.name == FOLDER) and entry.is_dir(follow_symlinks=False):
                yield from _stats(entry.path, f"{prefix}{entry.name}/")


def _has_consent(root: Path, name: str, number: int, policy: Repository) -> bool:
    try:
        contract = integrity.read_contract(root, name, number)
        return consent_file.is_granted(contract, Path(policy.consent_file))
    except ContractBroken:
        return False
