"""Loads mutated files of a repository, each in a forked process with limits, and judges how it ended."""

from __future__ import annotations

import gc
import hashlib
import os
import random
import resource
import shutil
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from tableside.contracts import schema
from tableside.errors import TablesideError
from tableside.preflight.checks import check_version
from tableside.publishing import mlflow
from tableside.repository import integrity, model_toml, model_toml_edits, paths
from tableside.settings import Repository
from tests.hostile import mutations

MEMORY_BYTES = 2 << 30
"""What a load may take besides what the process has; the preflight's own limit is larger."""
PEAK_BYTES = 400 << 20
TIME_S = 60
"""CPU seconds. A preflight has `repository.load_timeout_s`."""
MODEL_TOML = b"""enabled = true
versions = [1]
[aliases]
best = 1
[columns]
extra = "ignore"
[batching]
max_batch_rows = 9
[cache]
max_bytes = 1000000
"""
KINDS = ("skops", "skops bytes", "contract", "contract bytes", "model.toml", "MLmodel")
Load = Callable[[], object]


class Files:
    """A repository of one model, and an MLflow directory, whose files are changed one at a time."""

    def __init__(self, published: Path, mlflow_folder: Path, folder: Path, name: str) -> None:
        """published: the folder of version 1 of the model `name`."""
        self._root, self._mlflow, self._name = folder / "models", folder / "mlflow", name
        self._version = paths.version_folder(self._root, name, 1)
        shutil.copytree(published, self._version)
        shutil.copytree(mlflow_folder, self._mlflow)
        for file in (*self._version.iterdir(), *self._mlflow.iterdir()):
            file.chmod(0o644 if file.is_file() else 0o755)
        self._contract = integrity.read_contract(self._root, self._name, 1)
        (self._version / paths.CHECKSUMS).unlink()
        self._artifact = self._version / self._contract.artifact.file
        self._whole = {
            "skops": self._artifact.read_bytes(),
            "contract": (self._version / paths.CONTRACT).read_bytes(),
            "model.toml": MODEL_TOML,
            "MLmodel": (self._mlflow / "MLmodel").read_bytes(),
        }

    def changed(self, kind: str, chance: random.Random) -> bytes:
        """A changed file of this kind of KINDS."""
        name, _, as_bytes = kind.partition(" ")
        change = {"skops": mutations.in_skops, "contract": mutations.in_json}.get(kind, mutations.in_bytes)
        return change(self._whole[name], chance)

    def problem(self, kind: str, content: bytes) -> str:
        """Load the changed file. Return what is wrong; empty if it loads, or is refused by an error of this project."""
        name = kind.partition(" ")[0]
        load = {"skops": self._skops, "contract": self._read_contract, "model.toml": self._toml, "MLmodel": self._ml}[
            name
        ]
        try:
            return judged(load(content), len(content))
        finally:
            self._artifact.write_bytes(self._whole["skops"])
            (self._version / paths.CONTRACT).write_bytes(self._whole["contract"])
            (self._root / self._name / paths.MODEL_TOML).unlink(missing_ok=True)

    def _check(self) -> object:
        return check_version(self._root, self._name, 1, Repository())

    def _skops(self, content: bytes) -> Load:
        self._artifact.write_bytes(content)
        known = msgspec.structs.replace(
            self._contract.artifact, sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content)
        )
        contract = msgspec.structs.replace(self._contract, artifact=known)
        (self._version / paths.CONTRACT).write_bytes(schema.encode(contract))
        return self._check

    def _read_contract(self, content: bytes) -> Load:
        (self._version / paths.CONTRACT).write_bytes(content)
        return self._check

    def _toml(self, content: bytes) -> Load:
        (self._root / self._name / paths.MODEL_TOML).write_bytes(content)

        def load() -> None:
            model_toml.read(self._root, self._name).wanted([1])
            model_toml_edits.set_alias(self._root, self._name, "other", 1)

        return load

    def _ml(self, content: bytes) -> Load:
        (self._mlflow / "MLmodel").write_bytes(content)
        return lambda: mlflow.prepare(self._mlflow, None, Repository())


def judged(load: Load, size: int) -> str:
    """Call `load` in a forked process. Return what is wrong with how it ended; empty if nothing is."""
    into, out = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(into)
        _load_here(load, out, size)
    os.close(out)
    with os.fdopen(into, "rb") as said:
        text = said.read(2000).decode(errors="replace")
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    if code == -signal.SIGXCPU or code == -signal.SIGKILL:
        return f"takes more than {TIME_S} s of CPU"
    return text if code >= 0 else f"the process died of {signal.Signals(-code).name}: {text}"


def _load_here(load: Load, out: int, size: int) -> None:
    """Load in this process, write what is wrong, and end."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(1, 2)
        gc.freeze()
        resource.setrlimit(resource.RLIMIT_CPU, (TIME_S, TIME_S + 1))
        before = _memory("VmData")
        resource.setrlimit(resource.RLIMIT_DATA, (before + MEMORY_BYTES, before + MEMORY_BYTES))
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        start = _memory("VmRSS")
        try:
            with suppress(TablesideError):
                load()
        except BaseException as problem:
            os.write(out, f"{type(problem).__module__}.{type(problem).__name__}: {problem}"[:1500].encode())
        peak = _memory("VmHWM") - start
        if peak > PEAK_BYTES + 50 * size:
            os.write(out, f"peak memory {peak / 1e6:.0f} MB".encode())
    finally:
        os._exit(0)


def _memory(field: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))
