"""Options that several commands share, and the repository that a command works on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

from tableside.deployment import running_stack
from tableside.settings import Settings

Command = TypeVar("Command", bound=Callable[..., None])


def repository_option(command: Command) -> Command:
    """Add `--repository PATH` to a command."""
    option = click.option(
        "--repository",
        type=click.Path(path_type=Path),
        help="Path of the model repository. Default: that of the running stack, or repository.path.",
    )
    return option(command)


def json_option(command: Command) -> Command:
    """Add `--json`, which the command gets as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")(command)


def breaking_option(command: Command) -> Command:
    """Add `--breaking`: requests may go to a version that breaks their clients."""
    return click.option(
        "--breaking",
        is_flag=True,
        help="Also if the version takes requests whose clients it breaks (`tableside diff`).",
    )(command)


def repository_path(option: Path | None, settings: Settings) -> Path:
    """Return the repository to work on, and say on stderr when it may not be the one that is meant.

    That is the one of `--repository`; else that of the stack in the run folder, which may have been started with other
    settings; else that of the settings.
    """
    if option is not None:
        return option
    stack = running_stack.find(settings)
    if stack is None:
        _name_other_stacks(settings)
        return settings.repository_path
    root = Path(stack.repository)
    if root != settings.repository_path:
        click.echo(
            f"note: using {root}, which the running stack serves; repository.path is {settings.repository_path} here",
            err=True,
        )
    return root


def _name_other_stacks(settings: Settings) -> None:
    stacks = running_stack.others(settings)
    if stacks and settings.repository_path not in (Path(stack.repository) for stack in stacks):
        served = "; ".join(f"{stack.repository} is served by the stack in {stack.run_dir}" for stack in stacks)
        click.echo(
            f"note: using {settings.repository_path}, which no running stack serves: {served}. Pass --repository, or "
            "set TABLESIDE__SERVER__RUN_DIR to that folder to use its repository",
            err=True,
        )


def served_elsewhere(root: Path, settings: Settings) -> str:
    """Return in a sentence which repository the running stack serves, if that is another one than `root`; else ""."""
    stack = running_stack.find(settings)
    if stack is None or Path(stack.repository) == root.absolute():
        return ""
    return (
        f"the running stack serves {stack.repository}, not {root.absolute()}. Publish with "
        f"--repository {stack.repository}, or restart the stack with TABLESIDE__REPOSITORY__PATH={root.absolute()}"
    )
