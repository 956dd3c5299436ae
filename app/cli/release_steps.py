"""What the release commands share: whom a change concerns, what must hold before it, how it is made and reported."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn, TypeVar

import click
import msgspec

from tableside.cli import render, step_progress
from tableside.cli.options import repository_path
from tableside.cli.reload import find_stack
from tableside.cli.stack_wait import nobody_follows, not_served, say_loudly, workers_of
from tableside.errors import ModelNotReady, StackError
from tableside.repository.refusals import ReleaseRefused
from tableside.settings import Settings, load
from tableside.switch_errors import SwitchRefused

if TYPE_CHECKING:
    from tableside.repository.release_edits import Change

Made = TypeVar("Made")
LOG = "commands.log"
"""The log of the stack that has what commands on its host have changed."""


class Place(NamedTuple):
    """The repository that a command changes. unfollowed: why no running stack follows it; empty if one does."""

    settings: Settings
    root: Path
    unfollowed: str


def find_place(repository: Path | None) -> Place:
    """Return the repository of `--repository`, of the running stack or of the settings, and who follows it."""
    settings = load()
    root = repository_path(repository, settings)
    return Place(settings, root, nobody_follows(root, settings))


def refuse(sentence: str) -> NoReturn:
    """Raise ReleaseRefused."""
    raise ReleaseRefused(sentence)


def find_model(place: Place, name: str) -> str:
    """Return the name of a model that has a version. Raises ModelNotFound, with the nearest name."""
    from tableside.repository import paths

    if "/" in name or "@" in name:
        plain = paths.split_spec(name)[0]
        refuse(f"{name!r} names a version, and this command takes a model: {plain}")
    paths.find(place.root, name, {})
    return name


def find_version(place: Place, spec: str, command: str) -> tuple[str, int]:
    """Return the model and the version of NAME/VERSION or NAME@ALIAS. Raises ModelNotFound, with the nearest name.

    A plain name is refused: what it means is what such a command changes. `NAME/ALIAS` is taken too.
    """
    from tableside.repository import model_toml, paths

    name, wanted = paths.split_spec(spec)
    published = paths.versions(place.root, name)
    if wanted is None and published:
        refuse(
            f"say which version of {name!r}: `tableside {command} {name}/N`. It has {', '.join(map(str, published))}"
        )
    return name, paths.find(place.root, spec, model_toml.read(place.root, name).aliases)


def require_sound(place: Place, name: str, version: int) -> None:
    """Without a stack, require that a version can be loaded here and answers its golden rows.

    The workers of a running stack find that out themselves before they switch. Raises ReleaseRefused with the reason.
    """
    if not place.unfollowed:
        return
    from tableside.model_process.known_environments import known
    from tableside.preflight import runner
    from tableside.preflight.results import VersionFiles

    policy, wanted = place.settings.repository, [VersionFiles(name, version, None)]
    with step_progress.progress() as step:
        step(f"verifying {name}/{version}")
        results = [each for each in runner.run(place.root, wanted, policy, None, known(place.settings)) if each]
    for _, result in results:
        if result.failure_kind:
            refuse(f"{name}/{version} does not load: {result.reason}. Nothing has changed")


def answers_now(place: Place, name: str) -> int | None:
    """Return the version that answers without a version being named, if `default` names nothing.

    With a stack it is the highest that is READY in its workers, without one the highest that is published.
    """
    from tableside.repository import model_toml, paths

    published = model_toml.read(place.root, name).wanted(paths.versions(place.root, name))
    if not place.unfollowed:
        workers = workers_of(find_stack(place.settings))
        published = [each for each in published if all(not not_served(worker, name, each) for worker in workers)]
    return published[-1] if published else None


def written(make: Callable[[], Made]) -> Made:
    """Make a change of the repository. Raises ReleaseRefused where it cannot be written."""
    try:
        return make()
    except OSError as problem:
        where = f" ({problem.filename})" if problem.filename else ""
        refuse(
            f"the repository cannot be written{where}: {problem.strerror or problem}. Make room, or run the command as "
            "the owner of the folder"
        )


def make(
    place: Place, name: str, edit: Callable[[], Made], what: str, targets: Collection[tuple[str, int]] = (),
    failed: str = "not changed",
) -> tuple[Made, int]:  # fmt: skip
    """Edit the files of a model, and return what the edit returned when every worker of the stack serves what they say.

    It is the change that the admin API makes: one generation, of all workers or of none. The second value is the number
    of workers; 0 without a stack. what: the change in a sentence. targets: versions that must be served afterwards.
    If a worker cannot, model.toml is as before, `failed` is printed with the reason, and the exit status is 1. Raises
    what `edit` raises, and ReleaseRefused where the repository cannot be written.
    """
    if place.unfollowed:
        return written(edit), 0
    from tableside.deployment import log_rotation
    from tableside.serving import changes
    from tableside.telemetry import logs

    stack = find_stack(place.settings)
    repository = msgspec.structs.replace(place.settings.repository, path=stack.repository)
    settings = msgspec.structs.replace(place.settings, repository=repository)
    file = settings.run_dir / "log" / LOG
    log_rotation.rotate(file, settings.log.max_bytes, settings.log.keep_files)
    logs.append_to(file, settings.log.format, settings.log.level)
    try:
        if not workers_of(stack):
            raise StackError("no worker of the stack answers yet; `tableside workers` shows when one does")
        with step_progress.progress() as step:

            def edit_first() -> Made:
                made = edit()
                step(f"waiting until every worker serves {what}")
                return made

            applied = written(lambda: changes.apply(settings, name, edit_first, f"{what}, by a command", targets))
    except (StackError, SwitchRefused, ModelNotReady) as problem:
        click.echo(f"tableside: {failed}: {problem}", err=True)
        raise SystemExit(1) from None
    return applied.made, applied.outcome.workers


def notes_for_clients(place: Place, change: Change) -> list[str]:
    """Return in which way clients see a change of model.toml: a sentence for each alias that differs in its answers."""
    from tableside.repository import live_versions, model_toml

    before, after = (model_toml.decode(change.name, text or b"") for text in (change.before, change.after))
    return live_versions.in_words(change.name, live_versions.moves_of_edit(place.root, change.name, before, after))


def report(
    place: Place, as_json: bool, workers: int, sentence: str, row: render.Row, notes: Sequence[str] = ()
) -> None:
    """Print the result of a command, and loudly that no running stack follows the repository, if none does."""
    if as_json:
        render.as_json({**row, "notes": notes, "workers": workers, "unfollowed": place.unfollowed})
    else:
        click.echo(sentence + (f" ({workers} workers)" if workers else ""))
        for note in notes:
            click.echo(f"note: {note}")
    if place.unfollowed:
        say_loudly(place.unfollowed)
