"""Writes a training record: the estimator, what it says of itself, rows of its sample, and its answers to them.

A record is made in the environment where the estimator was trained, because only there its answers are known to be the
trainer's. Tableside compares them with the answers that the estimator gives on the server.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
import warnings
from pathlib import Path
from typing import Any, Mapping, TypedDict

import sklearn

from tableside_contract import cells, readings, tables
from tableside_contract.answers import answer
from tableside_contract.artifact_versions import sklearn_versions
from tableside_contract.cells import Cell
from tableside_contract.environment import environment, same_minor
from tableside_contract.errors import RecordFailed
from tableside_contract.facts import Facts, describe, feature_names, written_by
from tableside_contract.tables import Column

FORMAT = 1
"""The format of `training.json`."""
FILE = "training.json"
SKOPS, JOBLIB = "model.skops", "model.joblib"
MAX_ROWS = 1000


class Answers(TypedDict):
    """The answers of one output: `rows[i][k]`, and the dtype of the array that the estimator returned."""

    dtype: str
    flat: bool
    rows: list[list[Cell]]


class Artifact(TypedDict):
    """The file that holds the estimator."""

    file: str
    sha256: str
    size_bytes: int


class Record(TypedDict):
    """The content of `training.json`. rows: `rows[i][column]`. answers: by output, for all rows in one call.

    notes: what decided the types of the sample. dropped: the columns that no answer depends on.
    """

    format: int
    facts: Facts
    trained_with: dict[str, str]
    columns: list[Column]
    rows: list[list[Cell]]
    answers: dict[str, Answers]
    left_out: dict[str, str]
    notes: list[str]
    dropped: list[str]
    artifact: Artifact


def contract(
    estimator: Any, sample: Any, folder: Path | str, *, target: str | None = None, max_rows: int = MAX_ROWS,
    types: Mapping[str, str] | None = None, as_pickle: bool = False,
) -> Record:  # fmt: skip
    """Write the training record of a fitted estimator as a new folder, and return the content of its training.json.

    Run it where the estimator was trained. sample: rows like the training data, as the estimator takes them: a
    DataFrame or array of shape [rows, columns], or a list of texts; or the path of a .csv or .parquet file. target: the
    name of a column of the sample to drop. max_rows: of a longer sample so many rows are kept, the extremes among them.
    types: dtypes by column of a CSV sample, which has none; the fitted estimator decides the other columns.
    as_pickle: write the estimator with joblib and not with skops.

    Raises RecordFailed, and leaves no folder, when the estimator does not answer the sample or was made elsewhere.
    """
    out = Path(folder)
    if out.exists():
        raise RecordFailed(f"{out} exists already. Give the name of a new folder")
    _check_origin(estimator)
    facts = describe(estimator)
    notes: list[str] = []
    if isinstance(sample, (str, Path)):
        sample, notes = tables.read(Path(sample), estimator, target, types)
        target = None
    elif types:
        raise RecordFailed("types are for a CSV sample. Give a DataFrame its dtypes with astype")
    given = tables.as_frame(sample, target)
    facts["feature_names"] = feature_names(estimator, given.columns)
    frame = tables.choose(tables.align(given, facts), max_rows)
    answers, left_out = answer(estimator, facts["methods"], tables.as_trained(frame, facts))
    if "predict" in left_out or not answers:
        reasons = "; ".join(f"{method}: {reason}" for method, reason in left_out.items())
        raise RecordFailed(f"the {facts['estimator']} does not answer its own sample. {reasons or 'It has no method'}")
    draft = out.parent / f".{out.name}-{uuid.uuid4().hex}"
    draft.mkdir(parents=True)
    try:
        record = Record(
            format=FORMAT,
            facts=facts,
            trained_with=environment(facts["libraries"]),
            columns=tables.columns_of(frame),
            rows=tables.rows_of(frame),
            answers={name: _as_answers(array) for name, array in answers.items()},
            left_out=left_out,
            notes=notes,
            dropped=[str(name) for name in readings.dropped(estimator, list(frame.columns))],
            artifact=write_artifact(estimator, draft, as_pickle=as_pickle),
        )
        text = json.dumps(record, indent=None, ensure_ascii=False, allow_nan=False)
        (draft / FILE).write_text(text + "\n", encoding="utf-8")
        draft.rename(out)
    finally:
        shutil.rmtree(str(draft), ignore_errors=True)
    return record


def load(path: Path) -> Any:
    """Load the estimator of a joblib, pickle or skops file that was written with the scikit-learn that is installed.

    Loading a joblib or pickle file runs the code in it. Raises RecordFailed.
    """
    if not path.is_file():
        raise RecordFailed(f"{path}: no such file")
    for version in sklearn_versions(path):
        if not same_minor(version, sklearn.__version__):
            raise RecordFailed(
                f"{path} was written with scikit-learn {version}, and this environment has {sklearn.__version__}. Run "
                "this command in the environment where the estimator was trained"
            )
    try:
        return _load_skops(path) if _is_zip(path) else _load_joblib(path)
    except Exception as problem:
        if isinstance(problem, AttributeError) and "__main__" in str(problem):
            raise RecordFailed(
                f"{path} uses a class or function of the script or notebook that trained it (module __main__), which "
                f"no other process can import ({problem}). Move it into a file of its own, import it from there, and "
                "train again"
            ) from problem
        raise RecordFailed(f"{path} cannot be loaded: {type(problem).__name__}: {problem}") from problem


def _is_zip(path: Path) -> bool:
    """Whether the file is a zip archive. zipfile.is_zipfile also says so of a pickle with an archive inside."""
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _load_skops(path: Path) -> Any:
    import skops.io

    return skops.io.load(path, trusted=skops.io.get_untrusted_types(file=path))


def _load_joblib(path: Path) -> Any:
    import joblib

    return joblib.load(path)


def _is_held(estimator: Any, path: Path) -> bool:
    """Whether skops is installed and writes the estimator to `path`; no file is left if not."""
    try:
        import skops.io

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            skops.io.dump(estimator, path)
            skops.io.load(path, trusted=skops.io.get_untrusted_types(file=path))  # some is written that is not read
    except Exception:  # noqa: BLE001 - whatever skops cannot hold, joblib may
        if path.exists():
            path.unlink()
        return False
    return True


def _check_origin(estimator: Any) -> None:
    """Raise RecordFailed for an estimator that another scikit-learn made, as far as that shows."""
    elsewhere = written_by(estimator)
    if elsewhere:
        raise RecordFailed(
            f"{elsewhere}, and this environment has {sklearn.__version__}. Make the record in the environment where "
            "the estimator was trained"
        )


def _as_answers(array: Any) -> Answers:
    wide = array.reshape(len(array), -1)
    return Answers(
        dtype=str(array.dtype), flat=array.ndim == 1, rows=[[cells.to_json(cell) for cell in row] for row in wide]
    )


def write_artifact(estimator: Any, folder: Path, *, as_pickle: bool = False) -> Artifact:
    """Write the estimator with skops if that is installed and can hold it; else, or `as_pickle`, with joblib."""
    path = folder / SKOPS
    if as_pickle or not _is_held(estimator, path):
        import joblib

        path = folder / JOBLIB
        joblib.dump(estimator, path)
    content = path.read_bytes()
    return Artifact(file=path.name, sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content))
