"""Read the settings into one frozen object.

Environment variables (`TABLESIDE__SECTION__KEY`) override the TOML file, which overrides the defaults below.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from tableside import setting_front, tracing_settings
from tableside.errors import SettingsError
from tableside.server_settings import Server as Server
from tableside.setting_texts import check_file, explain, is_loopback, list_settings, refuse_no_keys
from tableside.setting_texts import split_address as split_address
from tableside.setting_types import (
    EnvironmentName,
    Library,
    ModelEnvironment,
    Positive,
    Sha256,
    TrustedKey,
    TypeName,
)
from tableside.setting_variables import ENV_PREFIX, FOLDER_VARIABLE, override, rooted

CONFIG_VARIABLE = "TABLESIDE_CONFIG"
"""Variable with the path of the TOML file. If it is not set, `./tableside.toml` is read where that file exists."""


class Repository(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The section `[repository]`: where the models are, and which of them may be loaded."""

    path: str = "models"
    """Folder of the model repository."""
    poll_interval_ms: Positive = 100
    """Milliseconds between two looks of a worker at its model processes and at models that were stopped."""
    watch_interval_s: Annotated[float, Meta(ge=0, le=3600)] = 2.0
    """Seconds between two looks at the repository for changed files; 0: only commands and the API make changes."""
    environment_skew: Literal["refuse", "warn"] = "refuse"
    """What to do with a version that was trained or published with another minor version of scikit-learn. `warn`
    serves it if its golden answers are the trainer's."""
    trusted_types: tuple[TypeName, ...] = ()
    """Types that a skops file may contain in addition to the reviewed list."""
    trusted_libraries: tuple[Library, ...] = ()
    """Libraries whose reviewed types a skops file may contain: LIBRARIES."""
    model_environments: tuple[ModelEnvironment, ...] = ()
    """MODEL=ENVIRONMENT for models whose model.toml names none. `tableside restart --release` adds to it."""
    allowed_pickles: tuple[Sha256, ...] = ()
    """SHA-256 of the pickle files that `publish` may read from MLflow directories and training records."""
    trusted_keys: tuple[TrustedKey, ...] = ()
    """Public keys of those who may sign versions, NAME=ed25519:KEY. With any, versions without their signature are
    refused."""
    consent_file: Annotated[str, Meta(min_length=1)] = "consent.jsonl"
    """File that lists the versions whose own code or pickle may be loaded. It must be outside of the repository."""
    load_timeout_s: Annotated[float, Meta(gt=0, le=86400)] = 120.0
    """Seconds that the first load of a version and its golden rows may take."""
    memory_budget_mb: Annotated[int, Meta(ge=0)] = 0
    """Memory that all versions may take in all workers (in millions of bytes); 0: what the machine has free."""
    shared_memory_above_mb: Annotated[int, Meta(ge=0)] = 64
    """Forests larger than this (in millions of bytes) are held in memory once for all workers; 0 means never."""


class Predict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The section `[predict]`: how predictions are computed and answered."""

    default_model: str = ""
    """Model that `/invocations` uses if a request names none: `name`, `name@alias` or `name/version`."""
    max_cell_errors: Positive = 20
    """Largest number of bad cells that one answer with status 400 lists."""
    show_values: bool = False
    """Whether errors and logs may quote values of a request (the first 40 characters of each)."""
    strict_json: bool = False
    """Whether `NaN` and `Infinity` in JSON are refused. Otherwise NaN is a missing cell, as Python's json writes it."""
    not_finite: Literal["null", "error"] = "null"
    """How a prediction that is NaN or infinite is answered: as `null`, or as an error with status 500."""
    in_thread_above_bytes: Positive = 65536
    """Bodies larger than this are decoded, and their answers encoded, in a native thread."""
    verify_one_in: Annotated[int, Meta(ge=0)] = 1000
    """One in this many answers of a fast backend is compared with the estimator afterwards; 0 means never."""
    inline_below_ms: Annotated[float, Meta(ge=0)] = 1.0
    """Predictions that are expected to take less than this run on the event loop, without a thread."""
    max_queue_rows: Positive = 16384
    """Rows that may wait for one model in one worker; more get status 429."""


