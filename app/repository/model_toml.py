"""The operator's settings for one model: `models/NAME/model.toml`.

Versions never change after publish, so everything that an operator may change later is in this file: aliases, which
versions are served, and how requests are read, batched and cached.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from tableside.contracts.consent_digest import PICKLE
from tableside.errors import ContractBroken, PublishFailed
from tableside.process import plain_files
from tableside.repository import paths, toml_problems
from tableside.repository.paths import DEFAULT, MODEL_TOML, check_alias
from tableside.repository.traffic_config import CanaryConfig, RulesConfig, ShadowConfig, candidates
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


class LatestVersions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The policy `versions = { latest = 2 }`: so many of the highest versions are served."""

    latest: Annotated[int, msgspec.Meta(ge=1)]


class History(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the alias `default` has named, the newest last. `promote` and `rollback` write it; `rollback` reads it."""

    default: list[int] = []


class ModelConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of one model.toml. Every key is optional, and an unknown key is an error.

    enabled: whether the model is served at all; the repository API's `unload` sets it to false. aliases: alias to
    version number. versions: the published versions to serve. retired: versions that are not served although `versions`
    selects them. history: the versions that `default` has named. columns, batching, cache: one table each. runtime:
    `auto` uses the fast backends that publish chose; `sklearn` always calls the estimator. environment: the environment
    of the operator's settings in whose model processes the versions run; empty for the server's own. canary, shadow:
    versions that are tried on a part of the traffic. rules: how they are judged.
    """

    enabled: bool = True
    aliases: dict[str, int] = {}
    versions: Literal["all", "latest"] | list[int] | LatestVersions = "all"
    retired: list[int] = []
    history: History = History()
    columns: ColumnConfig = ColumnConfig()
    runtime: Literal["auto", "sklearn"] = "auto"
    batching: BatchConfig = BatchConfig()
    cache: CacheConfig = CacheConfig()
    environment: str = ""
    canary: CanaryConfig | None = None
    shadow: ShadowConfig | None = None
    rules: RulesConfig = RulesConfig()

    @property
    def candidates(self) -> Mapping[str, int]:
        """The versions that are tried on a part of the traffic, by `canary` and `shadow`."""
        return candidates(self.canary, self.shadow)

    def wanted(self, published: list[int]) -> list[int]:
        """Return the published versions to serve.

        These are the versions that `versions` selects and that are not retired, the target of every alias, those that
        are tried as canary or shadow, and the version that `tableside rollback` would go back to, which must answer at
        once.
        """
        live = [version for version in published if version not in self.retired]
        if isinstance(self.versions, LatestVersions):
            chosen = set(live[-self.versions.latest :])
        elif isinstance(self.versions, list):
            chosen = set(self.versions)
        else:
            chosen = set(live if self.versions == "all" else live[-1:])
        chosen |= set(self.former_defaults(live)[:1])
        named = {*self.aliases.values(), *self.candidates.values()}
        return [version for version in published if version in named or (version in chosen and version in live)]

    def former_defaults(self, published: Collection[int]) -> list[int]:
        """Return the versions that `default` named before its present one, the newest first.

        If the file was edited, so that the history does not end with the present one, its end is the former one.
        """
        history = [*self.history.default]
        if history and history[-1] == self.aliases.get(DEFAULT):
            history.pop()
        return [version for version in reversed(history) if version in published]


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
    return decode(name, text)


def decode(name: str, text: bytes) -> ModelConfig:
    """Return the content of a model's file. Raises ContractBroken with the file, the line and the key of a mistake."""
    file = f"{name}/{MODEL_TOML}"
    try:
        content = tomllib.loads(text.decode())
        config = msgspec.convert(content, ModelConfig)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise ContractBroken(f"{file}: {problem}") from problem
    except msgspec.ValidationError as problem:
        where = toml_problems.explain(problem, text.decode(), ModelConfig, content)
        raise ContractBroken(f"{file}: {where}") from problem
    for alias in config.aliases:
        try:
            check_alias(alias)
        except PublishFailed as problem:
            line = toml_problems.line_of(text.decode(), ["aliases", alias])
            raise ContractBroken(f"{file}: line {line}: {problem}") from problem
    return config


def text_of(root: Path, name: str) -> bytes | None:
    """Return the bytes of a model's file; None without one. Raises OSError if it cannot be read."""
    try:
        return plain_files.read(root / name / MODEL_TOML, MAX_BYTES)
    except FileNotFoundError:
        return None


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
