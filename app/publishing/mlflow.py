"""Reads MLflow model directories without mlflow: the `MLmodel` file and the scikit-learn estimator that it names.

The format is that of MLflow's `Model.save` and `mlflow.sklearn.save_model`. A directory may come from a stranger, so it
cannot grant itself any trust: its paths must stay inside it, its own list of trusted skops types is not read, and a
pickle is opened only when the command line or a setting allows it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec
import pandas as pd
import yaml

from tableside.errors import ContractBroken, PublishFailed
from tableside.own_code.importer import OwnCode
from tableside.publishing import (
    column_types,
    estimator_files,
    mlflow_code,
    mlflow_signature,
    mlflow_versions,
    sample,
    sample_files,
    skew,
)
from tableside.publishing.column_types import Types
from tableside.publishing.mlflow_signature import Spec
from tableside.publishing.prepared import Prepared
from tableside.runtimes import trusted_types
from tableside.settings import Repository

MLMODEL = "MLmodel"
PICKLES = ("pickle", "cloudpickle", "joblib")
SOURCE = ("run_id", "model_uuid", "mlflow_version", "utc_time_created")
"""The keys of the MLmodel file that go into the contract's `source`."""
FEW_ROWS = 10
"""For an input example of fewer rows, publish prints a note: it shows few of the ranges and categories."""


class Flavor(msgspec.Struct, frozen=True):
    """The section `flavors: sklearn:`. As in MLflow, a model without `serialization_format` is a pickle."""

    pickled_model: str
    serialization_format: str = "pickle"
    sklearn_version: str | None = None


class ExampleInfo(msgspec.Struct, frozen=True):
    """The section `saved_input_example_info`: where the input example is. Other keys are ignored."""

    artifact_path: str = "input_example.json"
    serving_input_path: str = "serving_input_example.json"


class MLmodel(msgspec.Struct, frozen=True):
    """The keys of an `MLmodel` file that publish reads. Other keys are ignored."""

    flavors: dict[str, dict[str, Any]]
    signature: dict[str, Any] | None = None
    saved_input_example_info: ExampleInfo | None = None
    run_id: object = None
    model_uuid: object = None
    mlflow_version: object = None
    utc_time_created: object = None


@dataclass(frozen=True)
class MLflowModel:
    """A model directory with the content of its MLmodel file."""

    folder: Path
    mlmodel: MLmodel
    flavor: Flavor


def prepare(
    folder: Path, given: object, settings: Repository, *, target: str | None = None,
    types: Types | None = None, allow_pickle: bool = False, allow_code: bool = False, code: OwnCode | None = None,
    has_answers: bool = False,
    progress: Callable[[str], None] = lambda step: None,
) -> Prepared:  # fmt: skip
    """Read the estimator of a model directory, and a sample with the column names and types of its signature.

    given: rows, or the path of a file with rows, to use instead of the directory's input example; None for that.
    target: the name of its column to drop. has_answers: whether the trainer's answers to them will be compared.
    types: dtypes by column name, which outrank the signature's.
    code: own code to use instead of the directory's (MLflow's `code_paths`), which needs `allow_code`.
    Raises PublishFailed with what to change.
    """
    model = read(folder)
    specs = mlflow_signature.parse(model.mlmodel.signature)
    example = None if given is not None else from_example(model, specs)
    progress("loading the estimator")
    trained_with, versions = _check_release(model, settings, has_answers)
    if code is None:
        allowed = allow_code or allow_pickle
        code = mlflow_code.find(folder, model.mlmodel.flavors, partial(resolve, folder), allowed=allowed)
    estimator, content = load(model, settings, allow_pickle=allow_pickle, code=code, versions=versions)
    if isinstance(given, (str, Path)):
        declared = {**mlflow_signature.types(specs), **(types or {})}
        rows, notes = sample_files.read(Path(given), estimator, target, declared)
        rows = sample.as_frame(rows, None, sample_files.dropped_columns(estimator, rows))
    elif example is not None:
        rows, notes = example
    else:
        rows, notes = sample.as_frame(given, target, sample_files.dropped_columns(estimator, given)), []
    fitted = mlflow_signature.apply_signature(rows, specs, estimator)
    if not isinstance(given, (str, Path)):
        fitted = column_types.apply(fitted, types or {})
    optional = tuple(spec.name for spec in specs or () if spec.name is not None and not spec.required)
    said = (*notes_of(model, specs), *notes)
    return Prepared(estimator, fitted, source_of(model), said, optional, code, content, trained_with)


