"""From a folder of the repository to a servable, or to the reason why not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from app.contract import golden
from app.contract.schema import Contract
from app.errors import ContractBroken, Trouble
from app.repository import integrity, modelfile, paths
from app.repository.shelf import Shelf
from app.runtimes.base import Runtime
from app.runtimes.heap import give_back
from app.runtimes.planned import SKLEARN, PlannedRuntime, disagreement, plan, tolerated
from app.runtimes.sklearn import SklearnRuntime
from app.runtimes.sklearn import load as load_sklearn
from app.serving import sharing
from app.serving.catalog import Catalog, Model
from app.serving.lifecycle import State
from app.serving.servable import Servable
from app.serving.verdicts import Candidate, Print, Verdicts
from app.settings import Repository

LARGE_BYTES = 1_000_000
"""From here on it is worth giving back to the system what a load has left behind."""
UNLOADED = "unloaded: enabled is false in model.toml"


def load_catalog(
    root: Path, policy: Repository, generation: int, before: Catalog, verdicts: Verdicts | None = None,
    shelf: Shelf | None = None,
) -> Catalog:  # fmt: skip
    """Read the repository. Versions that `before` already serves from the same files are kept as they are.

    verdicts: of trials; only what passed one is loaded, and what still waits for one is LOADING. None: all is loaded.
    shelf: where large forests lie that workers share. None: every worker holds its own.
    Runs in a native thread: it neither logs nor counts. Raises OSError when `root` itself cannot be read.
    """
    names = _names(root)
    return Catalog(generation, {name: _load_model(root, name, policy, before, verdicts, shelf) for name in names})


def candidates(root: Path, before: Catalog) -> list[Candidate]:
    """The versions `load_catalog` would load now. Raises OSError when `root` cannot be read."""
    return [each for name in _names(root) for each in _candidates(root, name, before)]


def _names(root: Path) -> list[str]:
    if not root.is_dir():
        raise FileNotFoundError(f"repository {root} is not there")
    return paths.models(root)


def _candidates(root: Path, name: str, before: Catalog) -> Iterator[Candidate]:
    try:
        words = modelfile.read(root, name)
    except ContractBroken:
        return
    kept = _kept(before, name)
    for number in words.wanted(paths.versions(root, name)) if words.enabled else ():
        print_ = fingerprint(root, name, number)
        if not _is_same(kept.get(number), print_):
            yield Candidate(name, number, print_)


def _kept(before: Catalog, name: str) -> dict[int, Servable]:
    model = before.models.get(name)
    return {servable.version: servable for servable in model.servables} if model else {}


def _is_same(old: Servable | None, print_: Print) -> bool:
    return old is not None and old.state is State.READY and old.fingerprint == print_


def _load_model(
    root: Path, name: str, policy: Repository, before: Catalog, verdicts: Verdicts | None, shelf: Shelf | None
) -> Model:
    kept = _kept(before, name)
    published = paths.versions(root, name)
    try:
        words = modelfile.read(root, name)
    except ContractBroken as problem:
        return _without_words(name, published, before, problem)
    numbers = words.wanted(published)
    if not words.enabled:
        return Model(name, tuple(_failed(name, n, UNLOADED) for n in numbers), words.aliases)
    servables = tuple(_load_version(root, name, n, policy, kept.get(n), verdicts, shelf) for n in numbers)
    return Model(name, servables, words.aliases, words=words)


def _without_words(name: str, published: list[int], before: Catalog, problem: ContractBroken) -> Model:
    """A model whose model.toml cannot be read: what was served goes on being served, and says so."""
    kept = [servable for servable in _kept(before, name).values() if servable.state is State.READY]
    for servable in kept:
        servable.complain(f"{problem}; still serving what was loaded before", problem.trouble)
    if not kept:
        kept = [_failed(name, number, str(problem), problem.trouble) for number in published]
    old = before.models.get(name)
    return Model(name, tuple(kept), old.aliases if old else {}, str(problem))


def _failed(name: str, number: int, reason: str, trouble: Trouble = Trouble.NONE) -> Servable:
    servable = Servable(name, number)
    servable.fail(reason, trouble)
    return servable


def fingerprint(root: Path, name: str, number: int) -> Print:
    """Changes when any file of the version does; None when they cannot be seen."""
    folder = paths.version_folder(root, name, number)
    try:
        stats = [(file.name, file.stat()) for file in sorted(folder.iterdir())]
    except OSError:
        return None
    return tuple((file, stat.st_ino, stat.st_size, stat.st_mtime_ns) for file, stat in stats)


def _load_version(
    root: Path, name: str, number: int, policy: Repository, old: Servable | None, verdicts: Verdicts | None,
    shelf: Shelf | None,
) -> Servable:  # fmt: skip
    print_ = fingerprint(root, name, number)
    if old is not None and _is_same(old, print_):
        old.complain(old.warning, Trouble.ENVIRONMENT if old.warning else Trouble.NONE)
        return old
    fresh = Servable(name, number)
    fresh.fingerprint = print_
    _load(root, fresh, policy, verdicts, shelf)
    if fresh.state is State.READY or old is None or old.state is not State.READY:
        return fresh
    if fresh.state is State.UNAVAILABLE:
        old.complain(
            f"the files changed and no longer load ({fresh.reason}); still serving what was loaded before",
            fresh.trouble,
        )
    return old


def _load(root: Path, fresh: Servable, policy: Repository, verdicts: Verdicts | None, shelf: Shelf | None) -> None:
    """Make it ready, or fail it; leave it LOADING while its trial is not over."""
    started_s = time.monotonic()
    try:
        if verdicts is not None and not _passed(fresh, verdicts):
            return
        contract = integrity.read_contract(root, fresh.name, fresh.version)
        fresh.contract = contract
        runtime = check_version(root, fresh.name, fresh.version, policy, shelf)
        if contract.artifact.size_bytes > LARGE_BYTES:
            give_back()
        warning = integrity.check_environment(contract, policy.environment_skew)
        note = "" if shelf is None else sharing.note(root, contract, policy, runtime)
        fresh.ready(runtime, time.monotonic() - started_s, warning or _unused(contract, runtime))
        fresh.complain(fresh.reason or note, fresh.trouble)
    except ContractBroken as problem:
        fresh.fail(str(problem), problem.trouble)
    except Exception as problem:  # noqa: BLE001 - a broken artifact may raise anything; the others must still load
        fresh.fail(f"{type(problem).__name__}: {problem}", Trouble.OTHER)


def _unused(contract: Contract, runtime: Runtime) -> str:
    """Which of the contract's faster ways are not in service here, in words."""
    if sharing.is_shared(runtime):
        return ""
    used = runtime.used if isinstance(runtime, PlannedRuntime) else frozenset()
    unused = sorted({way.way for way in contract.ways} - used - {SKLEARN})
    return f"its faster way ({', '.join(unused)}) does not hold here; the estimator answers" if unused else ""


