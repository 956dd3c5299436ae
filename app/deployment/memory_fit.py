"""Whether the models fit into memory with this number of workers: told before the kernel ends a process for it.

The estimate is a lower bound, so that it warns of nothing that would fit: what a worker takes without models, and the
artifacts as they are when unpacked. Arrays count once, because workers may map them; all else counts for each worker.
A model process shares nothing, so all of an artifact counts for each process of its environment. Requests, and what a
load takes while it lasts, are left out.
"""

from __future__ import annotations

import zipfile
from contextlib import suppress
from pathlib import Path

import msgspec

from tableside import machine
from tableside.errors import ContractBroken
from tableside.model_process import known_environments
from tableside.repository import model_toml, paths
from tableside.settings import Settings

WORKER_BYTES = 70_000_000
"""What a worker takes without models, at least (proportional set size)."""
MODEL_PROCESS_BYTES = 30_000_000
"""What a model process takes before it loads a model, at least."""


class Need(msgspec.Struct, frozen=True):
    """Bytes of memory. each: for every worker. shared: once for all.

    environments: those whose models are part of `each`, because they have as many processes as there are workers.
    """

    each: int
    shared: int
    environments: tuple[str, ...] = ()

    def total(self, workers: int) -> int:
        """Return the bytes for this number of workers."""
        return workers * self.each + self.shared


def need(settings: Settings) -> Need:
    """Return what the versions of the repository that are to be served need at least."""
    root = settings.repository_path
    each, shared = WORKER_BYTES, 0
    elsewhere: dict[str, int] = {}
    for name in paths.models(root):
        versions, environment = _wanted(name, settings)
        sizes = [_version_bytes(root, name, version) for version in versions]
        arrays, others = sum(size[0] for size in sizes), sum(size[1] for size in sizes)
        if environment:
            elsewhere[environment] = elsewhere.get(environment, MODEL_PROCESS_BYTES) + arrays + others
        else:
            shared, each = shared + arrays, each + others
    known = known_environments.known(settings)
    counts = {name: known[name].processes for name in elsewhere if name in known}
    shared += sum(count * elsewhere[name] for name, count in counts.items())
    following = tuple(sorted(name for name, count in counts.items() if not count))
    return Need(each + sum(elsewhere[name] for name in following), shared, following)


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
    if needed.environments:
        advice += f", or set `processes = 1` for the environment {' and '.join(needed.environments)}"
    return (
        f"tableside: warning: {workers} {'worker needs' if workers == 1 else 'workers need'} at least "
        f"{needed.total(workers) / 1e9:.2g} GB with the models of {settings.repository_path}, and {source} is "
        f"{limit / 1e9:.2g} GB: {advice}, or serve fewer models\n"
    )


def _wanted(name: str, settings: Settings) -> tuple[list[int], str]:
    """Return the versions of a model that are to be served, and the environment of its own; "" for the workers'."""
    root = settings.repository_path
    published = paths.versions(root, name)
    try:
        config = model_toml.read(root, name)
    except ContractBroken:  # reported when the model loads
        return published, ""
    environment = model_toml.environment_of(name, config, settings.repository)
    return (config.wanted(published) if config.enabled else []), environment


def _version_bytes(root: Path, name: str, version: int) -> tuple[int, int]:
    """Return the size of a version's artifacts when they are unpacked: arrays, and all else."""
    sizes = [_unpacked_bytes(file) for file in paths.version_folder(root, name, version).iterdir()]
    return sum(size[0] for size in sizes), sum(size[1] for size in sizes)


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
