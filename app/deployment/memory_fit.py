"""Whether the models fit into memory with this number of workers: told before the kernel ends a process for it.

The estimate is a lower bound, so that it warns of nothing that would fit: what a worker takes without models, and the
artifacts as they are when unpacked. Arrays count once, because workers may map them; all else counts for each worker.
Requests, and what a load takes while it lasts, are left out.
"""

from __future__ import annotations

import zipfile
from contextlib import suppress
from pathlib import Path

import msgspec

from tableside import machine
from tableside.errors import ContractBroken
from tableside.repository import model_toml, paths
from tableside.settings import Settings

WORKER_BYTES = 70_000_000
"""What a worker takes without models, at least (proportional set size)."""


class Need(msgspec.Struct, frozen=True):
    """Bytes of memory. each: for every worker. shared: once for all."""

    each: int
    shared: int

    def total(self, workers: int) -> int:
        """Return the bytes for this number of workers."""
        return workers * self.each + self.shared


def need(settings: Settings) -> Need:
    """Return what the versions of the repository that are to be served need at least."""
    root = settings.repository_path
    each, shared = WORKER_BYTES, 0
    for name in paths.models(root):
        for version in _wanted(root, name):
            for file in paths.version_folder(root, name, version).iterdir():
                arrays, others = _unpacked_bytes(file)
                shared, each = shared + arrays, each + others
    return Need(each, shared)


def warning(settings: Settings) -> str:
    """Return one line if the models do not fit into the memory that this stack may use; otherwise an empty string."""
    limit, source = machine.memory_bytes()
    if not limit:
        return ""
    needed, workers = need(settings), settings.server.workers
    if needed.total(workers) <= limit:
        return ""
    fitting = max(0, (limit - needed.shared) // needed.each)
    advice = f"set server.workers to {fitting}" if fitting else "no number of workers fits"
    return (
        f"tableside: warning: {workers} {'worker needs' if workers == 1 else 'workers need'} at least "
        f"{needed.total(workers) / 1e9:.2g} GB with the models of {settings.repository_path}, and {source} is "
        f"{limit / 1e9:.2g} GB: {advice}, or serve fewer models\n"
    )


def _wanted(root: Path, name: str) -> list[int]:
    """Return the versions of a model that are to be served in the workers themselves."""
    published = paths.versions(root, name)
    try:
        config = model_toml.read(root, name)
    except ContractBroken:  # reported when the model loads
        return published
    return config.wanted(published) if config.enabled and not config.environment else []


def _unpacked_bytes(file: Path) -> tuple[int, int]:
    """Return the size of an artifact when it is unpacked: arrays, and all else. Other files count as nothing."""
    with suppress(OSError, zipfile.BadZipFile):
        if file.suffix == ".skops":
            with zipfile.ZipFile(file) as archive:
                sizes = [(entry.filename.endswith(".npy"), entry.file_size) for entry in archive.infolist()]
            return sum(size for is_array, size in sizes if is_array), sum(
                size for is_array, size in sizes if not is_array
            )
        if file.suffix in (".onnx", ".ubj", ".cbm", ".txt", ".joblib") and file.is_file():
            return 0, file.stat().st_size
    return 0, 0
