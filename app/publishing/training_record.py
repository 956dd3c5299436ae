"""Reads training records: what `tableside_contract` wrote in the environment where an estimator was trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec
import pandas as pd

from tableside.contracts.environment import sha256
from tableside.errors import PublishFailed
from tableside.publishing.trainers_answers import TrainersAnswers
from tableside_contract import cells

FILE = "training.json"
FORMAT = 1
JsonCell = float | int | bool | str | dict[str, str] | None


class RecordColumn(msgspec.Struct, frozen=True):
    """A column of the sample, with the dtype that it had in training."""

    name: str | int
    dtype: str
    categories: list[JsonCell] | None = None
    ordered: bool = False


class RecordAnswers(msgspec.Struct, frozen=True):
    """The answers of one output: `rows[i][k]`."""

    dtype: str
    flat: bool
    rows: list[list[JsonCell]]


class RecordArtifact(msgspec.Struct, frozen=True):
    """The file that holds the estimator."""

    file: Literal["model.skops", "model.joblib"]
    sha256: str
    size_bytes: int


class TrainingRecord(msgspec.Struct, frozen=True):
    """The content of `training.json`. facts: as `tableside_contract.facts.Facts`."""

    format: int
    facts: dict[str, Any]
    trained_with: dict[str, str]
    columns: list[RecordColumn]
    rows: list[list[JsonCell]]
    answers: dict[str, RecordAnswers]
    artifact: RecordArtifact
    left_out: dict[str, str] = {}
    notes: list[str] = []
    dropped: list[str] = []


def is_record(folder: Path) -> bool:
    """Whether the folder is a training record."""
    return (folder / FILE).is_file()


def read(folder: Path) -> TrainingRecord:
    """Read a training record and compare its artifact with its sha256. Raises PublishFailed."""
    path = folder / FILE
    try:
        record = msgspec.json.decode(path.read_bytes(), type=TrainingRecord)
        artifact_sha256 = sha256(folder / record.artifact.file)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as problem:
        raise PublishFailed(f"{path}: {problem}") from problem
    if record.format != FORMAT:
        raise PublishFailed(
            f"{path} has the format {record.format}, and this version of Tableside reads format {FORMAT}. Make the "
            "record again with the tableside_contract of this version"
        )
    if artifact_sha256 != record.artifact.sha256:
        raise PublishFailed(
            f"{folder / record.artifact.file} is damaged: its sha256 is not that of {FILE}. Copy the record again"
        )
    if any(len(row) != len(record.columns) for row in record.rows):
        raise PublishFailed(f"{path}: a row has another number of cells than there are columns. Make the record again")
    return record


def sample_of(record: TrainingRecord, folder: Path) -> pd.DataFrame:
    """Return the sample with the dtypes that it had in training. Raises PublishFailed for a dtype pandas lacks here."""
    columns = {}
    for at, column in enumerate(record.columns):
        values = [cells.from_json(row[at]) for row in record.rows]
        try:
            columns[column.name] = _series(column, values)
        except (TypeError, ValueError, OverflowError) as problem:
            raise PublishFailed(
                f"{folder / FILE}: column {column.name!r} cannot be made with the dtype {column.dtype}: {problem}"
            ) from problem
    return pd.DataFrame(columns)


def _series(column: RecordColumn, values: list[Any]) -> Any:
    if column.categories is None:
        return pd.Series(values, dtype=column.dtype)
    categories = [cells.from_json(cell) for cell in column.categories]
    return pd.Series(pd.Categorical(values, categories=categories, ordered=column.ordered))


def answers_of(record: TrainingRecord, folder: Path) -> TrainersAnswers:
    """Return the trainer's answers to the rows of the sample."""
    columns: dict[str, list[object]] = {}
    for name, answers in record.answers.items():
        width = 1 if answers.flat else max(map(len, answers.rows), default=0)
        for at in range(width):
            values = [cells.from_json(row[at]) for row in answers.rows]
            columns[name if answers.flat else f"{name}_{at}"] = values
    return TrainersAnswers(str(folder / FILE), columns)
