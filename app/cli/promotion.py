"""The commands that decide which version answers: promote, rollback and alias."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tableside.cli import release_steps, remote_commands
from tableside.cli.local_audit import audited
from tableside.cli.options import breaking_option, json_option, repository_option
from tableside.cli.release_steps import Place
from tableside.cli.remote_commands import at_server_change

if TYPE_CHECKING:
    from tableside.repository.release_edits import Change


@click.command()
@click.argument("model")
@click.option("--if-ready", is_flag=True, help="Only if it is tried as canary or shadow, and every rule holds.")
@breaking_option
@repository_option
@json_option
@at_server_change(remote_commands.promote)
@audited("promote", "model")
def promote(model: str, if_ready: bool, breaking: bool, repository: Path | None, as_json: bool) -> None:
    """Make MODEL, which is NAME/VERSION or NAME@ALIAS, answer the requests that name no version.

    The alias `default` is pointed at it when every worker of the running stack has loaded it; without a stack, it is
    loaded here and its golden rows are replayed. The command returns when every worker answers with it. A version
    that breaks the clients of the one that answers now is refused without --breaking. With --if-ready, the exit code is
    1 and nothing changes unless `tableside list` shows `ready to promote`.
    """
    from tableside.repository.paths import DEFAULT

    place = release_steps.find_place(repository)
    name, version = release_steps.find_version(place, model, "promote")
    if if_ready:
        _require_judgement(place, name, version)
    release_steps.require_sound(place, name, version)
    _move(place, name, DEFAULT, version, as_json, breaking=breaking)


@click.command()
@click.argument("name")
@repository_option
@json_option
@at_server_change(remote_commands.rollback)
@audited("rollback", "name")
def rollback(name: str, repository: Path | None, as_json: bool) -> None:
    """Point `default` of the model NAME back at the version that it named before.

    That version is kept loaded, so it answers at once. A second rollback goes one version further back.
    """
    from tableside.repository import release_edits
    from tableside.repository.paths import DEFAULT

    place = release_steps.find_place(repository)
    name = release_steps.find_model(place, name)
    _, version = release_edits.former_default(place.root, name)
    release_steps.require_sound(place, name, version)
    edit = partial(release_edits.roll_back, place.root, name, version)
    _finish(place, name, edit, DEFAULT, version, as_json, went_back=True)


@click.command()
@click.argument("name")
@click.argument("alias")
@click.argument("version", required=False)
@click.option("--remove", is_flag=True, help="Remove the alias.")
@breaking_option
@repository_option
@json_option
@at_server_change(remote_commands.alias)
@audited("alias", "name")
def alias(
    name: str, alias: str, version: str | None, remove: bool, breaking: bool, repository: Path | None, as_json: bool
) -> None:
    """Point ALIAS of the model NAME at VERSION, a number or another alias.

    All workers load the version first, if they have not, and then move the alias in the same moment.
    """
    from tableside.repository import paths, release_edits

    place = release_steps.find_place(repository)
    if remove == (version is not None):
        release_steps.refuse(f"give a version, or --remove: tableside alias {name} {alias} N")
    name = release_steps.find_model(place, name)
    if remove:
        removed = partial(release_edits.remove_alias, place.root, name, alias, breaking=breaking)
        _finish(place, name, removed, alias, None, as_json)
        return
    paths.check_alias(alias)
    _, number = release_steps.find_version(place, f"{name}/{version}", f"alias {name} {alias}")
    release_steps.require_sound(place, name, number)
    _move(place, name, alias, number, as_json, breaking=breaking)


def _require_judgement(place: Place, name: str, version: int) -> None:
    """Exit with 1 and the judgement unless a version that is tried is ready to be promoted."""
    from tableside.repository import model_toml
    from tableside.serving import traffic_report

    judgement = traffic_report.judgement_of(place.settings.run_dir, name, version, model_toml.read(place.root, name))
    if judgement is None:
        click.echo(
            f"tableside: not promoted: {name}/{version} is neither canary nor shadow, so nothing is compared. Begin "
            f"with `tableside shadow {name}/{version} --percent 20` or `tableside traffic {name} --canary {version} "
            "--percent 5`",
            err=True,
        )
        raise SystemExit(1)
    if not judgement.is_ready:
        click.echo(f"tableside: not promoted: {name}/{version} is {judgement.text}", err=True)
        raise SystemExit(1)


def _move(place: Place, name: str, alias: str, version: int, as_json: bool, *, breaking: bool) -> None:
    from tableside.repository import release_edits

    answered = release_steps.answers_now(place, name)
    moved = partial(release_edits.move_alias, place.root, name, alias, version, answered, breaking=breaking)
    _finish(place, name, moved, alias, version, as_json)


def _finish(
    place: Place, name: str, edit: Callable[[], Change], alias: str, version: int | None, as_json: bool, *,
    went_back: bool = False,
) -> None:  # fmt: skip
    """Move or remove an alias, and print what has changed. If a worker cannot, nothing changes, and exit with 1."""
    what = f"{name}@{alias} = {version}" if version is not None else f"{name} without the alias {alias}"
    targets = [(name, version)] if version is not None else []
    change, workers = release_steps.make(place, name, edit, what, targets)
    back = _back(place, change, alias, version, went_back)
    release_steps.report(
        place, as_json, workers, _sentence(change, alias, version, back),
        {"name": name, "alias": alias, "version": version, "before": change.former, "back": back},
        release_steps.notes_for_clients(place, change),
    )  # fmt: skip


def _back(place: Place, change: Change, alias: str, version: int | None, went_back: bool) -> str:
    """The command that takes a change back; an empty string if nothing has changed."""
    from tableside.repository import model_toml, paths

    name, former = change.name, change.former
    if former == version:
        return ""
    if went_back:
        return f"tableside promote {name}/{former}"
    if alias == paths.DEFAULT and version is not None:
        config = model_toml.decode(name, change.after or b"")
        if config.former_defaults(paths.versions(place.root, name)):
            return f"tableside rollback {name}"
    return f"tableside alias {name} {alias} {former if former is not None else '--remove'}"


def _sentence(change: Change, alias: str, version: int | None, back: str) -> str:
    """What has changed, and the command that takes it back."""
    name, former = change.name, change.former
    if version is None:
        return f"{name}: the alias {alias}, which named {former}, is removed. Back: `{back}`"
    if not back:
        return f"{name}: {alias} names {version} already"
    moved = f"{name}: {alias} names {version} now" + (f", and named {former} before" if former is not None else "")
    if alias == "default":
        moved += f". Requests without a version get {name}/{version}"
    return f"{moved}. Back: `{back}`"
