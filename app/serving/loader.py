"""From a folder of the repository to a servable, or to the reason why not."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from app.contract import golden
from app.errors import ContractBroken
from app.repository import integrity, modelfile, paths
from app.runtimes.base import Runtime
from app.runtimes.sklearn import load as load_sklearn
from app.serving.catalog import Catalog, Model
from app.serving.lifecycle import State
from app.serving.servable import Servable
from app.settings import Repository

Note = Callable[[str, dict[str, object]], None]


def load_catalog(root: Path, policy: Repository, generation: int, before: Catalog) -> Catalog:
    """Read the repository. Versions that `before` already serves from the same files are kept as they are.

    Runs in a native thread: it neither logs nor counts. Raises OSError when `root` itself cannot be read.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"repository {root} is not there")
    return Catalog(generation, {name: _load_model(root, name, policy, before) for name in paths.models(root)})


def _load_model(root: Path, name: str, policy: Repository, before: Catalog) -> Model:
    old = before.models.get(name)
    kept = {servable.version: servable for servable in old.servables} if old else {}
    try:
        words = modelfile.read(root, name)
    except ContractBroken as problem:
        return Model(name, tuple(kept.values()), old.aliases if old else {}, str(problem))
    numbers = words.wanted(paths.versions(root, name))
    servables = tuple(_load_version(root, name, n, policy, kept.get(n)) for n in numbers)
    for servable in servables:
        servable.columns = words.columns
    return Model(name, servables, words.aliases)


def fingerprint(root: Path, name: str, number: int) -> object:
    """Changes when any file of the version does."""
    folder = paths.version_folder(root, name, number)
    stats = [(file.name, file.stat()) for file in sorted(folder.iterdir())]
    return tuple((file, stat.st_ino, stat.st_size, stat.st_mtime_ns) for file, stat in stats)


def _load_version(root: Path, name: str, number: int, policy: Repository, old: Servable | None) -> Servable:
    try:
        print_ = fingerprint(root, name, number)
    except OSError:
        print_ = None
    if old is not None and old.state is State.READY and old.fingerprint == print_:
        return old
    fresh = Servable(name, number)
    fresh.fingerprint = print_
    started_s = time.monotonic()
    try:
        contract = integrity.read_contract(root, name, number)
        fresh.contract = contract
        fresh.ready(check_version(root, name, number, policy), time.monotonic() - started_s)
    except ContractBroken as problem:
        fresh.fail(str(problem))
    except Exception as problem:  # noqa: BLE001 - a broken artifact may raise anything; the others must still load
        fresh.fail(f"{type(problem).__name__}: {problem}")
    if fresh.state is not State.READY and old is not None and old.state is State.READY:
        old.reason = f"the files changed and no longer load ({fresh.reason}); still serving what was loaded before"
        return old
    return fresh


def check_version(root: Path, name: str, number: int, policy: Repository) -> Runtime:
    """Load a version and hold it to its contract: hash, environment, types, golden rows. Raises ContractBroken."""
    contract = integrity.read_contract(root, name, number)
    artifact = integrity.check_artifact(root, contract)
    differences = integrity.skew(contract)
    if differences and policy.environment_skew == "refuse":
        raise ContractBroken(
            f"{'; '.join(differences)}; publish again here, or set repository.environment_skew = 'warn'"
        )
    runtime = load_sklearn(artifact, policy.trusted_types)
    golden.replay(contract, runtime.run)
    return runtime
