"""Load one version and check it against its contract."""

from __future__ import annotations

import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import msgspec

from tableside.contracts.consent_digest import FOLDER, is_pickle, needs_consent, own_types
from tableside.contracts.schema import Contract
from tableside.errors import ContractBroken, FailureKind
from tableside.model_process.environment_pools import Environments, private
from tableside.model_process.process_pool import load_version
from tableside.model_process.remote_runtime import RemoteRuntime
from tableside.own_code import importer
from tableside.preflight import shared_entries
from tableside.repository import consent_file, integrity, model_toml, paths, verified_files
from tableside.runtimes import golden, trusted_types
from tableside.runtimes.base import Runtime
from tableside.runtimes.checked_artifacts import CheckedArtifacts
from tableside.runtimes.computed_once import probabilities_computed_once
from tableside.runtimes.fast.treelite import Keep, convert_anew
from tableside.runtimes.router import (
    Answers,
    RoutedRuntime,
    allowed_difference,
    build_router,
    difference_from_estimator,
)
from tableside.runtimes.shared_store import SharedStore
from tableside.runtimes.sklearn import SklearnRuntime
from tableside.runtimes.sklearn import load as load_sklearn
from tableside.runtimes.trusted_types import TRUSTED
from tableside.settings import Repository

PICKLE_NOT_LOADED = (
    "the artifact is a pickle, and a worker loads none. Set `environment` in model.toml, so that the model runs in a "
    "process of its own"
)
"""The reason of a version that holds a pickle and has no process of its own."""


def check_version(
    root: Path, name: str, number: int, policy: Repository, store: SharedStore | None = None,
    environments: Environments | None = None, checked: CheckedArtifacts | None = None,
) -> Runtime:  # fmt: skip
    """Load a version and return its runtime. Raises ContractBroken for the first check that fails.

    The checks, in order: the signature, where `repository.trusted_keys` asks for one, and those of `load_contracted`.
    """
    contract = integrity.read_contract(root, name, number, policy.trusted_keys)
    return load_contracted(root, contract, policy, store, environments, checked)


def load_contracted(
    root: Path, contract: Contract, policy: Repository, store: SharedStore | None = None,
    environments: Environments | None = None, checked: CheckedArtifacts | None = None, environment: str | None = None,
) -> Runtime:  # fmt: skip
    """Load the version of a contract that was read with `policy.trusted_keys`, and return its runtime.

    The checks, in order: the hashes of artifact and own code, the environment, the consent to what the version brings,
    the types in the skops file, the golden rows, the checksums. Nothing is imported before the consent is checked.
    Checksums come last because a golden row shows better what is wrong. A version whose forest is in the shared store
    skips the check of types: another process of this host has made it when it wrote the entry.
    environment: the one that the version runs in, from `environments`, in a model process; empty for this one's, and
    None for what the model.toml on disk says.
    checked: where artifacts whose types have been audited are kept for later loads; None reads each artifact itself.
    Raises ContractBroken for the first check that fails.
    """
    name, artifact = contract.name, integrity.check_artifact(root, contract)
    trusted = trusted_types.expand(policy.trusted_types, policy.trusted_libraries)
    policy = msgspec.structs.replace(policy, trusted_types=trusted)
    if environment is None:
        environment = model_toml.environment_of(name, model_toml.read(root, name), policy)
    if environment:
        return _load_in_environment(root, contract, artifact, policy, environments or private({}, 1.0), environment)
    integrity.check_environment(contract, policy.environment_skew)
    policy = _admit_code(root, contract, policy)
    if store is None or not shared_entries.should_share(contract, artifact, policy):
        runtime, answers = _load_estimator(root, contract, policy, checked)
        integrity.check_checksums(root, contract)
        keep = checked.converted(contract.artifact.sha256) if checked is not None else convert_anew
        return _routed(runtime, answers, contract, artifact.parent, keep)
    load_later = partial(_load_checked_estimator, root, contract, policy)
    shared = shared_entries.open_entry(contract, policy, store, load_later)
    if shared is None:
        runtime, answers = _load_estimator(root, contract, policy)
        shared = shared_entries.make_entry(root, contract, policy, store, runtime, load_later)
    integrity.check_checksums(root, contract)
    return _routed(runtime, answers, contract, artifact.parent) if shared is None else shared


def _admit_code(root: Path, contract: Contract, policy: Repository) -> Repository:
    """Make the version's own code importable if there is consent, and return the policy that trusts its types.

    Nothing is imported yet. Raises ContractBroken without consent, and for a pickle, which no worker loads.
    """
    if not needs_consent(contract):
        return policy
    consent_file.check(root, contract, Path(policy.consent_file))
    if is_pickle(contract):
        raise ContractBroken(PICKLE_NOT_LOADED, FailureKind.ENVIRONMENT)
    folder = paths.version_folder(root, contract.name, contract.version) / FOLDER
    importer.install(verified_files.read_code(root, contract), lambda path: str(folder / path))
    return msgspec.structs.replace(policy, trusted_types=(*policy.trusted_types, *own_types(contract)))


