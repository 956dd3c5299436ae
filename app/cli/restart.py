"""`tableside restart`: makes the running stack go on with the code and settings on the disk, or in another release."""

from __future__ import annotations

import os
from pathlib import Path

import click
import msgspec

from tableside.cli import former_environment
from tableside.cli.release_check import MODULE, Report
from tableside.deployment import instances, keeper_socket, releases, running_stack, socket_holder
from tableside.deployment.instances import Instance
from tableside.deployment.keeper_socket import Request
from tableside.deployment.layout import supervisorctl
from tableside.deployment.releases import Release
from tableside.errors import StackError, TablesideError
from tableside.process import worker_slots
from tableside.server import head_limits
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
    newest = instances.newest(instances.find(settings.run_dir))
    if newest is None:
        if running_stack.find(settings) is not None:
            _check_holders(settings)
        raise StackError(f"no gunicorn runs in {settings.run_dir}: start the stack with `tableside run`")
    _check_holders(settings)
    release = releases.in_folder(folder) if folder is not None else newest.flipped_release
    if release is not None:
        release = _admitted(settings, release, newest)
    for update in keeper_socket.ask(settings.run_dir, Request(release)):
        if update.done and not update.ok:
            click.echo(f"tableside: {update.text}. What served before goes on serving; see log/web.log", err=True)
            raise SystemExit(1)
        click.echo(update.text, err=not update.done)
    _note_nginx(newest)


def _note_nginx(replaced: Instance) -> None:
    """Print a note if nginx, which a restart leaves alone, would get other settings now."""
    from tableside.deployment import nginx
    from tableside.deployment.doctor import drift

    if not head_limits.is_behind_nginx(replaced.environ):
        return
    try:
        settings = replaced.next_settings()
        files = {plane: settings.run_dir / name for plane, name in nginx.CONF.items()}
        changes = (drift.nginx_changes(settings, plane, file.read_text("utf-8")) for plane, file in files.items())
        change = next(filter(None, changes), "")
    except (OSError, ValueError, TablesideError):  # `tableside doctor` names what is wrong
        return
    if change and drift.is_of_this_release(settings.run_dir):
        click.echo(
            f"note: nginx still runs with earlier settings ({change}). To make it read the new ones: "
            f"`{supervisorctl(settings.run_dir, 'signal', 'HUP', 'nginx')}`",
            err=True,
        )


def _check_holders(settings: Settings) -> None:
    """Raise StackError if no socket holder answers: new workers would have no sockets to listen on."""
    try:
        descriptors = socket_holder.fetch(settings.run_dir, HOLDER_TIMEOUT_S)
    except TimeoutError as problem:
        raise StackError(
            f"no socket holder runs in {settings.run_dir}, so new workers would get no sockets. Start them with "
            f"`{supervisorctl(settings.run_dir, 'start', 'sockets:*')}`"
        ) from problem
    for descriptor in descriptors.values():
        os.close(descriptor)


def _admitted(settings: Settings, release: Release, newest: Instance) -> Release:
    """Return the release with what it needs to serve all that is served now.

    newest: what runs now. Raises StackError if the code of the release does not run, and SystemExit, after the versions
    are named, if it cannot serve some of them.
    """
    kept = releases.recorded(settings.run_dir)
    release = msgspec.structs.replace(release, variables=kept.variables if kept else {})
    found = msgspec.json.decode(releases.run(release, ["-m", MODULE], newest.environ), type=Report)
    served = _served(settings)
    moved = former_environment.movable(found.refused, served)
    refused = [each for each in found.refused if (each.name, each.version) in served and each.name not in moved]
    if refused:
        named = "; ".join(f"{each.name}/{each.version}: {each.reason}" for each in refused)
        click.echo(
            f"tableside: {release.project} cannot serve {len(refused)} of the versions that are served now. {named}. "
            "Publish them again with that release, or name an environment for them in model.toml "
            "(docs/guide/environments.md)",
            err=True,
        )
        raise SystemExit(1)
    if not moved:
        return release
    name, more = former_environment.variables(found, moved, newest.interpreter)
    click.echo(f"note: {', '.join(moved)}: go on in {newest.interpreter}, the environment {name}", err=True)
    return msgspec.structs.replace(release, variables={**release.variables, **more})


def _served(settings: Settings) -> set[tuple[str, int]]:
    """The versions that a worker serves now."""
    from tableside.serving.lifecycle import State
    from tableside.serving.version_status import read_statuses

    statuses = read_statuses(worker_slots.statuses(settings.run_dir / "worker_slots"))
    return {(each.name, each.version) for each in statuses if each.state is State.READY}
