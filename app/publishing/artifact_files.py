"""Writes the artifact and the own code of a version into its draft folder, and loads them as a check."""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tableside.contracts import artifact_size, native_boosters
from tableside.contracts.consent_digest import FOLDER, PICKLE, own_types
from tableside.contracts.schema import Artifact, Contract
from tableside.errors import ContractBroken, FailureKind, PublishFailed
from tableside.own_code import importer
from tableside.own_code.importer import OwnCode
from tableside.publishing import estimator_files, held_objects
from tableside.publishing.code_files import check_imports
from tableside.repository import paths
from tableside.runtimes import golden, skops_names
from tableside.runtimes import sklearn as runtime_sklearn
from tableside.runtimes.sklearn import SklearnRuntime


@dataclass(frozen=True)
class Parts:
    """What a version is made of besides its contract. as_pickle: as for `publish`."""

    estimator: object
    graph: bytes | None
    code: OwnCode | None
    as_pickle: bool | bytes

    def write(self, draft: Path, contract: Contract) -> Contract:
        """Write own code, artifact and graph into the draft, and return the contract that describes them."""
        contract = write_code(draft, contract, self.code)
        if self.as_pickle is False:
            contract = write_skops(draft, self.estimator, contract, self.code)
        else:
            content = self.as_pickle if isinstance(self.as_pickle, bytes) else None
            contract = write_pickle(draft, self.estimator, contract, content)
        return _write_graph(draft, self.graph, contract)


def write_code(draft: Path, contract: Contract, code: OwnCode | None) -> Contract:
    """Write the own code into the draft's folder `code/` and return the contract with its files."""
    if code is None:
        return contract
    files = []
    for path in sorted(code.files):
        file = draft / FOLDER / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(code.files[path])
        files.append(_described(f"{FOLDER}/{path}", code.files[path]))
    return msgspec.structs.replace(contract, code=tuple(files))


def write_skops(draft: Path, estimator: object, contract: Contract, code: OwnCode | None) -> Contract:
    """Write the estimator as a skops file, which names own code by its own names. Raises PublishFailed."""
    import skops.io

    try:
        bare, boosters = native_boosters.detach(estimator)
        content = _dumped(bare)
    except Exception as problem:
        raise held_objects.refuse_unheld(estimator, problem) from problem
    if code is not None:
        content = skops_names.rename_modules(content, code.own_name)
    (draft / paths.ARTIFACT).write_bytes(content)
    types = tuple(sorted({*skops.io.get_untrusted_types(data=content), *native_boosters.classes(bare)}))
    for name, booster in boosters.items():
        (draft / name).write_bytes(booster)
    described = tuple(_described(name, booster) for name, booster in boosters.items())
    artifact = _described(paths.ARTIFACT, content)
    return msgspec.structs.replace(contract, artifact=artifact, boosters=described, types=types)


def _dumped(estimator: object) -> bytes:
    """The estimator as a compressed skops file; not compressed if a load would refuse it for what it unpacks to."""
    import skops.io

    buffer = io.BytesIO()
    skops.io.dump(estimator, buffer, compression=zipfile.ZIP_DEFLATED, compresslevel=3)
    if artifact_size.problem(buffer):
        buffer = io.BytesIO()
        skops.io.dump(estimator, buffer, compression=zipfile.ZIP_STORED)
    return buffer.getvalue()


def write_pickle(draft: Path, estimator: object, contract: Contract, content: bytes | None) -> Contract:
    """Write the estimator as a pickle. content: the trainer's own file, which is taken as it is. Raises PublishFailed.

    Without `content`, joblib writes the estimator; where it cannot, cloudpickle does if it is installed.
    """
    content = _pickled(estimator) if content is None else content
    (draft / PICKLE).write_bytes(content)
    return msgspec.structs.replace(contract, artifact=_described(PICKLE, content), types=())


def _pickled(estimator: object) -> bytes:
    import joblib

    buffer = io.BytesIO()
    try:
        joblib.dump(estimator, buffer, compress=3)
        return buffer.getvalue()
    except Exception as problem:  # noqa: BLE001 - pickling runs code of any class; cloudpickle is tried next
        try:
            import cloudpickle
        except ImportError:
            raise PublishFailed(
                f"the estimator cannot be pickled: {type(problem).__name__}: {problem}. cloudpickle pickles more: "
                "install it"
            ) from problem
    try:
        content: bytes = cloudpickle.dumps(estimator)
    except Exception as problem:
        raise PublishFailed(f"the estimator cannot be pickled: {type(problem).__name__}: {problem}") from problem
    return content


def _described(name: str, content: bytes) -> Artifact:
    return Artifact(name, hashlib.sha256(content).hexdigest(), len(content))


def load_back(
    draft: Path, contract: Contract, estimator: object, code: OwnCode | None, trusted_types: Sequence[str]
) -> SklearnRuntime:
    """Load the artifact that was written. Raises PublishFailed, which names the part that cannot be held."""
    path = draft / contract.artifact.file
    if contract.artifact.file == PICKLE:
        versions = [contract.trained_with.get("scikit-learn", "")]  # which publish has decided on before
        return SklearnRuntime(estimator_files.load_bytes(path.read_bytes(), path.name, code, versions))
    try:
        with trainers_names(code, hidden=True):
            return runtime_sklearn.load(path, (*trusted_types, *own_types(contract)))
    except ContractBroken as problem:
        failure = held_objects.failure(estimator)  # trusting types does not help where skops cannot hold them
        if problem.failure_kind is not FailureKind.UNTRUSTED or failure is not None:
            raise held_objects.refuse_unheld(estimator, failure or problem) from problem
        where = held_objects.hint_of_types(estimator, list(contract.types))
        raise PublishFailed(f"{problem}{where}") from problem


def _write_graph(draft: Path, graph: bytes | None, contract: Contract) -> Contract:
    if graph is None:
        return contract
    path = draft / paths.GRAPH
    path.write_bytes(graph)
    return msgspec.structs.replace(contract, graph=Artifact(paths.GRAPH, hashlib.sha256(graph).hexdigest(), len(graph)))


def replay(contract: Contract, loaded: SklearnRuntime, code: OwnCode | None) -> None:
    """Compare the answers of the artifact that was read back. Raises ContractBroken, or PublishFailed for own code."""
    if code is None:
        golden.replay(contract, loaded.run)
        return
    with trainers_names(code, hidden=True):
        try:
            golden.replay(contract, loaded.run)
        except ContractBroken:
            raise
        except Exception as problem:
            raise PublishFailed(
                f"the own code cannot answer where it is alone: {type(problem).__name__}: {problem}. It finds its own "
                "modules by `import` statements only, and files through importlib.resources"
            ) from problem
    check_imports(code)


def trainers_names(code: OwnCode | None, *, hidden: bool = False) -> AbstractContextManager[None]:
    """For the length of the context, the trainer's module names mean own code, or nothing (`hidden`)."""
    return nullcontext() if code is None else importer.original_names(code, hidden=hidden)


def make_read_only(draft: Path) -> None:
    """Make every file of the draft read-only, and wait until all of it is on the disk."""
    for path in sorted(draft.rglob("*"), reverse=True):
        sync(path)
        if path.is_file():
            path.chmod(0o444)
    sync(draft)


def sync(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
