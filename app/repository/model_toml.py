"""`models/<name>/model.toml`: the operator's word on a model. It may change; versions may not."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import tomlkit
import tomlkit.exceptions

from tableside.errors import ContractBroken, PublishFailed
from tableside.process.file_locks import try_lock
from tableside.repository.paths import MODEL_TOML, check_alias

LEAST_CACHE_BYTES, MOST_CACHE_BYTES = 1 << 16, 1 << 40


class ColumnConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What happens to columns a request lacks, has too many of, or gives twice (docs/reference/tables.md)."""

    missing: Literal["refuse", "fill"] = "refuse"
    extra: Literal["refuse", "ignore"] = "refuse"
    duplicate: Literal["refuse", "ignore"] = "refuse"


class BatchConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How requests that meet a busy model share a call (docs/guide/tune.md).

    enabled: whether they do. max_batch_rows: rows of one shared call. require: `exact` shares only where publish found
    the answers equal to the bit.
    """

    enabled: bool = True
    max_batch_rows: Annotated[int, msgspec.Meta(ge=1)] = 1024
    require: Literal["any", "exact"] = "any"


class CacheConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whether answers are kept and given again (docs/guide/tune.md).

    max_bytes: of one version in one worker; 0 keeps none.
    """

    max_bytes: Annotated[int, msgspec.Meta(ge=0)] = 0

    def __post_init__(self) -> None:
        """Refuse a bound so small that hardly an answer would fit, and one that no machine holds."""
        if self.max_bytes and not LEAST_CACHE_BYTES <= self.max_bytes <= MOST_CACHE_BYTES:
            raise ValueError(f"`max_bytes` is 0 (off) or from {LEAST_CACHE_BYTES} to {MOST_CACHE_BYTES}")


class ModelConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """aliases: name to version. versions: which of the published ones are served. columns: how tables are read.
    batching: how requests share calls. cache: how answers are kept.

    enabled: whether the model is served at all; the repository API's `unload` turns it off. runtime: whether a fast
    backend that was proved equal at publish may answer, or the estimator always does.
    """

    enabled: bool = True
    aliases: dict[str, int] = {}
    versions: Literal["all", "latest"] | list[int] = "all"
    columns: ColumnConfig = ColumnConfig()
    runtime: Literal["auto", "sklearn"] = "auto"
    batching: BatchConfig = BatchConfig()
    cache: CacheConfig = CacheConfig()

    def wanted(self, published: list[int]) -> list[int]:
        """The versions to serve: by `versions`, and whatever an alias points at."""
        if self.versions == "all":
            return published
        chosen = set(published[-1:] if self.versions == "latest" else self.versions)
        return [version for version in published if version in chosen | set(self.aliases.values())]


def read(root: Path, name: str) -> ModelConfig:
    """Read a model's file; defaults where there is none. Raises ContractBroken that names the file and the field."""
    path = root / name / MODEL_TOML
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return ModelConfig()
    except OSError as problem:
        raise ContractBroken(f"{name}/{MODEL_TOML}: {problem.strerror or problem}") from problem
    try:
        config = msgspec.toml.decode(text, type=ModelConfig)
        for alias in config.aliases:
            check_alias(alias)
        return config
    except (PublishFailed, msgspec.DecodeError, UnicodeDecodeError) as problem:
        raise ContractBroken(f"{name}/{MODEL_TOML}: {problem}") from problem


def set_alias(root: Path, name: str, alias: str, version: int) -> None:
    """Point an alias at a version, keeping the operator's comments. Two writers at once both succeed."""
    with _changing(root, name) as document:
        if "aliases" not in document:
            document["aliases"] = tomlkit.table()
        document["aliases"][alias] = version


def set_enabled(root: Path, name: str, enabled: bool) -> bool:
    """Say whether the model is served, keeping the operator's comments. Returns whether that changes anything.

    Raises ContractBroken when the file cannot be read as it is, OSError when it cannot be written.
    """
    if read(root, name).enabled is enabled:
        return False
    with _changing(root, name) as document:
        if enabled:
            document.pop("enabled", None)
        else:
            document["enabled"] = False
    return True


@contextmanager
def _changing(root: Path, name: str) -> Iterator[tomlkit.TOMLDocument]:
    path = root / name / MODEL_TOML
    with _locked(root / name):
        document = tomlkit.parse(path.read_text(encoding="utf-8")) if path.exists() else tomlkit.document()
        yield document
        temporary = path.with_name(f".{MODEL_TOML}.{os.getpid()}")
        temporary.write_text(tomlkit.dumps(document), encoding="utf-8")
        temporary.replace(path)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    while (fd := try_lock(folder, os.O_RDONLY | os.O_CLOEXEC)) is None:
        time.sleep(0.005)
    try:
        yield
    finally:
        os.close(fd)
