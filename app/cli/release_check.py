"""What `tableside restart --release` asks a release before the stack goes on in it: run in that release's interpreter.

It imports all code that a worker imports, and compares each version in the repository with the libraries there.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from tableside import __version__
from tableside.errors import ContractBroken
from tableside.model_process import known_environments
from tableside.repository import integrity, model_toml, paths
from tableside.settings import Settings, load

MODULE = "tableside.cli.release_check"


class Refused(msgspec.Struct, frozen=True):
    """A version that the release cannot serve, and why. is_skewed: its libraries are another minor version."""

    name: str
    version: int
    reason: str
    is_skewed: bool = False


class Report(msgspec.Struct, frozen=True):
    """What a release says of itself. A later release may say more.

    environments: interpreters by name. model_environments: the setting. refused: versions in the repository.
    """

    version: str
    environments: dict[str, str] = {}
    model_environments: tuple[str, ...] = ()
    refused: tuple[Refused, ...] = ()


def report(settings: Settings) -> Report:
    """Return what this release says of itself and of the repository in the settings."""
    environments = {name: each.python for name, each in known_environments.known(settings).items()}
    return Report(__version__, environments, settings.repository.model_environments, tuple(_refused(settings)))


def _refused(settings: Settings) -> Iterator[Refused]:
    root: Path = settings.repository_path
    environments = known_environments.known(settings)
    for name in paths.models(root):
        try:
            environment = model_toml.environment_of(name, model_toml.read(root, name), settings.repository)
        except ContractBroken:  # the stack reports it anyway, and serves on what it had loaded
            environment = ""
        for number in paths.versions(root, name):
            try:
                contract = integrity.read_contract(root, name, number, settings.repository.trusted_keys)
                if environment and environment not in environments:
                    raise known_environments.unknown(environment, environments)
            except ContractBroken as problem:
                yield Refused(name, number, str(problem))
                continue
            try:
                if not environment:
                    integrity.check_environment(contract, settings.repository.environment_skew)
            except ContractBroken as problem:
                yield Refused(name, number, str(problem), is_skewed=True)


def main() -> None:
    """Print the report as JSON. Raises whatever the import of the code or the reading of the settings raises."""
    for module in ("tableside.deployment.instance_keeper", "tableside.deployment.gunicorn", "tableside.factory"):
        importlib.import_module(module)
    sys.stdout.buffer.write(msgspec.json.encode(report(load())))


if __name__ == "__main__":
    main()
