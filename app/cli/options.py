"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

from tableside.settings import Settings

Command = TypeVar("Command", bound=Callable[..., None])


def repository_option(command: Command) -> Command:
    """Add `--repository PATH` to a command."""
    option = click.option(
        "--repository", type=click.Path(path_type=Path), help="Path of the model repository. Default: repository.path."
    )
    return option(command)


def json_option(command: Command) -> Command:
    """Add `--json`, which the command gets as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")(command)


def repository_path(option: Path | None, settings: Settings) -> Path:
    """Return the repository that `--repository` names, or else the one of the settings."""
    return option if option is not None else settings.repository_path
