"""`tableside restart`: makes the running stack go on with the code and settings on the disk, or in another release."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import click
import msgspec

from tableside.cli.release_check import MODULE, Report
from tableside.deployment import instances, keeper_socket, releases, running_stack, socket_holder
from tableside.deployment.keeper_socket import Request
from tableside.deployment.releases import Release
from tableside.errors import StackError
from tableside.process import worker_slots
from tableside.settings import Settings, load

HOLDER_TIMEOUT_S = 2.0


@click.command()
@click.option(
    "--release",
    "folder",
    type=click.Path(path_type=Path),
    help="Folder of the release to go on in, with its own .venv. Default: the one that runs, as it is on the disk now.",
)
def restart(folder: Path | None) -> None:
    """Replace the workers of the running stack without a gap, and wait until the new ones serve.

    The exit code is 1 if they do not come up; the earlier ones go on serving then.
    """
    settings = load()
    if running_stack.find(settings) is None:
        raise StackError(f"no stack runs in {settings.run_dir}: start it with `tableside run`")
    _check_holders(settings)
    release = releases.in_folder(folder) if folder is not None else None
    newest = next(reversed(instances.find(settings.run_dir).values()), None)
    checked = release or (newest.flipped_release if newest else None)
    if checked is not None:
        problems = refusals(settings, checked)
        if problems:
            for problem in problems:
                click.echo(f"tableside: {problem}", err=True)
            raise SystemExit(1)
    for update in keeper_socket.ask(settings.run_dir, Request(release)):
        if update.done and not update.ok:
            click.echo(f"tableside: {update.text}. What served before goes on serving; see log/web.log", err=True)
            raise SystemExit(1)
        click.echo(update.text, err=not update.done)


def _check_holders(settings: Settings) -> None:
    """Raise StackError if no socket holder answers: new workers would have no sockets to listen on."""
    try:
        descriptors = socket_holder.fetch(settings.run_dir, HOLDER_TIMEOUT_S)
    except TimeoutError as problem:
        raise StackError(
            f"no socket holder runs in {settings.run_dir}, so new workers would get no sockets. Start them with "
            "`supervisorctl -c supervisord.conf start 'sockets:*'`"
        ) from problem
    for descriptor in descriptors.values():
        os.close(descriptor)


def refusals(settings: Settings, release: Release) -> list[str]:
    """Return why the running stack cannot go on in this release. Raises StackError if its code does not run at all."""
    found = msgspec.json.decode(releases.run(release, ["-m", MODULE], _environ_of_stack(settings)), type=Report)
    problems = [
        f"{release.project}: its settings say {name} = {value}, but the stack runs with {running}. Correct "
        "tableside.toml there, or stop the stack and start the release with `tableside run`"
        for name, value, running in _differences(settings, found)
    ]
    served = _served(settings)
    refused = [each for each in found.refused if (each.name, each.version) in served]
    if refused:
        named = "; ".join(f"{each.name}/{each.version}: {each.reason}" for each in refused)
        problems.append(
            f"{release.project} cannot serve {len(refused)} of the versions that are served now. {named}. Publish them "
            "again with that release, or name an environment for them in model.toml (docs/guide/environments.md)"
        )
    return problems


def _environ_of_stack(settings: Settings) -> dict[str, str]:
    return {
        **os.environ,
        "TABLESIDE__SERVER__RUN_DIR": str(settings.run_dir),
        "TABLESIDE__REPOSITORY__PATH": str(_stack_repository(settings)),
    }


def _stack_repository(settings: Settings) -> Path:
    stack = running_stack.find(settings)
    return Path(stack.repository) if stack else settings.repository_path


def _differences(settings: Settings, found: Report) -> Sequence[tuple[str, str, str]]:
    """The settings that only a new start can change: name, value in the release, value of the running stack."""
    stack = running_stack.find(settings) or running_stack.of_settings(settings)
    pairs = (
        ("server.listen", found.listen, stack.listen),
        ("server.admin_listen", found.admin_listen, stack.admin_listen),
    )
    return [each for each in pairs if each[1] != each[2]]


def _served(settings: Settings) -> set[tuple[str, int]]:
    """The versions that a worker serves now."""
    from tableside.serving.lifecycle import State
    from tableside.serving.version_status import read_statuses

    statuses = read_statuses(worker_slots.statuses(settings.run_dir / "worker_slots"))
    return {(each.name, each.version) for each in statuses if each.state is State.READY}