def _load_in_environment(
    root: Path, contract: Contract, artifact: Path, policy: Repository, environments: Environments, environment: str
) -> Runtime:
    processes = environments.processes(environment)
    give_up_at_s = time.monotonic() + policy.load_timeout_s
    here = processes.versions_of_libraries(give_up_at_s)
    warning = integrity.check_environment(contract, policy.environment_skew, here)
    if needs_consent(contract):
        consent_file.check(root, contract, Path(policy.consent_file))
    _check_company(root, contract, environment, policy)
    trusted = (*TRUSTED, *policy.trusted_types, *own_types(contract))
    code = verified_files.read_code(root, contract)
    try:
        in_memory = bool(policy.trusted_keys)
        runtime = load_version(processes, contract, artifact, trusted, give_up_at_s, code, here, in_memory)
    except ContractBroken as refused:
        raise integrity.explained(refused, contract, here) from refused
    runtime.warning = warning
    _replay(contract, runtime)
    integrity.check_checksums(root, contract)
    return runtime


def _check_company(root: Path, contract: Contract, environment: str, policy: Repository) -> None:
    """Raise ContractBroken if another model shares the environment, and one of the two has a pickle.

    The code in a pickle could change what the other one answers, so a pickle runs in processes of its own.
    """
    for other in model_toml.others_in(root, contract.name, environment, policy):
        if is_pickle(contract) or model_toml.holds_pickle(root, other):
            whose = "the artifact" if is_pickle(contract) else f"an artifact of the model {other}"
            raise ContractBroken(
                f"{whose} is a pickle, which runs in a process of its own, and the model {other} names the environment "
                f"{environment!r} too. Define another environment with the same interpreter for one of them, "
                "[environments.NAME] in tableside.toml",
                FailureKind.ENVIRONMENT,
            )


def _load_checked_estimator(root: Path, contract: Contract, policy: Repository) -> SklearnRuntime:
    integrity.check_artifact(root, contract)
    return _load_estimator(root, contract, policy)[0]


def _load_estimator(
    root: Path, contract: Contract, policy: Repository, checked: CheckedArtifacts | None = None
) -> tuple[SklearnRuntime, Answers]:
    """Load the estimator and replay its golden rows. Returns it with its answers. Raises ContractBroken.

    With own code the artifact decides what the code is called with, and with signatures nobody else may choose it: the
    bytes that are hashed are then those that are loaded.
    """
    folder = paths.version_folder(root, contract.name, contract.version)
    is_read = bool(contract.code or policy.trusted_keys)
    content = partial(verified_files.read, folder, contract.artifact) if is_read else None
    entry = checked.entry(contract.artifact.sha256) if checked is not None else None
    try:
        runtime = load_sklearn(folder / contract.artifact.file, policy.trusted_types, content, contract.types, entry)
    except ContractBroken as refused:
        raise integrity.explained(refused, contract) from refused
    return runtime, _replay(contract, runtime)


def _routed(
    original: SklearnRuntime, answered: Answers, contract: Contract, folder: Path, keep: Keep = convert_anew
) -> Runtime:
    """The contract's fast backends if they agree with the estimator on the golden rows here; else the estimator.

    answered: the estimator's answers to these rows. keep: keeps what treelite converts of the artifact.
    They may differ on another processor than that of publish, which may add numbers in another order.
    """
    try:
        routed = build_router(original, contract, folder, keep)
        if isinstance(routed, RoutedRuntime):
            table = golden.golden_table(contract)
            difference = difference_from_estimator(routed, table, contract.outputs, own=answered)
            if difference > allowed_difference(contract):
                return original
    except Exception:  # noqa: BLE001 - a fast backend may raise anything; the estimator has passed its checks
        return original
    return routed


def _replay(contract: Contract, runtime: SklearnRuntime | RemoteRuntime) -> Answers:
    once = probabilities_computed_once(runtime.estimator) if isinstance(runtime, SklearnRuntime) else nullcontext()
    try:
        with once:
            runtime.golden_difference, answered = golden.compare(contract, runtime.run, runtime.prepare)
        return answered
    except ContractBroken as problem:
        raise ContractBroken(str(problem), FailureKind.GOLDEN) from problem
    except Exception as problem:
        detail = " ".join(f"{type(problem).__name__}: {problem}".split())
        raise ContractBroken(f"the golden rows could not be computed: {detail}", FailureKind.GOLDEN) from problem
