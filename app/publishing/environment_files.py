"""Reads what is to be published for an environment: a file, an MLflow directory or a training record.

Nothing is loaded in this process. The environment's interpreter loads the file, says what the estimator says of itself,
and writes it as a skops file where one can hold it.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec
import pandas as pd

import tableside_contract
from tableside.contracts.consent_digest import PICKLE
from tableside.errors import PublishFailed
from tableside.model_process import known_environments
from tableside.model_process.known_environments import child_environ
from tableside.own_code.importer import OwnCode
from tableside.publishing import (
    column_types,
    estimator_files,
    mlflow,
    mlflow_code,
    mlflow_signature,
    mlflow_versions,
    sample,
    skew,
    sources,
    trainers_answers,
    training_record,
)
from tableside.publishing.held_objects import BY_PICKLE
from tableside.publishing.mlflow import MLflowModel
from tableside.publishing.sources import Request
from tableside.publishing.trainers_answers import TrainersAnswers
from tableside.publishing.training_record import RecordArtifact
from tableside.repository import paths
from tableside.runtimes import skops_names
from tableside.settings import Repository
from tableside_contract.described import FILE
from tableside_contract.environment import same_minor
from tableside_contract.facts import Facts

RECORDER = known_environments.CHILD.with_name("recorder.py")
RECORD_TIMEOUT_S = 600.0
_MISSING = re.compile(r"No module named '([\w.]+)'")


@dataclass(frozen=True)
class Place:
    """An environment: its name, its interpreter, and the versions of the libraries in it."""

    name: str
    python: str
    libraries: Mapping[str, str]


@dataclass(frozen=True)
class ReadModel:
    """An estimator that only its environment can load, and its sample.

    artifact: the skops file or pickle that the version gets. facts: what the estimator says of itself. rows: returns
    the sample and notes, given an object with the estimator's fitted attributes. answers: the trainer's. optional: the
    columns that a signature does not require.
    """

    artifact: Path
    facts: Facts
    trained_with: Mapping[str, str]
    rows: Callable[[object], tuple[pd.DataFrame, Sequence[str]]]
    source: Mapping[str, str]
    answers: TrainersAnswers | None = None
    code: OwnCode | None = None
    optional: tuple[str, ...] = ()


class _Described(msgspec.Struct, frozen=True):
    facts: Facts
    trained_with: dict[str, str]
    artifact: RecordArtifact
    unheld: str


def read(source: Path, request: Request, place: Place, settings: Repository, work: Path) -> ReadModel:
    """Read a model and the artifact of its version, which is written into the folder `work`. Raises PublishFailed."""
    if source.is_dir():
        if training_record.is_record(source):
            return _from_record(source, request, work)
        return _from_mlflow(source, request, place, settings, work)
    if not source.is_file():
        raise PublishFailed(f"{source}: no such file")
    if request.sample is None:
        raise PublishFailed(f"{source}: add --sample FILE with rows like the training data")
    trained_with, versions = skew.written_with(source)
    _check_release(str(source), versions, place)
    described = _describe(source, request.code, place, work)
    return ReadModel(
        _artifact(described, source, request, work), described.facts,
        skew.completed(trained_with, described.trained_with),
        partial(sources.rows, request=request), {}, trainers_answers.read(request.expect), request.code,
    )  # fmt: skip


def _check_release(label: str, versions: Sequence[str], place: Place) -> None:
    here = place.libraries.get(skew.SKLEARN, "none")
    others = [version for version in versions if not same_minor(version, here)]
    if others:
        raise PublishFailed(
            f"{label} was written with {skew.SKLEARN} {' and '.join(others)}, and the environment {place.name!r} has "
            f"{here}. Name an environment with the release that wrote it; `tableside env list` shows those there are"
        )


def _from_record(folder: Path, request: Request, work: Path) -> ReadModel:
    if request.sample is not None or request.expect is not None or request.types:
        raise PublishFailed(
            f"{folder} is a training record, with a sample, its types and answers of its own. Leave out --sample, "
            "--expect and --types"
        )
    record = training_record.read(folder)
    artifact = folder / record.artifact.file
    if record.artifact.file != paths.ARTIFACT and not request.as_pickle:
        raise PublishFailed(
            f"{artifact} is a pickle, because skops was not installed where the record was made, or cannot hold the "
            f"estimator. Install skops there and make the record again, {BY_PICKLE}"
        )
    if record.artifact.file == paths.ARTIFACT:
        _refuse_as_pickle(artifact, request)
    return ReadModel(
        _renamed(artifact, request.code, work), msgspec.convert(record.facts, Facts), record.trained_with,
        lambda estimator: (training_record.sample_of(record, folder), ()), {"format": "training record"},
        training_record.answers_of(record, folder), request.code,
    )  # fmt: skip


def _from_mlflow(folder: Path, request: Request, place: Place, settings: Repository, work: Path) -> ReadModel:
    model = mlflow.read(folder)
    path = mlflow.inside(folder, model.flavor.pickled_model)
    trained_with, versions = skew.written_with(path, mlflow_versions.read(folder, model.flavor.sklearn_version))
    _check_release(str(folder), versions, place)
    code = request.code or mlflow_code.find(
        folder, model.mlmodel.flavors, partial(mlflow.resolve, folder),
        allowed=request.allow_code or request.allow_pickle,
    )  # fmt: skip
    if model.flavor.serialization_format != "skops":
        estimator_files.check_pickle_allowed(
            path, path.read_bytes(), model.flavor.serialization_format, settings,
            request.allow_pickle or request.as_pickle,
        )  # fmt: skip
    described = _describe(path, code, place, work)
    specs = mlflow_signature.parse(model.mlmodel.signature)
    return ReadModel(
        _artifact(described, path, dataclasses.replace(request, code=code), work), described.facts,
        skew.completed(trained_with, described.trained_with), partial(_mlflow_rows, model, request),
        mlflow.source_of(model),
        trainers_answers.read(request.expect), code,
        tuple(spec.name for spec in specs or () if spec.name is not None and not spec.required),
    )  # fmt: skip


def _mlflow_rows(model: MLflowModel, request: Request, estimator: object) -> tuple[pd.DataFrame, Sequence[str]]:
    specs = mlflow_signature.parse(model.mlmodel.signature)
    notes = mlflow.notes_of(model, specs)
    if request.sample is None:
        frame, more = mlflow.from_example(model, specs)
    else:
        declared = {**mlflow_signature.types(specs), **(request.types or {})}
        frame, more = sources.rows(estimator, dataclasses.replace(request, types=declared))
    frame = mlflow_signature.apply_signature(sample.as_frame(frame, None), specs, estimator)
    return column_types.apply(frame, request.types or {}), [*notes, *more]


def _describe(source: Path, code: OwnCode | None, place: Place, work: Path) -> _Described:
    """Let the environment's interpreter load the file and describe its estimator."""
    with tempfile.TemporaryDirectory(prefix="tableside-") as modules:
        for name, content in (code.files if code is not None else {}).items():
            file = Path(modules) / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        package = Path(tableside_contract.__file__).parent
        _run([place.python, "-I", str(RECORDER), str(package), modules, str(source.absolute()), str(work)], source)
    return msgspec.json.decode((work / FILE).read_bytes(), type=_Described)


