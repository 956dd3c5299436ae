"""The commands that give versions another name: copy and rename."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tableside.cli import release_steps
from tableside.cli.local_audit import audited
from tableside.cli.options import breaking_option, json_option, repository_option
from tableside.cli.release_steps import Place
from tableside.cli.reload import ReloadedWorker
from tableside.cli.stack_wait import not_served, wait_shown
from tableside.errors import StackError

if TYPE_CHECKING:
    from tableside.contracts.schema import Contract
    from tableside.repository.signing_keys import Signer

sign_option = click.option(
    "--sign", metavar="KEYFILE", type=click.Path(path_type=Path), help="Sign the copies with this key."
)


@click.command()
@click.argument("model")
@click.argument("to")
@breaking_option
@sign_option
@repository_option
@json_option
@audited("copy", "to")
def copy(model: str, to: str, breaking: bool, sign: Path | None, repository: Path | None, as_json: bool) -> None:
    """Copy MODEL as the model TO: NAME/VERSION as its next version, NAME with all versions and its model.toml."""
    from tableside.publishing import copies

    place = release_steps.find_place(repository)
    signer = _signer(place, sign)
    if "/" in model or "@" in model:
        name, version = release_steps.find_version(place, model, "copy")
        copied = partial(copies.copy_version, place.root, name, version, to, signer, breaking=breaking)
        made = [release_steps.written(copied)]
    else:
        name = release_steps.find_model(place, model)
        made = release_steps.written(lambda: copies.copy_model(place.root, name, to, signer))
    workers = _wait_for_copies(place, made)
    _report(place, as_json, workers, made, f"{model} is copied as")


@click.command()
@click.argument("name")
@click.argument("to")
@click.option("--yes", is_flag=True, help="Rename without a question: requests to the old name get 404 from then on.")
@sign_option
@repository_option
@json_option
@audited("rename", "name")
def rename(name: str, to: str, yes: bool, sign: Path | None, repository: Path | None, as_json: bool) -> None:
    """Give the model NAME the name TO: all versions with their numbers, and model.toml.

    The new name is served before the old one ends. Requests to the old name get 404 then.
    """
    from tableside.publishing import copies
    from tableside.repository import release_edits

    place = release_steps.find_place(repository)
    name = release_steps.find_model(place, name)
    signer = _signer(place, sign)
    if not yes:
        release_steps.refuse(
            f"nothing is renamed. Requests to {name!r} would get 404. Move the clients first (`tableside copy {name} "
            f"{to}` serves both names), or add --yes"
        )
    made = release_steps.written(lambda: copies.copy_model(place.root, name, to, signer))
    _wait_for_copies(place, made)
    hidden = release_steps.written(lambda: release_edits.delete_model(place.root, name))
    workers = _wait_gone(place, name)
    release_edits.remove_folders(hidden)
    _report(place, as_json, workers, made, f"{name} is renamed to")


def _signer(place: Place, sign: Path | None) -> Signer | None:
    """The key of `--sign`. Raises ReleaseRefused if the stack would not serve copies that are signed like this."""
    from tableside.repository import signing_keys

    signer = signing_keys.read(sign, place.root) if sign is not None else None
    trusted = place.settings.repository.trusted_keys
    if trusted and (signer is None or signer.public not in signing_keys.names_by_key(trusted)):
        release_steps.refuse(
            "a copy has another name, so the signature does not hold for it, and repository.trusted_keys asks for one. "
            "Add --sign KEYFILE with a key that it names"
        )
    return signer


def _wait_for_copies(place: Place, made: Sequence[Contract]) -> int:
    """Wait until every worker serves the copies, as far as model.toml selects them. If one does not, exit with 1."""
    from tableside.repository import model_toml, paths

    if place.unfollowed:
        return 0
    name = made[0].name
    wanted = model_toml.read(place.root, name).wanted(paths.versions(place.root, name))
    numbers = [contract.version for contract in made if contract.version in wanted]

    def objection(worker: ReloadedWorker) -> str:
        return next(filter(None, (not_served(worker, name, number) for number in numbers)), "")

    try:
        return wait_shown(place.settings, name, objection)
    except StackError as problem:
        click.echo(f"tableside: {name} is copied, but: {problem}", err=True)
        raise SystemExit(1) from None


def _wait_gone(place: Place, name: str) -> int:
    if place.unfollowed:
        return 0

    def objection(worker: ReloadedWorker) -> str:
        left = [model for model in worker.models if model.name == name]
        return f"worker {worker.pid} still serves {name}" if left else ""

    return wait_shown(place.settings, f"the repository without {name}", objection)


def _report(place: Place, as_json: bool, workers: int, made: Sequence[Contract], sentence: str) -> None:
    versions = [contract.version for contract in made]
    name = made[0].name
    release_steps.report(
        place, as_json, workers, f"{sentence} {', '.join(f'{name}/{version}' for version in versions)}",
        {"name": name, "versions": versions},
    )  # fmt: skip
