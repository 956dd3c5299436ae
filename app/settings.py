"""Settings: one frozen object, read once. Defaults < tableside.toml < environment (`TABLESIDE__SECTION__KEY`)."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from tableside.errors import SettingsError

ENV_PREFIX = "TABLESIDE__"
CONFIG_VARIABLE = "TABLESIDE_CONFIG"
"""Path of the TOML file; without it `tableside.toml` in the working directory is read if it is there."""

Positive = Annotated[int, Meta(ge=1)]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-fA-F]{64}\Z")]
Port = Annotated[str, Meta(pattern=r"^(\[[0-9a-fA-F:.]+\]|[^\[\]:]+):[0-9]{1,5}\Z")]


class Server(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Addresses, processes and limits of one stack."""

    listen: Port = "127.0.0.1:8080"
    admin_listen: Port = "127.0.0.1:8081"
    workers: Positive = msgspec.field(default_factory=lambda: os.cpu_count() or 1)
    run_dir: str = "run"
    nginx: Literal["auto", "on", "off"] = "auto"
    predict_threads: Positive = 2
    request_timeout_s: Annotated[float, Meta(gt=0, le=3600)] = 30.0
    max_body_bytes: Positive = 64 * 1024 * 1024
    max_inflated_bytes: Positive = 256 * 1024 * 1024
    max_connections_per_client: Positive = 1024
    max_requests_in_flight: Positive = 2048
    docs: bool = True

    @property
    def graceful_timeout_s(self) -> int:
        """How long gunicorn lets a stopping worker finish, in seconds."""
        return int(self.request_timeout_s) + 5

    @property
    def proxy_read_timeout_s(self) -> int:
        """How long nginx waits for the worker's answer, in seconds."""
        return self.graceful_timeout_s + 5

    @property
    def stop_wait_s(self) -> int:
        """How long supervisor waits before it kills, in seconds."""
        return self.proxy_read_timeout_s + 5


class Repository(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where models lie, and how strictly their contract is held."""

    path: str = "models"
    poll_interval_ms: Positive = 100
    environment_skew: Literal["refuse", "warn"] = "refuse"
    trusted_types: tuple[str, ...] = ()
    allowed_pickles: tuple[Sha256, ...] = ()
    load_timeout_s: Annotated[float, Meta(gt=0, le=86400)] = 120.0
    shared_memory_above_mb: Annotated[int, Meta(ge=0)] = 64


class Predict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How predictions are answered."""

    default_model: str = ""
    max_cell_errors: Positive = 20
    show_values: bool = False
    not_finite: Literal["null", "error"] = "null"
    in_thread_above_bytes: Positive = 65536
    verify_one_in: Annotated[int, Meta(ge=0)] = 1000
    inline_below_ms: Annotated[float, Meta(ge=0)] = 1.0
    max_queue_rows: Positive = 16384


class Logs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is written about each request."""

    format: Literal["auto", "json", "text"] = "auto"
    level: Literal["debug", "info", "warning", "error"] = "info"


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything an operator can set. docs/reference/settings.md has an entry for each field; a test holds that."""

    server: Server = Server()
    repository: Repository = Repository()
    predict: Predict = Predict()
    log: Logs = Logs()

    @property
    def run_dir(self) -> Path:
        """The runtime folder, absolute."""
        return Path(self.server.run_dir).absolute()

    @property
    def repository_path(self) -> Path:
        """The model repository, absolute."""
        return Path(self.repository.path).absolute()


def split_address(address: str) -> tuple[str, int]:
    """Split `host:port` or `[v6]:port`. Raises SettingsError when the port is out of range."""
    host, _, port = address.rpartition(":")
    if not 0 < int(port) < 65536:
        raise SettingsError(f"{address}: the port must lie between 1 and 65535")
    return host.strip("[]"), int(port)


def load(environ: Mapping[str, str] | None = None, config: Path | None = None) -> Settings:
    """Read the settings.

    environ: defaults to the process environment. config: a TOML file; else `TABLESIDE_CONFIG`, else `./tableside.toml`.
    Raises SettingsError, in one line that names the setting.
    """
    environ = os.environ if environ is None else environ
    merged = _read_file(environ, config)
    for variable, value in sorted(environ.items()):
        if variable.startswith(ENV_PREFIX):
            _overlay(merged, variable, value)
    try:
        settings = msgspec.convert(merged, Settings, strict=False)
    except msgspec.ValidationError as problem:
        raise SettingsError(_explain(str(problem))) from problem
    for address in (settings.server.listen, settings.server.admin_listen):
        split_address(address)
    if settings.server.listen == settings.server.admin_listen:
        raise SettingsError(f"server.listen and server.admin_listen are both {settings.server.listen}")
    return settings


def _read_file(environ: Mapping[str, str], config: Path | None) -> dict[str, Any]:
    named = str(config) if config else environ.get(CONFIG_VARIABLE)
    path = Path(named or "tableside.toml")
    if not path.exists():
        if named:
            raise SettingsError(f"{path}: no such settings file")
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as problem:
        raise SettingsError(f"{path}: {problem}") from problem


def _overlay(merged: dict[str, Any], variable: str, value: str) -> None:
    section, separator, key = variable[len(ENV_PREFIX) :].lower().partition("__")
    known = {field.name for field in msgspec.structs.fields(Settings)}
    if not separator or section not in known:
        raise SettingsError(f"{variable}: unknown setting; sections are {', '.join(sorted(known))}")
    kind = {field.name: field.type for field in msgspec.structs.fields(Settings)}[section]
    keys = {field.name: field for field in msgspec.structs.fields(kind)}
    if key not in keys:
        raise SettingsError(f"{variable}: unknown setting; {section} has {', '.join(sorted(keys))}")
    parsed: Any = value
    if isinstance(keys[key].default, tuple):
        parsed = [part.strip() for part in value.split(",") if part.strip()]
    try:
        msgspec.convert(parsed, keys[key].type, strict=False)
    except msgspec.ValidationError as problem:
        raise SettingsError(f"{variable}: {problem}") from problem
    if isinstance(merged.setdefault(section, {}), dict):  # a section that is no table is refused as a whole, later
        merged[section][key] = parsed


def _explain(message: str) -> str:
    text, _, path = message.partition(" - at ")
    return f"{path.strip('`').removeprefix('$.') or 'settings'}: {text}"
