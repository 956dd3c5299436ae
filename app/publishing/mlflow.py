"""An MLflow model directory, read without mlflow: its `MLmodel` file and the scikit-learn estimator it names.

The format is that of MLflow's `Model.save` and `mlflow.sklearn.save_model`. A directory may come from elsewhere, so
what it says of itself widens nothing: its paths must stay inside it, its list of trusted skops types is not read, and
a pickle is opened only when the command line or a setting allows it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec
import pandas as pd
import yaml

from tableside.contract.environment import environment
from tableside.contract.schema import Contract
from tableside.errors import ContractBroken, PublishFailed
from tableside.publishing import estimator_files, mlflow_signature, sample
from tableside.publishing.mlflow_signature import Spec
from tableside.runtimes import sklearn as runtime_sklearn
from tableside.settings import Repository

MLMODEL = "MLmodel"
PICKLES = ("pickle", "cloudpickle", "joblib")
SOURCE = ("run_id", "model_uuid", "mlflow_version", "utc_time_created")
"""What the contract keeps of where a model came from."""
THIN_ROWS = 10
"""An example of fewer rows shows little of ranges, missing values and categories; publish says so."""


class Flavor(msgspec.Struct, frozen=True):
    """`flavors: sklearn:`. A file that names no format is a pickle, as MLflow reads it."""

    pickled_model: str
    serialization_format: str = "pickle"
    sklearn_version: str | None = None


class ExampleInfo(msgspec.Struct, frozen=True):
    """`saved_input_example_info`, as far as it matters here."""

    artifact_path: str = "input_example.json"
    serving_input_path: str = "serving_input_example.json"


class MLmodel(msgspec.Struct, frozen=True):
    """The `MLmodel` file."""

    flavors: dict[str, dict[str, Any]]
    signature: dict[str, Any] | None = None
    saved_input_example_info: ExampleInfo | None = None
    run_id: Any = None
    model_uuid: Any = None
    mlflow_version: Any = None
    utc_time_created: Any = None


@dataclass(frozen=True)
class MLflowModel:
    """A directory whose MLmodel file has been read."""

    folder: Path
    mlmodel: MLmodel
    flavor: Flavor


@dataclass(frozen=True)
class Prepared:
    """What `publish` needs of a model directory, and what its user should know.

    optional: columns the signature does not require.
    """

    estimator: Any
    sample: Any
    source: dict[str, str]
    notes: tuple[str, ...]
    optional: tuple[str, ...] = ()

    def notes_for(self, contract: Contract) -> list[str]:
        """What to say once the contract is known."""
        strict = [c.name for c in contract.input.columns if c.name in self.optional and not c.nullable]
        if not strict:
            return list(self.notes)
        return [
            *self.notes,
            f"the signature calls {', '.join(strict)} optional, but the estimator answers no missing cell there: "
            "the contract takes none",
        ]


def prepare(
    folder: Path, sample_file: Path | None, settings: Repository, *, target: str | None = None,
    allow_pickle: bool = False, progress: Callable[[str], None] = lambda step: None,
) -> Prepared:  # fmt: skip
    """Read a model directory: its estimator, and a sample that fits its signature.

    sample_file: rows to learn the contract from, in place of the directory's own input example; `target` is a column of
    it to drop. Raises PublishFailed, saying what to change.
    """
    model = read(folder)
    specs = mlflow_signature.parse(model.mlmodel.signature)
    if sample_file:
        text = [spec.name for spec in specs or () if spec.name is not None and spec.type == "string"]
        rows = sample.as_frame(sample.read(sample_file, text), target)
        notes: list[str] = []
    else:
        rows, notes = _from_example(model, specs)
    progress("loading the estimator")
    estimator = load(model, settings, allow_pickle=allow_pickle)
    fitted = mlflow_signature.arrange(rows, specs, estimator)
    optional = tuple(spec.name for spec in specs or () if spec.name is not None and not spec.required)
    return Prepared(estimator, fitted, _source(model), (*_notes(model, specs, settings), *notes), optional)


def read(folder: Path) -> MLflowModel:
    """Read and check the MLmodel file of a directory. Raises PublishFailed."""
    if not (folder / MLMODEL).exists():
        raise PublishFailed(f"{folder} has no {MLMODEL} file; give a joblib file or an MLflow model directory")
    path = inside(folder, MLMODEL)
    try:
        content = yaml.safe_load(path.read_bytes())
        mlmodel = msgspec.convert(content, MLmodel)
    except yaml.YAMLError as problem:
        mark = getattr(problem, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise PublishFailed(f"{path}{line}: {getattr(problem, 'problem', None) or 'is not YAML'}") from problem
    except (OSError, ValueError, RecursionError) as problem:
        raise PublishFailed(f"{path}: {problem}") from problem
    if "sklearn" not in mlmodel.flavors:
        has = ", ".join(sorted(mlmodel.flavors)) or "no flavour"
        raise PublishFailed(
            f"{folder} has {has}; Tableside serves MLflow models with the scikit-learn flavour (sklearn)"
        )
    try:
        flavor = msgspec.convert(mlmodel.flavors["sklearn"], Flavor)
    except msgspec.ValidationError as problem:
        raise PublishFailed(f"{path}: flavors.sklearn: {problem}") from problem
    return MLflowModel(folder, mlmodel, flavor)


def inside(folder: Path, name: str) -> Path:
    """The file of that name below the folder, its links followed. Raises PublishFailed when it is elsewhere or not."""
    path = _place(folder, name)
    if not path.is_file():
        raise PublishFailed(f"{folder / name}: no such file")
    return path


def _place(folder: Path, name: str) -> Path:
    written = PurePosixPath(name)
    if not name or "\0" in name or written.is_absolute() or ".." in written.parts:
        raise PublishFailed(f"{folder}: {MLMODEL} names the file {name!r}; only files inside the directory are read")
    try:
        root = folder.resolve()
        path = (root / written).resolve()
    except (OSError, RuntimeError) as problem:
        raise PublishFailed(f"{folder / name}: {problem}") from problem
    if not path.is_relative_to(root):
        raise PublishFailed(f"{folder / name} is a link out of the directory; only files inside it are read")
    return path


def load(model: MLflowModel, settings: Repository, *, allow_pickle: bool = False) -> Any:
    """The fitted estimator.

    A skops file is held to the server's own list of types and `repository.trusted_types`. A pickle runs code as it is
    read: only with `allow_pickle`, or when `repository.allowed_pickles` names its sha256. Raises PublishFailed.
    """
    flavor = model.flavor
    path = inside(model.folder, flavor.pickled_model)
    _check_version(model, settings)
    if flavor.serialization_format == "skops":
        try:
            loaded = runtime_sklearn.load(path, settings.trusted_types).estimator
        except ContractBroken as problem:
            hint = "; name them in repository.trusted_types if you trust them" if "not trusted" in str(problem) else ""
            raise PublishFailed(f"{model.folder}: {problem}{hint}") from problem
        return estimator_files.check(loaded, str(path))
    if flavor.serialization_format not in PICKLES:
        raise PublishFailed(
            f"{path}: serialization_format is {flavor.serialization_format!r}; expected skops, {', '.join(PICKLES)}"
        )
    content = path.read_bytes()  # hashed and read from memory: what was allowed is what is opened
    digest = hashlib.sha256(content).hexdigest()
    if not allow_pickle and digest not in {allowed.lower() for allowed in settings.allowed_pickles}:
        raise PublishFailed(
            f"{path} is a {flavor.serialization_format} file, and reading one runs the code in it. If you trust where "
            f"it comes from, add --allow-pickle, or name its sha256 in repository.allowed_pickles: {digest}"
        )
    return estimator_files.load_bytes(content, str(path))


def _differs(model: MLflowModel) -> str | None:
    """How the scikit-learn of the file differs from the one here, if that matters."""
    saved, here = model.flavor.sklearn_version, environment()["scikit-learn"]
    if saved is None:
        return f"{MLMODEL} says no sklearn_version; here is {here}"
    if saved.split(".")[:2] != here.split(".")[:2]:
        return f"the model was saved with scikit-learn {saved}, here is {here}"
    return None


def _check_version(model: MLflowModel, settings: Repository) -> None:
    differs = _differs(model)
    if differs and settings.environment_skew == "refuse":
        raise PublishFailed(
            f"{model.folder}: {differs}. Fitted attributes change between minor versions, so its answers may: publish "
            'with the version it was saved with, save it again, or set repository.environment_skew = "warn"'
        )


def _notes(model: MLflowModel, specs: tuple[Spec, ...] | None, settings: Repository) -> list[str]:
    notes = []
    if (differs := _differs(model)) and settings.environment_skew == "warn":
        notes.append(f"{differs} (repository.environment_skew is warn): compare the answers with the trainer's")
    if specs is None:
        notes.append(f"{MLMODEL} has no signature of columns: their types are those of the sample")
    answers = model.mlmodel.flavors.get("python_function", {}).get("predict_fn", "predict")
    if answers != "predict":
        notes.append(f"MLflow answers {answers} for this model; here ask for that output by name")
    return notes


def _source(model: MLflowModel) -> dict[str, str]:
    found = {key: getattr(model.mlmodel, key) for key in SOURCE}
    return {"format": "mlflow"} | {key: str(value) for key, value in found.items() if value not in (None, "")}


def _from_example(model: MLflowModel, specs: tuple[Spec, ...] | None) -> tuple[pd.DataFrame, list[str]]:
    """The input example, and what to say of so few rows."""
    rows = _example(model)
    if rows is None:
        raise PublishFailed(
            f"{model.folder} has no input example to learn the contract from: add --sample with rows like the training "
            "data (.csv or .parquet), or save the model with input_example="
        )
    notes = []
    if len(rows) < THIN_ROWS:
        notes.append(
            f"the contract was learned from an input example of {len(rows)} row{'s' if len(rows) > 1 else ''}: ranges, "
            "categories, missing cells and golden rows show no more than that; --sample FILE gives more"
        )
    return mlflow_signature.widened(rows) if specs is None else rows, notes


def _example(model: MLflowModel) -> pd.DataFrame | None:
    """The input example as a DataFrame; None where the directory has none."""
    info = model.mlmodel.saved_input_example_info
    if info is None:
        return None
    for name in (info.artifact_path, info.serving_input_path):
        if (path := _place(model.folder, name)).is_file():
            return mlflow_signature.read_example(path)
    raise PublishFailed(f"{model.folder}: {MLMODEL} names an input example, but {info.artifact_path} is not there")
