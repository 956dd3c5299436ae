"""The scan: compares a statement and the state of files of a repository with what is served, and finds what has to be
loaded."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tableside.contracts.consent_digest import FOLDER, PICKLE
from tableside.errors import ContractBroken, FailureKind
from tableside.model_process.environment_pools import Environments
from tableside.preflight.results import Fingerprint, VersionFiles
from tableside.repository import consent_file, integrity, model_toml, paths
from tableside.serving import desired
from tableside.serving.catalog import Catalog, Model
from tableside.serving.lifecycle import UNLOADED, State
from tableside.serving.servable import Servable
from tableside.serving.statement import Key, ModelStatement, Refusal, Statement
from tableside.serving.worker_refusals import still_serving
from tableside.settings import Repository


@dataclass(frozen=True)
class PendingVersion:
    """A version that has to be loaded: it is new, or its files or its environment have changed.

    old: what is served until then, and after it if the new files do not load. is_newest: whether requests that name no
    version get it. environment: the name of the environment in which it runs; empty for the worker's own.
    """

    files: VersionFiles
    old: Servable | None
    is_newest: bool
    environment: str = ""

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
    """What a statement makes of the repository, without loading anything.

    models: what is served until the pending versions are loaded; those that serve nothing yet are LOADING. A model in
    which nothing has changed is the one of the catalog before. pending: the versions to load, in the best order: first
    those that requests get without naming a version, small ones before large ones. problems: what is wrong with
    versions that go on as they are, with its kind.
    """

    models: dict[str, Model]
    pending: tuple[PendingVersion, ...]
    problems: dict[Key, Refusal]


def scan(
    root: Path, policy: Repository | None, before: Catalog, environments: Environments | None = None,
    statement: Statement | None = None,
) -> Scan:  # fmt: skip
    """Compare a statement and the state of the versions' files with a catalog. Nothing is loaded.

    before: the current catalog. policy: without one, a change of consent is not seen. statement: None for the one that
    the repository asks for now. Runs in a native thread, so it neither logs nor counts. Raises OSError if `root` cannot
    be read.
    """
    wanted = desired.read(root, before.statement) if statement is None else statement
    found = Scan({}, (), {})
    pending: list[PendingVersion] = []
    for name, entry in wanted.models.items():
        found.models[name] = _scan_model(root, name, entry, policy, before, environments, pending, found.problems)
    pending.sort(key=lambda each: (not each.is_newest, each.size_bytes))
    return Scan(found.models, tuple(pending), found.problems)


def _scan_model(
    root: Path, name: str, entry: ModelStatement, policy: Repository | None, before: Catalog,
    environments: Environments | None, pending: list[PendingVersion], problems: dict[Key, Refusal],
) -> Model:  # fmt: skip
    was = before.models.get(name)
    try:
        config = was.config if _is_same_file(was, before, entry, name) and was is not None else entry.config(name)
    except ContractBroken as problem:  # another release wrote the statement, with keys that this one does not know
        failed = tuple(_failed(name, number, str(problem), problem.failure_kind) for number in entry.versions)
        return Model(name, failed, entry.aliases, str(problem))
    assert config is not None
    if not config.enabled:
        return Model(name, tuple(_failed(name, number, UNLOADED) for number in entry.versions), entry.aliases)
    kept = _served_before(before, name)
    environment = model_toml.environment_of(name, config, policy)
    stamp = _stamp(environment, environments)
    aliased = entry.aliases.values()
    servables = []
    for number in entry.versions:
        old, refusal = kept.get(number), entry.refused.get(number)
        if refusal is not None:
            goes_on = old is not None and old.state is State.READY and refusal.kind is not FailureKind.CONSENT
            servables.append(old if goes_on and old is not None else _failed(name, number, *_of(refusal)))
            if goes_on:
                problems[name, number] = Refusal(refusal.kind, still_serving(refusal.reason))
            continue
        files = VersionFiles(name, number, fingerprint(root, name, number, policy), stamp)
        if old is not None and _is_unchanged(old, files):
            servables.append(old)
            continue
        pending.append(PendingVersion(files, old, number == entry.versions[-1] or number in aliased, environment))
        servables.append(old if old is not None and _stands_in(old, files) else Servable(name, number))
    if entry.problem:
        kind = entry.problem_kind
        for servable in (each for each in servables if each.state is State.READY):
            problems[name, servable.version] = Refusal(kind, f"{entry.problem}; still serving what was loaded before")
    model = Model(name, tuple(servables), entry.aliases, entry.problem, config)
    return was if was is not None and was == model else model


def _is_same_file(was: Model | None, before: Catalog, entry: ModelStatement, name: str) -> bool:
    """Whether the model.toml in force is the one of the catalog before, so that it need not be read again."""
    former = before.statement.models.get(name)
    return was is not None and was.config is not None and former is not None and former.text == entry.text


def _of(refusal: Refusal) -> tuple[str, FailureKind]:
    return refusal.reason, refusal.kind


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
