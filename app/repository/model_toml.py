"""The operator's settings for one model: `models/NAME/model.toml`.

Versions never change after publish, so everything that an operator may change later is in this file: aliases, which
versions are served, and how requests are read, batched and cached.
"""

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

from tableside.contract.consent_digest import PICKLE
from tableside.errors import ContractBroken, PublishFailed
from tableside.process import plain_files
from tableside.process.file_locks import try_lock
from tableside.repository import paths
from tableside.repository.paths import MODEL_TOML, check_alias
from tableside.settings import Repository

MAX_BYTES = 1 << 20
"""The largest model.toml that is read."""
MIN_CACHE_BYTES, MAX_CACHE_BYTES = 1 << 16, 1 << 40


class ColumnConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How columns that are missing from a request, unknown or repeated are treated (docs/reference/tables.md).

    missing: `fill` puts a missing value into each row. extra, duplicate: `ignore` drops the column. missing_words: for
    a column, the words that stand for a missing cell in CSV and in text tensors, instead of the usual ones. id: a
    column that requests may have beside the model's; its cells come back with the answers, and the model is not given
    them. log_id: whether the first ids of a request stand in the access log.
    """

    missing: Literal["refuse", "fill"] = "refuse"
    extra: Literal["refuse", "ignore"] = "refuse"
    duplicate: Literal["refuse", "ignore"] = "refuse"
    missing_words: dict[str, list[str]] = {}
    id: str = ""
    log_id: bool = False


class BatchConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How requests that arrive while a model is busy are batched (docs/guide/tune.md).

    enabled: `false` calls the estimator once for each request. max_batch_rows: the most rows of one batch. require:
    `exact` batches only versions whose batch invariance is `exact`; `any` also those with a difference in ULP.
    """

    enabled: bool = True
    max_batch_rows: Annotated[int, msgspec.Meta(ge=1)] = 1024
    require: Literal["any", "exact"] = "any"


class CacheConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whether answers are cached (docs/guide/tune.md).

    max_bytes: the size of the cache of one version in one worker; 0 turns it off.
    """

    max_bytes: Annotated[int, msgspec.Meta(ge=0)] = 0

    def __post_init__(self) -> None:
        """Raise ValueError for a size below MIN_CACHE_BYTES, where few answers fit, or above MAX_CACHE_BYTES."""
        if self.max_bytes and not MIN_CACHE_BYTES <= self.max_bytes <= MAX_CACHE_BYTES:
            raise ValueError(f"`max_bytes` must be 0 (off) or from {MIN_CACHE_BYTES} to {MAX_CACHE_BYTES}")


class ModelConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of one model.toml. Every key is optional, and an unknown key is an error.

    enabled: whether the model is served at all; the repository API's `unload` sets it to false. aliases: alias to
    version number. versions: the published versions to serve. columns, batching, cache: one table each. runtime: `auto`
    uses the fast backends that publish chose; `sklearn` always calls the estimator. environment: the environment of the
    operator's settings in whose model processes the versions run; empty for the server's own.
    """

    enabled: bool = True
    aliases: dict[str, int] = {}
    versions: Literal["all", "latest"] | list[int] = "all"
    columns: ColumnConfig = ColumnConfig()
    runtime: Literal["auto", "sklearn"] = "auto"
    batching: BatchConfig = BatchConfig()
    cache: CacheConfig = CacheConfig()
    environment: str = ""

    def wanted(self, published: list[int]) -> list[int]:
        """Return the published versions to serve: those that `versions` selects, and the target of every alias."""
        if self.versions == "all":
            return published
        chosen = set(published[-1:] if self.versions == "latest" else self.versions)
        return [version for version in published if version in chosen | set(self.aliases.values())]


def environment_of(name: str, config: ModelConfig, policy: Repository | None) -> str:
    """Return the environment in which a model runs on this host: that of its file, or else of the settings; or ""."""
    if config.environment or policy is None:
        return config.environment
    return dict(each.split("=", 1) for each in policy.model_environments).get(name, "")


def read(root: Path, name: str) -> ModelConfig:
    """Read a model's file; without one, return the defaults.

    Raises ContractBroken, which names the file and the field, when it cannot be read or a value is not valid.
    """
    path = root / name / MODEL_TOML
    try:
        text = plain_files.read(path, MAX_BYTES)
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
    """Point an alias at a version. The rest of the file, with its comments, stays as it is.

    A lock on the model's folder makes concurrent writers wait for each other, so that none overwrites another's change.
    """
    with _edit(root, name) as document:
        if "aliases" not in document:
            document["aliases"] = tomlkit.table()
        document["aliases"][alias] = version


def set_environment(root: Path, name: str, environment: str) -> None:
    """Make the model's versions run in an environment. The rest of the file, with its comments, stays as it is."""
    if read(root, name).environment != environment:
        with _edit(root, name) as document:
            document["environment"] = environment


def others_in(root: Path, name: str, environment: str, policy: Repository | None = None) -> list[str]:
    """Return the other models that run in an environment. A file that cannot be read is not counted.

    policy: its `model_environments` count too; without one, only what the files name.
    """
    found = []
    for other in paths.models(root):
        try:
            if other != name and environment_of(other, read(root, other), policy) == environment:
                found.append(other)
        except ContractBroken:  # the other model's problem, and it is not loaded
            continue
    return found


def holds_pickle(root: Path, name: str) -> bool:
    """Return whether a published version of the model has a pickle as its artifact."""
    return any((paths.version_folder(root, name, number) / PICKLE).exists() for number in paths.versions(root, name))


def set_enabled(root: Path, name: str, enabled: bool) -> bool:
    """Set whether the model is served, and return whether that changed the file. Its comments stay as they are.

    Raises ContractBroken when the present file is not valid, OSError when it cannot be written.
    """
    if read(root, name).enabled is enabled:
        return False
    with _edit(root, name) as document:
        if enabled:
            document.pop("enabled", None)
        else:
            document["enabled"] = False
    return True


def _parse(root: Path, name: str) -> tomlkit.TOMLDocument:
    try:
        return tomlkit.parse(plain_files.read(root / name / MODEL_TOML, MAX_BYTES).decode())
    except (tomlkit.exceptions.TOMLKitError, UnicodeDecodeError) as problem:
        raise ContractBroken(f"{name}/{MODEL_TOML}: {problem}") from problem


@contextmanager
def _edit(root: Path, name: str) -> Iterator[tomlkit.TOMLDocument]:
    path = root / name / MODEL_TOML
    with _lock(root / name):
        document = _parse(root, name) if path.exists() else tomlkit.document()
        yield document
        temporary = path.with_name(f".{MODEL_TOML}.{os.getpid()}")
        try:
            temporary.write_text(tomlkit.dumps(document), encoding="utf-8")
            temporary.replace(path)
        except OSError:  # a full disk: the file stays as it was
            temporary.unlink(missing_ok=True)
            raise


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    while (fd := try_lock(folder, os.O_RDONLY | os.O_CLOEXEC)) is None:
        time.sleep(0.005)
    try:
        yield
    finally:
        os.close(fd)
