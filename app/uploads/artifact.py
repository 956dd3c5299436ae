"""Publishes an uploaded estimator: a skops file, an ONNX graph or a booster's own file with a sample, or a training
record that holds a skops file.

It does what `tableside publish` does, with one difference: nothing is read that runs code. A file of another kind is
refused before anything opens it.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from tableside.contracts.schema import Contract
from tableside.control_errors import Forbidden
from tableside.errors import RequestRejected
from tableside.publishing import native_files, publish, sources, training_record
from tableside.publishing.progress import Progress
from tableside.settings import Settings
from tableside.uploads.options import Options
from tableside.uploads.version import NO_PICKLE

PICKLES = frozenset((".joblib", ".pkl", ".pickle", ".cloudpickle", ".dill"))
OTHER_FORMATS = frozenset((".model", ".bst"))
TABLES = (".csv", ".parquet")
HOW = (
    "Send a tar file with a whole version (contract.json and its files), or with sample.csv or sample.parquet and one "
    "model: .skops, .onnx, or of XGBoost (.ubj, .json), LightGBM (.txt) or CatBoost (.cbm)"
)


def publish_artifact(
    settings: Settings, name: str, folder: Path, options: Options, progress: Progress
) -> tuple[Contract, list[str]]:
    """Publish the estimator in `folder` as the next version of `name`. Returns its contract and remarks for the user.

    Raises Forbidden for a pickle, and where `repository.trusted_keys` asks for a signature, which the server cannot
    make; RequestRejected for a folder without an estimator or a sample; and PublishFailed.
    """
    if settings.repository.trusted_keys:
        raise Forbidden(
            "repository.trusted_keys asks for a signature, and the server has no key to sign with. Publish and sign on "
            "your own machine, `tableside publish --sign KEYFILE`, and send the version: `tableside push`"
        )
    policy = msgspec.structs.replace(settings.repository, allowed_pickles=())
    path, sample, expect = _find(folder)
    request = sources.Request(sample, options.target or None, None, expect)
    prepared = sources.prepare(path, request, policy, progress)
    contract = publish.publish(
        name, prepared.estimator, prepared.sample, repository=settings.repository_path, runtime=options.runtime,
        tolerance=options.tolerance, nullable=options.nullable, quick=options.quick,
        trusted_types=policy.trusted_types, trusted_libraries=policy.trusted_libraries, source=prepared.source,
        trained_with=prepared.trained_with, optional=prepared.optional, expect=prepared.answers,
        environment_skew=policy.environment_skew, trusted_keys=(), progress=progress, breaking=options.breaking,
    )  # fmt: skip
    return contract, list(prepared.notes_for(contract))


def _find(folder: Path) -> tuple[Path, Path | None, Path | None]:
    """Return the path of the estimator or training record, of the sample, and of the trainer's answers."""
    files = {path.name: path for path in folder.iterdir()}
    for name, path in files.items():
        if path.suffix.lower() in PICKLES:
            raise Forbidden(f"{name[:100]!r}: {NO_PICKLE}")
    artifacts = [path for path in files.values() if path.suffix.lower() == ".skops" or native_files.is_native(path)]
    if training_record.is_record(folder):
        artifact = folder / training_record.read(folder).artifact.file
        _require_skops(artifact)
        return folder, None, None
    if len(artifacts) != 1:
        other = next((name for name, path in files.items() if path.suffix.lower() in OTHER_FORMATS), "")
        what = f"{other[:100]!r} is in a format that is not read" if other else "there is no estimator"
        raise RequestRejected(f"{what if len(artifacts) == 0 else 'there are several models'}. {HOW}")
    if not native_files.is_native(artifacts[0]):
        _require_skops(artifacts[0])
    sample, expect = (_table(files, name) for name in ("sample", "expect"))
    if sample is None:
        raise RequestRejected(f"there is no sample: rows like the training data. {HOW}")
    return artifacts[0], sample, expect


def _require_skops(path: Path) -> None:
    if not sources.is_zip(path):
        raise Forbidden(f"{path.name!r} is no skops file: {NO_PICKLE}")


def _table(files: dict[str, Path], name: str) -> Path | None:
    return next((files[name + suffix] for suffix in TABLES if name + suffix in files), None)
