"""Changes of a model.toml by Tableside: they touch the keys they must, and nothing else of the operator's text."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager, suppress
from pathlib import Path

import tomlkit
import tomlkit.exceptions

from tableside.errors import ContractBroken
from tableside.process import plain_files
from tableside.process.file_locks import try_lock
from tableside.repository.model_toml import MAX_BYTES, ModelConfig, decode, read, text_of
from tableside.repository.paths import DEFAULT, MODEL_TOML

KEPT_HISTORY = 20
"""How many versions `history.default` keeps; older ones are forgotten."""


def set_alias(root: Path, name: str, alias: str, version: int) -> None:
    """Point an alias at a version. The rest of the file, with its comments, stays as it is.

    For `default`, the version that it named before is added to its history.
    Raises ContractBroken when the present file is not valid, OSError when it cannot be written.
    """
    with edit(root, name) as (document, before):
        point_alias(document, before, alias, version)


def point_alias(
    document: tomlkit.TOMLDocument, before: ModelConfig, alias: str, version: int, answered: int | None = None
) -> None:
    """Write an alias, and for `default` its history; its version is no canary and no shadow any more.

    before: the content of the file until now. answered: what answered without a version, if `default` named nothing.
    """
    aliases_in(document)[alias] = version
    if alias != DEFAULT:
        return
    end_trials(document, before, version)
    history, now = [*before.history.default], before.aliases.get(DEFAULT, answered)
    if now is not None and history[-1:] != [now]:
        history.append(now)
    if history[-1:] != [version]:
        history.append(version)
    set_history(document, history[-KEPT_HISTORY:] if len(history) > 1 else [])


def end_trials(document: tomlkit.TOMLDocument, before: ModelConfig, version: int) -> None:
    """Remove the tables `canary` and `shadow` that name a version."""
    for kind, tried in before.candidates.items():
        if tried == version:
            document.pop(kind, None)


def aliases_in(document: tomlkit.TOMLDocument) -> MutableMapping[str, object]:
    """Return the table of aliases of a file, which is made if it is not there."""
    if "aliases" not in document:
        document["aliases"] = tomlkit.table()
    aliases = document["aliases"]
    assert isinstance(aliases, MutableMapping)
    return aliases


def set_history(document: tomlkit.TOMLDocument, versions: list[int]) -> None:
    """Write the versions that `default` has named, the newest last; an empty list removes the table."""
    if not versions:
        document.pop("history", None)
        return
    if "history" not in document:
        table = tomlkit.table()
        table.comment("what `default` has named; `tableside rollback` goes back in it")
        document["history"] = table
    document["history"]["default"] = versions


def set_environment(root: Path, name: str, environment: str) -> None:
    """Make the model's versions run in an environment. The rest of the file, with its comments, stays as it is."""
    if read(root, name).environment != environment:
        with edit(root, name) as (document, _):
            document["environment"] = environment


def set_enabled(root: Path, name: str, enabled: bool) -> bool:
    """Set whether the model is served, and return whether that changed the file. Its comments stay as they are.

    Raises ContractBroken when the present file is not valid, OSError when it cannot be written.
    """
    if read(root, name).enabled is enabled:
        return False
    with edit(root, name) as (document, _):
        if enabled:
            document.pop("enabled", None)
        else:
            document["enabled"] = False
    return True


@contextmanager
def edit(
    root: Path, name: str, check: Callable[[ModelConfig, ModelConfig], None] | None = None
) -> Iterator[tuple[tomlkit.TOMLDocument, ModelConfig]]:
    """Give the text of a model's file for changes and its present content, and write the text at the end.

    The file is replaced at once and is on the disk then; a mistake, in it or in the change, leaves it as it is. A lock
    on the model's folder makes concurrent writers wait for each other, so that none overwrites another's change.
    check: is called with the content before and after, and raises if the change is not to be made.
    Raises ContractBroken when the present file or the changed one is not valid, OSError when it cannot be written.
    """
    path = root / name / MODEL_TOML
    with _lock(root / name):
        before = read(root, name)
        document = _parse(root, name) if path.exists() else tomlkit.document()
        yield document, before
        text = tomlkit.dumps(document).encode()
        if text != (text_of(root, name) or b""):
            after = decode(name, text)
            if check is not None:
                check(before, after)
            _replace(path, text)


def restore(root: Path, name: str, text: bytes | None, instead_of: bytes) -> bool:
    """Put back the text that a file had, None for no file, unless somebody has changed it since. Return whether it was.

    instead_of: the text that it must have now.
    """
    path = root / name / MODEL_TOML
    with _lock(root / name):
        if text_of(root, name) != instead_of:
            return False
        if text is None:
            path.unlink()
        else:
            _replace(path, text)
        return True


def _parse(root: Path, name: str) -> tomlkit.TOMLDocument:
    try:
        return tomlkit.parse(plain_files.read(root / name / MODEL_TOML, MAX_BYTES).decode())
    except (tomlkit.exceptions.TOMLKitError, UnicodeDecodeError) as problem:
        raise ContractBroken(f"{name}/{MODEL_TOML}: {problem}") from problem


def _replace(path: Path, text: bytes) -> None:
    temporary = path.with_name(f".{MODEL_TOML}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileNotFoundError):
            temporary.chmod(path.stat().st_mode & 0o777)
        temporary.replace(path)
    except OSError:  # a full disk: the file stays as it was
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    while (fd := try_lock(folder, os.O_RDONLY | os.O_CLOEXEC)) is None:
        time.sleep(0.005)
    try:
        yield
    finally:
        os.close(fd)