def _passed(fresh: Servable, verdicts: Verdicts) -> bool:
    """Whether its trial let it through; False while that is not known. Raises ContractBroken with what was found."""
    verdict = verdicts.known.get(Candidate(fresh.name, fresh.version, fresh.fingerprint))
    if verdict is None:
        if verdicts.complete:
            raise ContractBroken("its files appeared or changed while others were read; reload again", Trouble.OTHER)
        fresh.reason = "it is being tried in a process of its own"
        return False
    if verdict.trouble:
        raise ContractBroken(verdict.reason, verdict.trouble)
    return True


def check_version(root: Path, name: str, number: int, policy: Repository, shelf: Shelf | None = None) -> Runtime:
    """Load a version and hold it to its contract: hash, environment, types, golden rows, seal. Raises ContractBroken.

    The seal comes last: where the golden rows can tell what is wrong, they say more. What lies on the shelf already was
    loaded so by another process of this host, and is held to the same but for the types.
    """
    contract = integrity.read_contract(root, name, number)
    artifact = integrity.check_artifact(root, contract)
    integrity.check_environment(contract, policy.environment_skew)
    if shelf is None or not sharing.fits(contract, artifact, policy):
        runtime = _whole(artifact, contract, policy)
        integrity.check_seal(root, contract)
        return _planned(runtime, contract, artifact.parent)
    later = partial(_checked_whole, root, contract, policy)
    shared = sharing.open_entry(contract, policy, shelf, later)
    if shared is None:
        runtime = _whole(artifact, contract, policy)
        shared = sharing.make_entry(root, contract, policy, shelf, runtime, later)
    integrity.check_seal(root, contract)
    return _planned(runtime, contract, artifact.parent) if shared is None else shared


def _checked_whole(root: Path, contract: Contract, policy: Repository) -> SklearnRuntime:
    return _whole(integrity.check_artifact(root, contract), contract, policy)


def _whole(artifact: Path, contract: Contract, policy: Repository) -> SklearnRuntime:
    """The estimator in memory, held to its golden rows. Raises ContractBroken."""
    runtime = load_sklearn(artifact, policy.trusted_types)
    _replay(contract, runtime)
    return runtime


def _planned(original: SklearnRuntime, contract: Contract, folder: Path) -> Runtime:
    """The ways the contract asks for, held once more to the estimator here; the estimator alone where they differ.

    Another processor may add up otherwise: then the estimator is right, and slower.
    """
    try:
        planned = plan(original, contract, folder)
        if isinstance(planned, PlannedRuntime):
            table = golden.golden_table(contract)
            apart = disagreement(planned, table, contract.outputs)
            if apart > tolerated(contract):
                return original
    except Exception:  # noqa: BLE001 - whatever goes wrong with a faster way, the estimator has just proved itself
        return original
    return planned


def _replay(contract: Contract, runtime: Runtime) -> None:
    try:
        golden.replay(contract, runtime.run)
    except ContractBroken as problem:
        raise ContractBroken(str(problem), Trouble.GOLDEN) from problem
    except Exception as problem:
        said = " ".join(f"{type(problem).__name__}: {problem}".split())
        raise ContractBroken(f"golden rows: not answered: {said}", Trouble.GOLDEN) from problem