class Logs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The section `[log]`: how log lines are written, and how much disk they may take."""

    format: Literal["auto", "json", "text"] = "auto"
    """`auto` writes text to a terminal and JSON elsewhere."""
    level: Literal["debug", "info", "warning", "error"] = "info"
    """Lowest level that is written. Successful health probes have the level `debug`."""
    access_one_in: Annotated[int, Meta(ge=0)] = 1
    """One in this many requests is in the access logs; 0: none. Answers with status 500 and above always are."""
    max_bytes: Annotated[int, Meta(ge=1_000_000)] = 50_000_000
    """Size at which a log file is renamed to `NAME.1` and a new one is begun."""
    keep_files: Positive = 5
    """Number of renamed files that are kept of each log."""


class Environment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The section `[environments.NAME]`: a Python environment in which models may run (`environment` in model.toml)."""

    python: str
    """Path of its interpreter, such as `/srv/old/bin/python`; Python 3.8 or later, with scikit-learn and skops."""
    processes: Annotated[int, Meta(ge=0)] = 0
    """Number of model processes; 0: as many as `server.workers`."""


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that an operator can set. docs/reference/settings.md lists every field with its default."""

    server: Server = Server()
    repository: Repository = Repository()
    predict: Predict = Predict()
    log: Logs = Logs()
    tracing: tracing_settings.Tracing = tracing_settings.Tracing()
    environments: dict[EnvironmentName, Environment] = {}

    @property
    def run_dir(self) -> Path:
        """Absolute path of the run folder."""
        return Path(self.server.run_dir).absolute()

    @property
    def keys_path(self) -> Path:
        """Absolute path of the keys file."""
        return Path(self.server.keys_file).absolute()

    @property
    def needs_keys(self) -> bool:
        """Whether predictions and metrics need a key."""
        return self.server.require_keys or (bool(self.exposed) and not self.server.open)

    @property
    def exposed(self) -> tuple[str, ...]:
        """The settings of addresses that other machines may reach."""
        planes = {"server.listen": self.server.listen, "server.admin_listen": self.server.admin_listen}
        return tuple(name for name, address in planes.items() if not is_loopback(split_address(address)[0]))

    @property
    def environments_path(self) -> Path:
        """Absolute path of the folder of the environments that `tableside env create` makes."""
        return Path(self.server.environments_dir or self.run_dir.parent / "environments").absolute()

    @property
    def repository_path(self) -> Path:
        """Absolute path of the model repository."""
        return Path(self.repository.path).absolute()


def load(environ: Mapping[str, str] | None = None, config: Path | None = None) -> Settings:
    """Read the settings.

    environ: the variables to read; by default those of this process.
    config: the TOML file to read; by default the one that `TABLESIDE_CONFIG` names, or else `./tableside.toml`.
    Raises SettingsError with one line that names the setting, its variable or the file.
    """
    environ = os.environ if environ is None else environ
    merged = read_file(environ, config)
    for variable, value in sorted(environ.items()):
        if variable.startswith(ENV_PREFIX):
            override(merged, variable, value, Settings)
    refuse_no_keys(merged)
    try:
        settings = msgspec.convert(rooted(merged, environ), Settings, strict=False)
    except msgspec.ValidationError as problem:
        raise SettingsError(explain(str(problem))) from problem
    if bool(settings.server.tls_certificate) != bool(settings.server.tls_key):
        raise SettingsError("server.tls_certificate and server.tls_key belong together: set both or none")
    for address in (settings.server.listen, settings.server.admin_listen):
        split_address(address)
    setting_front.check(settings.server.path_prefix, settings.server.trusted_proxies, settings.server.cors_origins)
    tracing_settings.check(settings.tracing)
    if settings.server.listen == settings.server.admin_listen:
        raise SettingsError(
            f"server.listen and server.admin_listen are both {settings.server.listen}: they need different addresses"
        )
    return settings


def read_file(environ: Mapping[str, str], config: Path | None) -> dict[str, object]:
    """Return the content of the settings file, for `load`; empty if there is none. Raises SettingsError."""
    requested = str(config) if config else environ.get(CONFIG_VARIABLE)
    path = Path(environ.get(FOLDER_VARIABLE, ""), requested or "tableside.toml")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as problem:
        if requested:
            message = f"{path}: this settings file does not exist. Create it, or unset {CONFIG_VARIABLE}"
            raise SettingsError(message) from problem
        return {}
    except PermissionError as problem:
        raise SettingsError(
            f"{path}: this user may not read the settings file. Run the command as its owner, or with sudo"
        ) from problem
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as problem:
        raise SettingsError(f"{path}: {problem}") from problem
    check_file(content, list_settings(Settings))
    return content