def read(folder: Path) -> MLflowModel:
    """Read the MLmodel file of a directory. Raises PublishFailed without one, or without the scikit-learn flavour."""
    if not (folder / MLMODEL).exists():
        raise PublishFailed(f"{folder} has no {MLMODEL} file. Give a joblib file or an MLflow model directory")
    path = inside(folder, MLMODEL)
    try:
        content = yaml.safe_load(path.read_bytes())
        mlmodel = msgspec.convert(content, MLmodel)
    except yaml.YAMLError as problem:
        mark = getattr(problem, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise PublishFailed(f"{path}{line}: {getattr(problem, 'problem', None) or 'not a YAML file'}") from problem
    except (OSError, ValueError, RecursionError) as problem:
        raise PublishFailed(f"{path}: {problem}") from problem
    if "sklearn" not in mlmodel.flavors:
        flavors = ", ".join(sorted(mlmodel.flavors)) or "none"
        raise PublishFailed(
            f"{folder} has no scikit-learn flavour (sklearn), and Tableside serves no other. Its flavours: {flavors}"
        )
    try:
        flavor = msgspec.convert(mlmodel.flavors["sklearn"], Flavor)
    except msgspec.ValidationError as problem:
        raise PublishFailed(f"{path}: flavors.sklearn: {problem}") from problem
    return MLflowModel(folder, mlmodel, flavor)


def inside(folder: Path, name: str) -> Path:
    """Return the path of a file inside the folder, with links resolved. Raises PublishFailed for any other file."""
    path = resolve(folder, name)
    if not path.is_file():
        raise PublishFailed(f"{folder / name}: no such file")
    return path


def resolve(folder: Path, name: str) -> Path:
    """Return a path inside the folder, with links resolved. Raises PublishFailed for any other."""
    written = PurePosixPath(name)
    if not name or "\0" in name or written.is_absolute() or ".." in written.parts:
        raise PublishFailed(
            f"{folder}: {MLMODEL} names the file {name!r}, but only files inside the directory are read"
        )
    try:
        root = folder.resolve()
        path = (root / written).resolve()
    except (OSError, RuntimeError) as problem:
        raise PublishFailed(f"{folder / name}: {problem}") from problem
    if not path.is_relative_to(root):
        raise PublishFailed(
            f"{folder / name} links to a file outside the directory, but only files inside the directory are read"
        )
    return path


def load(
    model: MLflowModel, settings: Repository, *, allow_pickle: bool = False, code: OwnCode | None = None,
    versions: Sequence[str] = (),
) -> tuple[object, bytes | None]:  # fmt: skip
    """Return the fitted estimator, and the bytes of its file if that is a pickle.

    code: the own code that the file needs; its types are trusted. versions: of scikit-learn, which were allowed.

    A skops file may hold only types of the server's own list and of `repository.trusted_types`. Reading a pickle runs
    the code in it, so that needs `allow_pickle`, or the file's SHA-256 in `repository.allowed_pickles`.
    Raises PublishFailed.
    """
    flavor = model.flavor
    path = inside(model.folder, flavor.pickled_model)
    if flavor.serialization_format == "skops":
        try:
            loaded = mlflow_code.load_skops(
                path, trusted_types.expand(settings.trusted_types, settings.trusted_libraries), code
            )
        except ContractBroken as problem:
            raise PublishFailed(f"{model.folder}: {problem}") from problem
        return estimator_files.check(loaded, str(path)), None
    if flavor.serialization_format not in PICKLES:
        raise PublishFailed(
            f"{path}: serialization_format is {flavor.serialization_format!r}, expected one of skops, "
            f"{', '.join(PICKLES)}"
        )
    content = path.read_bytes()  # read once: the bytes that are hashed are the bytes that are loaded
    estimator_files.check_pickle_allowed(path, content, flavor.serialization_format, settings, allow_pickle)
    return estimator_files.load_bytes(content, str(path), code, versions), content


def _check_release(
    model: MLflowModel, settings: Repository, has_answers: bool
) -> tuple[dict[str, str], list[str]]:  # fmt: skip
    """Return the versions that wrote the model, and those of scikit-learn. Raises PublishFailed for another minor."""
    path = inside(model.folder, model.flavor.pickled_model)
    beside = mlflow_versions.read(model.folder, model.flavor.sklearn_version)
    trained_with, versions = skew.written_with(path, beside)
    if not versions:
        raise PublishFailed(
            f"{model.folder} does not say which scikit-learn wrote the model: {MLMODEL} has no sklearn_version, and "
            "there is none in its other files. Save the model again with MLflow"
        )
    skew.Gate(settings.environment_skew, has_answers).check(str(model.folder), versions)
    return trained_with, versions


def notes_of(model: MLflowModel, specs: tuple[Spec, ...] | None) -> list[str]:
    """Return what the user should know of a model directory that can be published."""
    notes = []
    if specs is None:
        notes.append(f"{MLMODEL} has no signature with columns: the column types are those of the sample")
    method = model.mlmodel.flavors.get("python_function", {}).get("predict_fn", "predict")
    if method != "predict":
        notes.append(
            f"MLflow's server answers {method} for this model. Tableside does so only when a request names that output"
        )
    return notes


def source_of(model: MLflowModel) -> dict[str, str]:
    """Return where the model came from, for the contract."""
    values = {key: getattr(model.mlmodel, key) for key in SOURCE}
    return {"format": "mlflow"} | {key: str(value) for key, value in values.items() if value not in (None, "")}


def from_example(model: MLflowModel, specs: tuple[Spec, ...] | None) -> tuple[pd.DataFrame, list[str]]:
    """Return the rows of the input example, and a note when they are few. Raises PublishFailed without an example."""
    rows = _example(model)
    if rows is None:
        raise PublishFailed(
            f"{model.folder} has no input example to learn the contract from. Add --sample FILE with rows like the "
            "training data (.csv or .parquet), or save the model with input_example="
        )
    notes = []
    if len(rows) < FEW_ROWS:
        notes.append(
            f"the contract was learned from an input example of {len(rows)} row{'s' if len(rows) > 1 else ''}: ranges, "
            "categories, missing values and golden rows come from these only. Add --sample FILE for more"
        )
    return mlflow_signature.integers_as_floats(rows) if specs is None else rows, notes


def _example(model: MLflowModel) -> pd.DataFrame | None:
    """Return the input example as a DataFrame, None when the MLmodel file names none."""
    info = model.mlmodel.saved_input_example_info
    if info is None:
        return None
    for name in (info.artifact_path, info.serving_input_path):
        if (path := resolve(model.folder, name)).is_file():
            return mlflow_signature.read_example(path)
    raise PublishFailed(
        f"{model.folder}: {MLMODEL} names the input example {info.artifact_path}, but there is no such file"
    )
