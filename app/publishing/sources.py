"""Reads what is to be published: a joblib, pickle or skops file, an ONNX graph, a booster's own file, an MLflow model
directory, or a training record."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tableside.contracts.environment import environment
from tableside.errors import ContractBroken, PublishFailed
from tableside.own_code.importer import OwnCode
from tableside.publishing import (
    column_types,
    estimator_files,
    mlflow,
    mlflow_code,
    native_files,
    sample_files,
    skew,
    trainers_answers,
    training_record,
)
from tableside.publishing import sample as samples
from tableside.publishing.column_types import Types
from tableside.publishing.prepared import Prepared
from tableside.publishing.progress import Progress, silent
from tableside.publishing.sample_files import Sample
from tableside.publishing.trainers_answers import TrainersAnswers
from tableside.runtimes import trusted_types
from tableside.settings import Repository
from tableside_contract import facts


@dataclass(frozen=True)
class Request:
    """How an estimator is read from a path.

    sample: the path of a .csv or .parquet file, rows, or None where the directory brings its own. target: the name of
    its column to drop. types: dtypes by column name, which outrank the sample's. expect: the trainer's answers to its
    rows, see `trainers_answers.read`. allow_pickle, allow_code: whether a pickle in a directory, and an MLflow
    directory's own code, may be read, which runs it. code: own code that the file needs. as_pickle: whether the bytes
    of the trainer's pickle are kept.
    """

    sample: object = None
    target: str | None = None
    types: Types | None = None
    expect: object = None
    allow_pickle: bool = False
    allow_code: bool = False
    code: OwnCode | None = None
    as_pickle: bool = False


def prepare(
    path: Path, request: Request, settings: Repository, progress: Progress = silent
) -> Prepared:  # fmt: skip
    """Read the estimator at `path` and its sample.

    An artifact that another minor version of scikit-learn wrote is refused before it is loaded. Raises PublishFailed.
    """
    answers = trainers_answers.read(request.expect)
    if not path.is_dir():
        return _from_file(path, request, settings, answers)
    if training_record.is_record(path):
        if request.sample is not None or request.expect is not None:
            raise PublishFailed(f"{path} is a training record, with a sample and answers of its own. Give no others")
        return _from_record(path, request, settings, progress)
    prepared = mlflow.prepare(
        path, request.sample, settings, target=request.target, types=request.types, allow_pickle=request.allow_pickle,
        allow_code=request.allow_code, code=request.code, has_answers=answers is not None, progress=progress,
    )  # fmt: skip
    return dataclasses.replace(prepared, answers=answers)


def in_memory(
    estimator: object, request: Request, trained_with: Mapping[str, str] | None, source: dict[str, str] | None
) -> Prepared:
    """Return an estimator in memory with its sample. It counts as trained here unless `trained_with` says otherwise."""
    if trained_with is None and (elsewhere := facts.written_by(estimator)):
        raise PublishFailed(
            f"{elsewhere}, but this environment has {environment()[skew.SKLEARN]}. Publish its file instead: the error "
            "then lists the ways out"
        )
    versions = environment(facts.libraries(estimator)) if trained_with is None else trained_with
    found, notes = rows(estimator, request)
    answers = trainers_answers.read(request.expect)
    return Prepared(estimator, found, source or {}, tuple(notes), trained_with=versions, answers=answers)


def _from_file(path: Path, request: Request, settings: Repository, answers: TrainersAnswers | None) -> Prepared:
    if not path.is_file():
        raise PublishFailed(f"{path}: no such file")
    if native_files.is_native(path):
        return _from_native(path, request, answers)
    trained_with, versions = skew.written_with(path)
    skew.Gate(settings.environment_skew, answers is not None).check(str(path), versions)
    content = estimator_files.read(path) if request.as_pickle and not is_zip(path) else None
    if is_zip(path):
        estimator = _load_skops(path, settings, request.code)
    elif content is None:
        estimator = estimator_files.load(path, request.code, versions)
    else:
        estimator = estimator_files.load_bytes(content, str(path), request.code, versions)
    if request.sample is None:
        raise PublishFailed(f"{path}: a joblib file needs a sample; add --sample FILE with rows like the training data")
    found, notes = rows(estimator, request)
    if not versions:
        notes = [*notes, f"{path.name} does not say which scikit-learn wrote it, so no version was compared"]
    return Prepared(
        estimator, found, notes=tuple(notes), code=request.code, content=content, trained_with=trained_with,
        answers=answers,
    )  # fmt: skip


def _from_native(path: Path, request: Request, answers: TrainersAnswers | None) -> Prepared:
    """An ONNX graph or a booster's own file. Neither says in which versions it was trained."""
    if request.sample is None:
        raise PublishFailed(f"{path} needs a sample; add --sample FILE with rows like the training data")
    if isinstance(request.sample, (str, Path)) and Path(request.sample).suffix.lower() == ".csv":
        names = sample_files.columns_of_csv(Path(request.sample), request.target)
        request = dataclasses.replace(request, types={**native_files.types(path, names), **(request.types or {})})
    found, _ = rows(None, request)
    estimator = native_files.read(path, found)
    found, notes = rows(estimator, request)
    return Prepared(estimator, found, {"format": path.suffix.lower().removeprefix(".")}, tuple(notes), answers=answers)


def rows(estimator: object, request: Request) -> Sample:
    """Return the sample without its target column, with the declared types, and notes on how a file was read."""
    if isinstance(request.sample, (str, Path)):
        return sample_files.read(Path(request.sample), estimator, request.target, request.types)
    frame = samples.as_frame(request.sample, request.target, sample_files.dropped_columns(estimator, request.sample))
    return column_types.apply(frame, request.types or {}), []


def _from_record(folder: Path, request: Request, settings: Repository, progress: Progress) -> Prepared:
    record = training_record.read(folder)
    artifact = folder / record.artifact.file
    trained_with, versions = skew.written_with(artifact, record.trained_with)
    skew.Gate(settings.environment_skew, has_answers=True).check(str(folder), versions)
    progress("loading the estimator")
    content: bytes | None = None
    if is_zip(artifact):
        estimator = _load_skops(artifact, settings, request.code)
    else:
        content = estimator_files.read(artifact)
        estimator_files.check_pickle_allowed(artifact, content, "joblib", settings, request.allow_pickle)
        estimator = estimator_files.load_bytes(content, str(artifact), request.code, versions)
    return Prepared(
        estimator, training_record.sample_of(record, folder), source={"format": "training record"}, code=request.code,
        content=content, trained_with=trained_with, answers=training_record.answers_of(record, folder),
    )  # fmt: skip


def _load_skops(path: Path, settings: Repository, code: OwnCode | None) -> object:
    try:
        trusted = trusted_types.expand(settings.trusted_types, settings.trusted_libraries)
        loaded = mlflow_code.load_skops(path, trusted, code)
    except ContractBroken as problem:
        raise PublishFailed(f"{path}: {problem}") from problem
    return estimator_files.check(loaded, str(path))


def is_zip(path: Path) -> bool:
    """Return whether the file is a zip archive, as skops files are. Raises PublishFailed if it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(4) == b"PK\x03\x04"
    except OSError as problem:
        raise PublishFailed(f"{path}: {problem.strerror or problem}") from problem
