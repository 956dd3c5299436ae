"""The shared store: the trees of large forests in files of the run folder, which all workers of a host map into memory.

The preflight of a version writes its entry. The entry's name is a hash of the artifact's checksum, the versions of the
libraries and this release; its files are read-only, and their checksums are verified each time it is opened. The store
is in the run folder and not beside the artifact, because a change to a mapped file changes answers at once: people copy
files into a repository by hand, but not into the run folder.
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
from tableside.contracts.array_type import Array
from tableside.contracts.environment import environment, sha256
from tableside.contracts.schema import Contract
from tableside.errors import ContractBroken, FailureKind
from tableside.runtimes import sklearn as runtime_sklearn
from tableside.runtimes.fast import packed_trees
from tableside.runtimes.fast.packed_trees import PackedTrees
from tableside.runtimes.sklearn import SklearnRuntime

SHARED_STORE_FOLDER = "shared_store"
"""Name of the store's folder below the run folder."""
_ARRAYS = ("records", "starts", "values")
_STUB, _INDEX = "stub.skops", "index.json"
_STALE_S = 3600


class SharedStore:
    """The entries below one folder. Where it cannot be written or read, each worker loads a copy of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, contract: Contract) -> Path:
        """The folder of a version's entry; it may not exist."""
        parts = (contract.artifact.sha256, environment(), __version__)
        return self.folder / hashlib.sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).hexdigest()[:32]

    def open(self, contract: Contract, trusted: Iterable[str] = ()) -> tuple[SklearnRuntime, PackedTrees] | None:
        """The stub estimator and the mapped trees of a version.

        Returns None without an entry. Raises ContractBroken for an entry whose files do not match their checksums.
        """
        folder = self.path(contract)
        if not folder.is_dir():
            return None
        try:
            digests = msgspec.json.decode((folder / _INDEX).read_bytes(), type=dict[str, str])
            arrays = {name: _mapped(folder / f"{name}.npy", digests) for name in _ARRAYS}
            if sha256(folder / _STUB) != digests.get(_STUB):
                raise ValueError(f"{_STUB} does not match its checksum")
        except (OSError, ValueError, msgspec.DecodeError) as problem:
            raise ContractBroken(f"{folder.name}: {problem}", FailureKind.DAMAGED) from problem
        return runtime_sklearn.load(folder / _STUB, trusted), PackedTrees(**arrays)

    def put(self, contract: Contract, estimator: Any) -> None:
        """Write the entry of a version; if another process has written it in the meantime, keep that one.

        Raises OSError where the folder cannot be written, Unsupported for an estimator that is not a tree or forest.
        """
        import skops.io

        packed, stub = packed_trees.pack(packed_trees.last_of(estimator)), packed_trees.stub_of(estimator)
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = self.folder / f".{uuid.uuid4().hex}"
        draft.mkdir(mode=0o700)
        try:
            digests = {}
            for name in _ARRAYS:
                digests[f"{name}.npy"] = _write(draft / f"{name}.npy", getattr(packed, name))
            skops.io.dump(stub, draft / _STUB)
            digests[_STUB] = sha256(draft / _STUB)
            (draft / _INDEX).write_bytes(orjson.dumps(digests))
            with suppress(FileExistsError, OSError):
                draft.rename(self.path(contract))
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def drop(self, contract: Contract) -> None:
        """Remove the entry. Processes that have mapped it go on using it: the kernel keeps mapped pages."""
        shutil.rmtree(self.path(contract), ignore_errors=True)

    def sweep(self, kept: Iterable[Contract]) -> None:
        """Remove the entries of all other versions, and drafts that are older than an hour."""
        names = {self.path(contract).name for contract in kept}
        with suppress(OSError):
            for entry in list(self.folder.iterdir()):
                is_draft = entry.name.startswith(".")
                stale = time.time() - entry.stat().st_mtime > _STALE_S if is_draft else entry.name not in names
                if stale:
                    shutil.rmtree(entry, ignore_errors=True)


def unpacked_bytes(artifact: Path) -> int:
    """The size of the artifact's parts in bytes, uncompressed: about the memory that it needs when loaded."""
    with zipfile.ZipFile(artifact) as parts:
        return sum(part.file_size for part in parts.infolist())


class _Hashing:
    """Writes to a file and hashes the bytes before they reach the disk, so that a disk fault is detected later."""

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
    """Map the file's array. One open file is hashed and mapped, so that no other file can take its place in between."""
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != digests.get(path.name):
            raise ValueError(f"{path.name} does not match its checksum")
        file.seek(0)
        npy.read_magic(file)
        shape, _, dtype = npy.read_array_header_1_0(file)
        return np.asarray(np.memmap(file, dtype, "r", file.tell(), shape))
