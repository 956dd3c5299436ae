"""Publishes a fitted estimator: writes one immutable version folder, completely or not at all.

The version is written to a draft folder beside the versions, checked there as a load would check it, and then
renamed.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import msgspec
import pandas as pd

from tableside import settings
from tableside.contracts.schema import Contract
from tableside.errors import ContractBroken, PublishFailed, RequestRejected, TablesideError
from tableside.own_code.importer import OwnCode
from tableside.publishing import (
    arrow_samples,
    artifact_files,
    batch_invariance,
    consent_record,
    draft_folder,
    equivalence,
    held_objects,
    missing_cells,
    sample,
    sample_files,
    sources,
)
from tableside.publishing.artifact_files import Parts
from tableside.publishing.code_files import collect
from tableside.publishing.column_types import Types
from tableside.publishing.contract_learning import learn_contract
from tableside.publishing.draft_folder import Terms
from tableside.publishing.effort import FULL, QUICK, Effort
from tableside.publishing.missing_cells import Nullable
from tableside.publishing.progress import Progress, silent
from tableside.publishing.warning_counts import warn_once
from tableside.repository import integrity, model_toml, model_toml_edits, paths, signing_keys
from tableside.repository.signing_keys import Signer
from tableside.runtimes import golden
from tableside.runtimes import trusted_types as trusted_library_types
from tableside.runtimes.base import Runtime
from tableside.runtimes.router import RoutedRuntime, allowed_difference, build_router, difference_from_estimator
from tableside.runtimes.sklearn import SklearnRuntime
from tableside.settings import Repository


@warn_once
def publish(
    name: str,
    estimator: object,
    sample_data: object = None,
    *,
    repository: Path | str = "models",
    version: int | None = None,
    alias: str | None = None,
    target: str | None = None,
    runtime: Literal["auto", "sklearn"] = "auto",
    tolerance: float = 0.0,
    trusted_types: tuple[str, ...] = (),
    trusted_libraries: tuple[str, ...] | None = None,
    source: dict[str, str] | None = None,
    trained_with: Mapping[str, str] | None = None,
    expect: object = None,
    environment_skew: Literal["refuse", "warn"] = "refuse",
    allow_pickle: bool = False,
    code: Sequence[Path | str] | OwnCode = (),
    as_pickle: bool | bytes = False,
    consent_path: Path | None = None,
    types: Types | None = None,
    nullable: Nullable = (),
    optional: Collection[str] = (),
    progress: Progress = silent,
    quick: bool = False,
    sign: Path | str | None = None,
    trusted_keys: Collection[str] | None = None,
    breaking: bool = False,
) -> Contract:
    """Publish a fitted estimator as `repository/name/version/` and return its contract.

    estimator: the estimator itself, or the path of a joblib, pickle or skops file, of a training record or of an MLflow
    directory, as `tableside publish` takes it.
    sample_data: rows like the training data: a DataFrame of pandas or polars, an Arrow table, an array of shape
    [rows, columns], a list of texts, or the path of a .csv or .parquet file.
    target: the name of a column of the sample to drop. version: a number from 1; by default the next one.
    alias: is set to the new version. source, trained_with: where the estimator came from, and the versions that wrote
    its file, for the contract; an estimator in memory counts as trained here.
    expect: the trainer's answers to the rows of the sample: a .csv or .parquet file, a DataFrame, or a dict of arrays
    by output. They must agree with the answers here, and become the golden answers.
    environment_skew: `warn` accepts another minor version of scikit-learn if `expect` covers every output.
    allow_pickle: read a pickle in a directory, which runs the code in it.
    runtime: `auto` uses the fast backends that pass the equivalence check; `sklearn` always calls the estimator.
    tolerance: the relative difference that a fast backend may have; 0 compares to the bit.
    trusted_types: types that a skops file may hold besides the server's own list (`repository.trusted_types`).
    trusted_libraries: libraries whose types it may hold; by default those of `repository.trusted_libraries`.
    code: the files and packages of the trainer's own modules that the estimator needs; the version carries them.
    as_pickle: write a pickle and no skops file; bytes are those of the trainer's own file, which is taken as it is.
    consent_path: the consent file; by default that of the settings. Publishing code or a pickle records consent there.
    types: dtypes by column name, which outrank those of the sample: `{"zip": "str", "born": "datetime64[ns]"}`.
    nullable: columns that accept missing cells although the sample has none, or `all` where the estimator answers one.
    optional: the same, but a column that the estimator requires is left as it is.
    progress: is called with the name of each step.
    quick: compare fast backends on fewer rows, and measure for a shorter time; the contract says so.
    sign: the file of a private key, with which the version is signed.
    trusted_keys: warn of a version that none of these public keys signs; by default those of `repository.trusted_keys`.
    breaking: publish also if the version takes requests whose clients it breaks (tableside.repository.compatibility).

    Raises PublishFailed, and leaves no version, when the estimator or the sample cannot be published, and KeysFailed
    when the key cannot be used.
    """
    root = Path(repository)
    check_arguments(root, name, version, alias, tolerance)
    signer = signing_keys.read(Path(sign), root) if sign is not None else None
    libraries = _libraries(trusted_libraries)
    progress("reading the sample")
    own = code if isinstance(code, OwnCode) else collect(code)
    request = sources.Request(sample_data, target, types, expect, allow_pickle, False, own, as_pickle is True)
    if isinstance(estimator, (str, Path)):
        policy = Repository(trusted_types=trusted_types, trusted_libraries=libraries, environment_skew=environment_skew)
        given = sources.prepare(Path(estimator), request, policy)
    else:
        given = sources.in_memory(estimator, request, trained_with, source)
    frame = sample.as_frame(given.sample, None, sample_files.dropped_columns(given.estimator, given.sample))
    if as_pickle is False:
        held_objects.refuse_unnamed(given.estimator)
    if own is not None or as_pickle is not False:
        consent_path = consent_record.place(consent_path, root)
    estimator_runtime, effort = SklearnRuntime(given.estimator), QUICK if quick else FULL
    progress("learning the contract")
    learn = partial(learn_contract, nullable=nullable, optional=optional or given.optional, expected=given.answers)
    contract = _learned(partial(learn, name, estimator_runtime, frame, effort), estimator_runtime)
    contract = msgspec.structs.replace(
        contract, source=given.source, trained_with=dict(given.trained_with), quick=quick
    )
    terms = Terms(alias, breaking)
    draft_folder.check_clients(root, contract, version, terms)
    if arrow_samples.is_arrow(sample_data):
        arrow_samples.check(estimator_runtime, sample_data, contract)
    _check_skew(contract, environment_skew)
    graph: bytes | None = None
    if runtime == "auto" and as_pickle is False:
        contract, graph = _check_backends(contract, estimator_runtime, frame, tolerance, effort, progress)
    parts = Parts(given.estimator, graph, own, (given.content or True) if as_pickle is True else as_pickle)
    trusted = trusted_library_types.expand(trusted_types, libraries)
    contract = _write_version(root / name, version, contract, parts, trusted, progress, signer, terms)
    consent_record.record(consent_path, root, contract)
    if alias is not None:
        model_toml_edits.set_alias(root, name, alias, contract.version)
    _warn_of_signature(contract, signer, trusted_keys)
    return contract


def _warn_of_signature(contract: Contract, signer: Signer | None, trusted_keys: Collection[str] | None) -> None:
    trusted = settings.load().repository.trusted_keys if trusted_keys is None else trusted_keys
    if trusted and (signer is None or signer.public not in signing_keys.names_by_key(trusted)):
        version, problem = (
            f"{contract.name}/{contract.version}",
            "unsigned" if signer is None else "signed by another key",
        )
        warnings.warn(
            f"{version} will not be served: it is {problem}, and repository.trusted_keys asks for a signature. Sign "
            f"it: `tableside sign {version} --key KEYFILE`, or publish with sign=KEYFILE",
            stacklevel=2,
        )


def _learned(learn: Callable[[], Contract], runtime: SklearnRuntime) -> Contract:
    """Return the contract that `learn` learns. Raises PublishFailed for whatever stands in its way."""
    try:
        return learn()
    except RequestRejected as problem:
        raise PublishFailed(f"the sample has cells that no request could send: {problem}") from problem
    except TablesideError:
        raise
    except Exception as problem:
        raise PublishFailed(
            f"the contract of {runtime.facts['estimator']} cannot be learned: {type(problem).__name__}: {problem}"
        ) from problem


def _check_skew(contract: Contract, policy: Literal["refuse", "warn"]) -> None:
    """Raise PublishFailed where a load would refuse the version: the golden answers must all be the trainer's then."""
    try:
        integrity.check_environment(contract, policy)
    except ContractBroken as problem:
        raise PublishFailed(
            f"{problem}. The trainer's answers must cover every output: "
            f"{', '.join(output.name for output in contract.outputs)}"
        ) from problem


