"""Publishes a model that runs in an environment of its own: the estimator is never loaded in this process."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

import tableside_contract
from tableside.contract.schema import Artifact, Contract
from tableside.errors import ContractBroken, PublishFailed, RequestRejected, TablesideError
from tableside.model_process import known_environments
from tableside.model_process.known_environments import child_environ
from tableside.model_process.process_pool import PrivateProcess, load_version
from tableside.publishing import draft_folder, publish, sample, training_record
from tableside.publishing.contract_learning import learn_contract
from tableside.publishing.effort import FULL, QUICK
from tableside.publishing.missing_cells import Nullable
from tableside.publishing.progress import Progress, silent
from tableside.publishing.remote_estimator import RemoteEstimator
from tableside.publishing.training_record import TrainingRecord
from tableside.repository import integrity, model_toml, paths
from tableside.runtimes import golden, trusted_types
from tableside.settings import Settings
from tableside_contract.facts import Facts

RECORDER = known_environments.CHILD.with_name("recorder.py")
RECORD_TIMEOUT_S = 600.0


def publish_in_environment(
    name: str, source: Path, environment: str, settings: Settings, *, repository: Path, sample_file: Path | None = None,
    target: str | None = None, version: int | None = None, alias: str | None = None, nullable: Nullable = (),
    quick: bool = False, progress: Progress = silent,
) -> Contract:  # fmt: skip
    """Publish a model whose versions run in `environment`, and write that into its model.toml. Return the contract.

    source: a joblib, pickle or skops file, which is loaded by the environment's interpreter only, or a training record.
    sample_file: rows like the training data, for a file. The other arguments are those of `publish.publish`.
    Raises PublishFailed, and leaves no version, when the model cannot be published.
    """
    publish.check_arguments(repository, name, version, alias, 0.0)
    _check_model(repository, name, environment)
    try:
        with _record(source, sample_file, target, environment, settings, progress) as folder:
            record = training_record.read(folder)
            contract = _publish(
                name, folder, record, environment, settings, repository, version, nullable, quick, progress
            )
    except (ContractBroken, RequestRejected) as problem:
        raise PublishFailed(f"environment {environment!r}: {problem}") from problem
    if alias is not None:
        model_toml.set_alias(repository, name, alias, contract.version)
    return contract


def _check_model(root: Path, name: str, environment: str) -> None:
    """Raise PublishFailed if published versions of the model run elsewhere: a model has one environment."""
    try:
        now = model_toml.read(root, name).environment
    except ContractBroken as problem:
        raise PublishFailed(f"{problem}. Correct the file first") from problem
    if now != environment and paths.versions(root, name):
        place = f"in the environment {now!r}" if now else "in the server's own environment"
        raise PublishFailed(
            f"the versions of {name!r} run {place}, and a model has one environment. Publish under another name"
        )


@contextmanager
def _record(
    source: Path, sample_file: Path | None, target: str | None, environment: str, settings: Settings, progress: Progress
) -> Iterator[Path]:
    """Yield the folder of a training record: the source itself, or one that the environment makes of it."""
    if source.is_dir():
        if not training_record.is_record(source):
            raise PublishFailed(f"{source} is not a training record. Give a joblib, pickle or skops file with --sample")
        if sample_file is not None:
            raise PublishFailed(f"{source} is a training record, with a sample of its own. Leave out --sample")
        yield source
        return
    if sample_file is None:
        raise PublishFailed(f"{source}: add --sample FILE with rows like the training data")
    with tempfile.TemporaryDirectory(prefix="tableside-") as folder:
        out = Path(folder) / "record"
        progress(f"asking the estimator in the environment {environment}")
        words = [
            str(source),
            "--sample",
            str(sample_file),
            "--out",
            str(out),
            *(["--target", target] if target else []),
        ]
        _run_recorder(_python(environment, settings), words)
        yield out


def _python(environment: str, settings: Settings) -> str:
    known = known_environments.known(settings)
    if environment not in known:
        raise known_environments.unknown(environment, known)
    return known[environment].python


def _run_recorder(python: str, words: list[str]) -> None:
    package = Path(tableside_contract.__file__).parent
    command = [python, "-I", str(RECORDER), str(package), *words]
    try:
        done = subprocess.run(  # noqa: S603 - the operator's interpreter
            command,
            capture_output=True,
            text=True,
            timeout=RECORD_TIMEOUT_S,
            check=False,
            env=child_environ(os.environ),
        )
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise PublishFailed(f"{python} cannot make a training record: {problem}") from problem
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no output"]
        raise PublishFailed(f"no training record: {lines[-1].removeprefix('tableside_contract: ')}")


def _publish(
    name: str, folder: Path, record: TrainingRecord, environment: str, settings: Settings, root: Path,
    version: int | None, nullable: Nullable, quick: bool, progress: Progress,
) -> Contract:  # fmt: skip
    artifact = folder / record.artifact.file
    if record.artifact.file != paths.ARTIFACT:
        raise PublishFailed(
            f"the environment wrote {record.artifact.file}, a pickle, because skops is not installed there or cannot "
            "hold the estimator. Install skops into the environment"
        )
    limit_s = settings.repository.load_timeout_s
    policy = settings.repository
    trusted = (*trusted_types.TRUSTED, *trusted_types.expand(policy.trusted_types, policy.trusted_libraries))
    process = PrivateProcess(environment, _python(environment, settings), limit_s)
    try:
        here = process.versions_of_libraries(time.monotonic() + limit_s)
        progress("learning the contract")
        facts = msgspec.convert(record.facts, Facts)
        remote = RemoteEstimator(process, artifact, record.artifact.sha256, facts, trusted)
        contract = _learn(name, remote, record, folder, nullable, quick)
        contract = msgspec.structs.replace(
            contract, environment=dict(here), trained_with=record.trained_with, source={"format": "training record"},
            artifact=Artifact(paths.ARTIFACT, record.artifact.sha256, record.artifact.size_bytes), quick=quick,
        )  # fmt: skip
        integrity.check_environment(contract, "refuse", here)
        return _write(contract, artifact, process, trusted, root, version, environment, limit_s, progress)
    finally:
        process.close()


def _learn(
    name: str, remote: RemoteEstimator, record: TrainingRecord, folder: Path, nullable: Nullable, quick: bool
) -> Contract:
    frame = sample.as_frame(training_record.sample_of(record, folder), None)
    answers = training_record.answers_of(record, folder)
    try:
        return learn_contract(name, remote, frame, QUICK if quick else FULL, nullable=nullable, expected=answers)
    except TablesideError:
        raise
    except Exception as problem:
        raise PublishFailed(
            f"the contract of {remote.facts['estimator']} cannot be learned: {type(problem).__name__}: {problem}"
        ) from problem


def _write(
    contract: Contract, artifact: Path, process: PrivateProcess, trusted: tuple[str, ...], root: Path,
    version: int | None, environment: str, limit_s: float, progress: Progress,
) -> Contract:  # fmt: skip
    """Write the version into a draft, replay its golden rows in the environment, and rename it."""
    with draft_folder.draft_in(root / contract.name) as draft:
        progress("replaying the golden rows from the artifact")
        shutil.copyfile(artifact, draft / paths.ARTIFACT)
        runtime = load_version(process, contract, draft / paths.ARTIFACT, trusted, time.monotonic() + limit_s)
        golden.replay(contract, runtime.run, runtime.prepare)
        model_toml.set_environment(root, contract.name, environment)
        return publish.rename_to_version(root / contract.name, draft, contract, version)
