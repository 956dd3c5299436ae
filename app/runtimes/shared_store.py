"""Large forests laid out for all workers of a host: files in the run folder that each maps and none copies.

They lie in the run folder and not beside the artifact because a mapped file answers with whatever is written into it:
nobody copies anything here by hand, and an entry never changes. It is made by whoever loads the version first on the
host (its preflight), named after the artifact, the libraries and this release, and checked whenever it is opened.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
import uuid
import zipfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import msgspec
import numpy as np
import orjson
from numpy.lib import format as npy

from tableside import __version__
from tableside.contract.array_type import Array
from tableside.contract.environment import environment, sha256
from tableside.contract.schema import Contract
from tableside.errors import ContractBroken, FailureKind
from tableside.runtimes import sklearn as runtime_sklearn
from tableside.runtimes.fast import packed_trees
from tableside.runtimes.fast.packed_trees import PackedTrees
from tableside.runtimes.sklearn import SklearnRuntime

SHARED_STORE_FOLDER = "shared_store"
"""Its folder below the run folder."""
_ARRAYS = ("records", "starts", "values")
_STUB, _INDEX = "stub.skops", "index.json"
_STALE_S = 3600


class SharedStore:
    """Entries below one folder. What cannot be written or read there costs memory, never a load."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, contract: Contract) -> Path:
        """Where the entry of a version is, or would be."""
        parts = (contract.artifact.sha256, environment(), __version__)
        return self.folder / hashlib.sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).hexdigest()[:32]

    def open(self, contract: Contract, trusted: Iterable[str] = ()) -> tuple[SklearnRuntime, PackedTrees] | None:
        """The stub estimator and the mapped nodes; None without an entry. Raises ContractBroken for a damaged one."""
        folder = self.path(contract)
        if not folder.is_dir():
            return None
        try:
            digests = msgspec.json.decode((folder / _INDEX).read_bytes(), type=dict[str, str])
            arrays = {name: _mapped(folder / f"{name}.npy", digests) for name in _ARRAYS}
            if sha256(folder / _STUB) != digests.get(_STUB):
                raise ValueError(f"{_STUB} is not what was written")
        except (OSError, ValueError, msgspec.DecodeError) as problem:
            raise ContractBroken(f"{folder.name}: {problem}", FailureKind.DAMAGED) from problem
        return runtime_sklearn.load(folder / _STUB, trusted), PackedTrees(**arrays)

    def put(self, contract: Contract, estimator: Any) -> None:
        """Write the entry; whoever is first keeps his. Raises OSError, and Unsupported for what is no forest."""
        import skops.io

        packed, shell = packed_trees.pack(packed_trees.last_of(estimator)), packed_trees.stub_of(estimator)
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = self.folder / f".{uuid.uuid4().hex}"
        draft.mkdir(mode=0o700)
        try:
            digests = {}
            for name in _ARRAYS:
                digests[f"{name}.npy"] = _write(draft / f"{name}.npy", getattr(packed, name))
            skops.io.dump(shell, draft / _STUB)
            digests[_STUB] = sha256(draft / _STUB)
            (draft / _INDEX).write_bytes(orjson.dumps(digests))
            with suppress(FileExistsError, OSError):
                draft.rename(self.path(contract))
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def drop(self, contract: Contract) -> None:
        """Remove the entry. Who has mapped it keeps it: its pages live as long as they are mapped."""
        shutil.rmtree(self.path(contract), ignore_errors=True)

    def sweep(self, kept: Iterable[Contract]) -> None:
        """Remove what belongs to none of these versions, and drafts that nobody finishes any more."""
        names = {self.path(contract).name for contract in kept}
        with suppress(OSError):
            for entry in list(self.folder.iterdir()):
                is_draft = entry.name.startswith(".")
                stale = time.time() - entry.stat().st_mtime > _STALE_S if is_draft else entry.name not in names
                if stale:
                    shutil.rmtree(entry, ignore_errors=True)


def unpacked_bytes(artifact: Path) -> int:
    """About what an artifact takes in memory: the size of its parts, which are compressed in the file."""
    with zipfile.ZipFile(artifact) as parts:
        return sum(part.file_size for part in parts.infolist())


class _Hashing:
    """Writes to a file and hashes what it was given, so that a fault on the way to the disk is seen later."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        return self._file.write(data)


def _write(path: Path, array: Array) -> str:
    with path.open("xb") as file:
        hashing = _Hashing(file)
        npy.write_array(hashing, array, allow_pickle=False)
        os.fchmod(file.fileno(), 0o400)
    return hashing.sha256.hexdigest()


def _mapped(path: Path, digests: dict[str, str]) -> Array:
    """The file's array, mapped; what is hashed and what is mapped is one open file."""
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != digests.get(path.name):
            raise ValueError(f"{path.name} is not what was written")
        file.seek(0)
        npy.read_magic(file)
        shape, _, dtype = npy.read_array_header_1_0(file)
        return np.asarray(np.memmap(file, dtype, "r", file.tell(), shape))