def _libraries(given: tuple[str, ...] | None) -> tuple[str, ...]:
    return settings.load().repository.trusted_libraries if given is None else given


def check_arguments(root: Path, name: str, version: int | None, alias: str | None, tolerance: float) -> None:
    """Raise PublishFailed for an argument that is not valid, before any work is done."""
    paths.check_name(name)
    draft_folder.check_repository(root, name)
    if alias is not None:
        _check_alias(root, name, alias)
    if version is not None and version < 1:
        raise PublishFailed(f"version {version} is not valid. A version is a whole number from 1")
    if version is not None:
        draft_folder.refuse_used(root, name, version)
    if not 0 <= tolerance < 1:
        raise PublishFailed(
            f"tolerance {tolerance:g} is not valid. Give a relative difference from 0 (equal to the bit) to less than "
            "1, such as 1e-6"
        )


def _write_version(
    folder: Path, version: int | None, contract: Contract, parts: Parts, trusted_types: tuple[str, ...],
    progress: Progress, signer: Signer | None, terms: Terms,
) -> Contract:  # fmt: skip
    """Write the version into a draft, check that as a load would, and rename it. Returns the finished contract."""
    with draft_folder.draft_in(folder) as draft:
        try:
            progress("writing the artifact")
            contract = parts.write(draft, contract)
            progress("replaying the golden rows from the artifact")
            loaded = artifact_files.load_back(draft, contract, parts.estimator, parts.code, trusted_types)
            artifact_files.replay(contract, loaded, parts.code)
            _check_loaded_backends(build_router(loaded, contract, draft), contract)
            return draft_folder.rename_to_version(folder, draft, contract, version, signer, terms=terms)
        except ContractBroken as problem:
            raise PublishFailed(str(problem)) from problem


