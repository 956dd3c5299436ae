"""What decides which version of a model answers, as changes of its model.toml: aliases, rollback, retired versions.

Each function checks what must hold while it has the model's lock, so that no other command comes between. A change that
gives requests to a version that would break their clients is refused, unless `breaking` is true; a rollback is not.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path

import msgspec
import tomlkit

from tableside.nearest_names import did_you_mean, listed
from tableside.repository import live_versions, model_toml, paths, version_record
from tableside.repository.model_toml import ModelConfig
from tableside.repository.model_toml_edits import aliases_in, edit, end_trials, point_alias, set_history
from tableside.repository.paths import DEFAULT, MODEL_TOML
from tableside.repository.refusals import ReleaseRefused


class Change(msgspec.Struct, frozen=True):
    """A change of one model.toml. before, after: its bytes, None for no file. former: what an alias named before."""

    name: str
    former: int | None
    before: bytes | None
    after: bytes | None


def move_alias(
    root: Path, name: str, alias: str, version: int, answered: int | None = None, *, breaking: bool = False
) -> Change:
    """Point an alias at a version that exists and is not retired.

    answered: what answered without a version until now, if `default` names nothing: `rollback` goes back to it.
    Raises ReleaseRefused, PublishFailed for a name that is no alias, ContractBroken for a file that is not valid, and
    OSError when it cannot be written.
    """
    paths.check_alias(alias)
    text = model_toml.text_of(root, name)
    with edit(root, name, clients_check(root, name, breaking, answered)) as (document, before):
        check_target(root, name, version, before)
        former = before.aliases.get(alias)
        if former != version:
            point_alias(document, before, alias, version, answered)
        elif alias == DEFAULT:
            end_trials(document, before, version)
    return Change(name, former, text, model_toml.text_of(root, name))


def former_default(root: Path, name: str) -> tuple[int, int]:
    """Return what `default` names, and what it named before. Raises ReleaseRefused if there is no way back."""
    config, published = model_toml.read(root, name), paths.versions(root, name)
    now = config.aliases.get(DEFAULT)
    if now is None:
        raise ReleaseRefused(
            f"model {name!r} has no alias `default`, so its highest version that is ready answers, and nothing says "
            f"what came before. Choose a version: `tableside promote {name}/N`; it has {listed(map(str, published))}"
        )
    former = config.former_defaults(published)
    if not former:
        raise ReleaseRefused(
            f"`default` of model {name!r} has named nothing but {now} that still exists. Choose a version: `tableside "
            f"promote {name}/N`; it has {listed(map(str, published))}"
        )
    return now, former[0]


def roll_back(root: Path, name: str, version: int) -> Change:
    """Point `default` at the version that it named before, and cut its history to that one.

    version: what `former_default` has returned. Raises ReleaseRefused if another command has moved `default` since, and
    as `move_alias` does.
    """
    text = model_toml.text_of(root, name)
    with edit(root, name) as (document, before):
        check_target(root, name, version, before)
        history = [*before.history.default]
        now = before.aliases.get(DEFAULT)
        if history[-1:] == [now]:
            history.pop()
        while history and history[-1] != version:
            history.pop()
        if now is None or not history:
            raise ReleaseRefused(f"`default` of model {name!r} was moved by another command just now. Look, and repeat")
        aliases_in(document)[DEFAULT] = version
        end_trials(document, before, version)
        set_history(document, history if len(history) > 1 else [])
    return Change(name, now, text, model_toml.text_of(root, name))


def remove_alias(root: Path, name: str, alias: str, *, breaking: bool = False) -> Change:
    """Remove an alias. Raises ReleaseRefused if there is none, and as `move_alias` does."""
    text = model_toml.text_of(root, name)
    with edit(root, name, clients_check(root, name, breaking)) as (document, before):
        if alias not in before.aliases:
            raise ReleaseRefused(
                f"model {name!r} has no alias {alias!r}.{did_you_mean(alias, before.aliases)} It has: "
                f"{listed(sorted(before.aliases))}"
            )
        aliases = aliases_in(document)
        del aliases[alias]
        if not aliases:
            document.pop("aliases")
    return Change(name, before.aliases[alias], text, model_toml.text_of(root, name))


def retire(root: Path, name: str, version: int, *, undo: bool = False, breaking: bool = False) -> Change:
    """Do not serve a version any more, and keep its files; undo: serve it again.

    Raises ReleaseRefused if an alias points at it or it is a canary or shadow, and as `move_alias` does.
    """
    text = model_toml.text_of(root, name)
    with edit(root, name, clients_check(root, name, breaking)) as (document, before):
        if undo and version not in before.retired:
            raise ReleaseRefused(f"{name}/{version} is not retired; retired are {listed(map(str, before.retired))}")
        if not undo:
            _check_unnamed(name, version, before, "retire")
        retired = [each for each in before.retired if each != version] + ([] if undo else [version])
        _set_retired(document, retired)
    return Change(name, None, text, model_toml.text_of(root, name))


def delete(root: Path, name: str, version: int) -> Path:
    """Take a version out of the repository, and record that its number is used. Return its folder, to be removed.

    Raises ReleaseRefused if an alias points at it or it is a canary or shadow, and as `move_alias` does.
    """
    folder = paths.version_folder(root, name, version)
    hidden = folder.with_name(f".deleted-{version}-{uuid.uuid4().hex}")
    with edit(root, name) as (document, before):
        _check_unnamed(name, version, before, "delete")
        _hide(root, name, version, hidden)
        set_history(document, [each for each in before.history.default if each != version])
        _set_retired(document, [each for each in before.retired if each != version])
    return hidden


def delete_model(root: Path, name: str) -> list[Path]:
    """Take every version of a model and its model.toml out of the repository. The record of its numbers stays.

    Returns the folders, to be removed. Raises OSError when the repository cannot be written.
    """
    hidden = []
    with edit(root, name):
        for version in paths.versions(root, name):
            hidden.append(root / name / f".deleted-{version}-{uuid.uuid4().hex}")
            _hide(root, name, version, hidden[-1])
    (root / name / MODEL_TOML).unlink(missing_ok=True)
    return hidden


def remove_folders(folders: Collection[Path]) -> None:
    """Remove the files of deleted versions. What cannot be removed stays as a hidden folder, which is not served."""
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def check_unnamed(root: Path, name: str, version: int, command: str) -> None:
    """Raise ReleaseRefused if an alias points at the version, or it is tried. command: what is to be done with it."""
    _check_unnamed(name, version, model_toml.read(root, name), command)


def clients_check(
    root: Path, name: str, breaking: bool, answered: int | None = None
) -> Callable[[ModelConfig, ModelConfig], None] | None:
    """Return what `edit` calls to refuse a change that breaks clients; None if `breaking` allows it."""
    return None if breaking else partial(live_versions.refuse_edit, root, name, answered)


def _hide(root: Path, name: str, version: int, hidden: Path) -> None:
    version_record.append(root, name, [version_record.entry(root, name, version, "deleted")])
    paths.version_folder(root, name, version).rename(hidden)


def check_target(root: Path, name: str, version: int, before: ModelConfig) -> None:
    """Raise ReleaseRefused unless the version exists and is not retired."""
    published = paths.versions(root, name)
    if version not in published:
        raise ReleaseRefused(f"model {name!r} has no version {version}; it has {listed(map(str, published))}")
    if version in before.retired:
        raise ReleaseRefused(
            f"{name}/{version} is retired. Serve it again first: `tableside retire {name}/{version} --undo`"
        )


def _check_unnamed(name: str, version: int, before: ModelConfig, command: str) -> None:
    pointing = [alias for alias, target in before.aliases.items() if target == version]
    if pointing:
        first = pointing[0]
        move = f"`tableside promote {name}/N`" if first == DEFAULT else f"`tableside alias {name} {first} N`"
        raise ReleaseRefused(
            f"{name}/{version} is what the alias {' and '.join(pointing)} points at. Move it first with {move}, or "
            f"remove it: `tableside alias {name} {first} --remove`; then {command} it"
        )
    for kind, tried in before.candidates.items():
        if tried == version:
            words = f"traffic {name}" if kind == "canary" else f"shadow {name}"
            raise ReleaseRefused(
                f"{name}/{version} is the {kind} of {name}. End that first: `tableside {words} --stop`; then "
                f"{command} it"
            )


def _set_retired(document: tomlkit.TOMLDocument, retired: list[int]) -> None:
    if retired:
        document["retired"] = sorted(retired)
    else:
        document.pop("retired", None)