def _run(command: list[str], source: Path) -> None:
    try:
        done = subprocess.run(  # noqa: S603 - the operator's interpreter
            command, capture_output=True, text=True, timeout=RECORD_TIMEOUT_S, check=False,
            env=child_environ(os.environ),
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise PublishFailed(f"{command[0]} cannot read {source}: {problem}") from problem
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no output"]
        missing = _MISSING.search(lines[-1])
        module = missing[1].partition(".")[0] if missing else ""
        hint = f". If {module} is your own code, add --code {module}.py; else install it there" if missing else ""
        raise PublishFailed(f"{lines[-1].removeprefix('tableside_contract: ')}{hint}")


def _artifact(described: _Described, source: Path, request: Request, work: Path) -> Path:
    """The artifact that the version gets: a skops file, or the trainer's own pickle."""
    if request.as_pickle:
        if sources.is_zip(source):
            _refuse_as_pickle(source, request)
        return Path(shutil.copyfile(source, work / PICKLE))
    if described.artifact.file != paths.ARTIFACT:
        raise PublishFailed(
            f"{described.unheld}. Keep plain values in fitted attributes (numbers, text, lists, dicts, numpy arrays), "
            f"{BY_PICKLE}"
        )
    return _renamed(work / paths.ARTIFACT, request.code, work)


def _refuse_as_pickle(source: Path, request: Request) -> None:
    if request.as_pickle:
        raise PublishFailed(f"{source} is a skops file, so there is no pickle to publish. Leave out --as-pickle")


def _renamed(artifact: Path, code: OwnCode | None, work: Path) -> Path:
    """The artifact; of a skops file with own code a copy that names the modules as the version imports them."""
    if code is None or artifact.name == PICKLE:
        return artifact
    content = skops_names.rename_modules(artifact.read_bytes(), code.own_name)
    (work / paths.ARTIFACT).write_bytes(content)
    return work / paths.ARTIFACT