def _check_backends(
    contract: Contract, runtime: SklearnRuntime, frame: pd.DataFrame, tolerance: float,
    effort: Effort, progress: Progress,
) -> tuple[Contract, bytes | None]:  # fmt: skip
    """Return the contract with the result of the equivalence check, and the ONNX graph if one is used."""
    aligned, _ = sample.align(frame, runtime.estimator)
    known = sample_files.known_columns(runtime.estimator, list(aligned.columns))
    aligned = missing_cells.as_fitted(aligned, sample_files.by_text(known))
    report = equivalence.check_backends(
        runtime,
        contract.input,
        contract.outputs,
        aligned,
        tolerance,
        progress,
        golden.golden_table(contract),
        effort,
    )
    batch, batch_tolerance_ulp = batch_invariance.widen(
        contract.batch_invariance, contract.batch_tolerance_ulp, equivalence.largest_used_difference(report)
    )
    contract = msgspec.structs.replace(
        contract,
        equivalence_checks=report.equivalence_checks,
        routes=report.routes,
        tolerance=tolerance,
        batch_invariance=batch,
        batch_tolerance_ulp=batch_tolerance_ulp,
    )
    return contract, report.graph


def _check_alias(root: Path, name: str, alias: str) -> None:
    """Raise PublishFailed when the alias could not be set later, after the version was published."""
    paths.check_alias(alias)
    try:
        model_toml.read(root, name)
    except ContractBroken as problem:
        raise PublishFailed(f"{problem}. Correct the file, or publish without an alias") from problem


def _check_loaded_backends(loaded_runtime: Runtime, contract: Contract) -> None:
    """Compare the fast backends with the artifact as it was read back. Raises ContractBroken."""
    if isinstance(loaded_runtime, RoutedRuntime):
        largest = difference_from_estimator(loaded_runtime, golden.golden_table(contract), contract.outputs)
        if largest > allowed_difference(contract):
            raise ContractBroken(
                f"golden rows: a fast backend differs by {largest:.2g} from the artifact that was read back"
            )
