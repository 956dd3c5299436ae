"""The commands that take versions out of service: retire and delete."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from tableside.cli import release_steps, remote_commands
from tableside.cli.local_audit import audited
from tableside.cli.options import breaking_option, json_option, repository_option
from tableside.cli.release_steps import Place
from tableside.cli.reload import find_stack
from tableside.cli.remote_commands import at_server_change
from tableside.cli.stack_wait import workers_of


@click.command()
@click.argument("model")
@click.option("--undo", is_flag=True, help="Serve the version again.")
@breaking_option
@repository_option
@json_option
@at_server_change(remote_commands.retire)
@audited("retire", "model")
def retire(model: str, undo: bool, breaking: bool, repository: Path | None, as_json: bool) -> None:
    """Do not serve MODEL, which is NAME/VERSION, any more. Its files stay, and --undo serves it again.

    A version that an alias points at, or that answers requests without a version, is refused.
    """
    from tableside.repository import release_edits

    place = release_steps.find_place(repository)
    name, version = release_steps.find_version(place, model, "retire")
    if not undo:
        _refuse_in_use(place, name, version, "retire")
    edit = partial(release_edits.retire, place.root, name, version, undo=undo, breaking=breaking)
    what, targets = (f"{name}/{version}", [(name, version)]) if undo else (f"{name} without {version}", [])
    _, workers = release_steps.make(place, name, edit, what, targets)
    sentence = (
        f"{name}/{version} is served again"
        if undo
        else f"{name}/{version} is retired: its files stay. Back: `tableside retire {name}/{version} --undo`"
    )
    release_steps.report(place, as_json, workers, sentence, {"name": name, "version": version, "retired": not undo})


@click.command()
@click.argument("model")
@click.option("--yes", is_flag=True, help="Delete without a question.")
@repository_option
@json_option
@at_server_change(remote_commands.delete)
@audited("delete", "model")
def delete(model: str, yes: bool, repository: Path | None, as_json: bool) -> None:
    """Delete MODEL, which is NAME/VERSION, with its files. Its number is never used again.

    A version that an alias points at, or that answers requests without a version while others are there, is refused.
    """
    from tableside.repository import paths, release_edits

    place = release_steps.find_place(repository)
    name, version = release_steps.find_version(place, model, "delete")
    release_edits.check_unnamed(place.root, name, version, "delete")
    is_last = paths.versions(place.root, name) == [version]
    if not is_last:
        _refuse_in_use(place, name, version, "delete")
    _confirm(f"{name}/{version}" + (f", the last version of {name}," if is_last else ""), yes, place)
    edit = partial(release_edits.delete, place.root, name, version)
    what, failed = f"{name} without {version}", f"{name}/{version} is deleted, but"
    hidden, workers = release_steps.make(place, name, edit, what, failed=failed)
    release_edits.remove_folders([hidden])
    release_steps.report(
        place, as_json, workers, f"{name}/{version} is deleted, and its number is never used again",
        {"name": name, "version": version, "deleted": True},
    )  # fmt: skip


def _confirm(what: str, yes: bool, place: Place) -> None:
    import sys

    question = f"Delete {what} in {place.root}, with all its files?"
    if not yes and not (sys.stdin.isatty() and click.confirm(question, err=True)):
        release_steps.refuse(f"nothing is deleted. To delete {what} in {place.root}, add --yes")


def _refuse_in_use(place: Place, name: str, version: int, command: str) -> None:
    """Refuse a version that answers requests without a version, or under an alias whose new target is not ready."""
    from tableside.repository import model_toml
    from tableside.repository.paths import DEFAULT

    config = model_toml.read(place.root, name)
    if config.enabled and DEFAULT not in config.aliases and release_steps.answers_now(place, name) == version:
        release_steps.refuse(
            f"{name}/{version} is what requests without a version get. Promote another one first: `tableside promote "
            f"{name}/N`; then {command} it"
        )
    for worker in () if place.unfollowed else workers_of(find_stack(place.settings)):
        for alias, target in worker.aliases.get(name, {}).items():
            if target == version and config.aliases.get(alias, version) != version:
                release_steps.refuse(
                    f"{name}/{version} still answers under the alias {alias}, whose new target {name}/"
                    f"{config.aliases[alias]} is not ready. `tableside list` says why"
                )
