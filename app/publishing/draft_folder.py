"""The draft folder of a publish: made beside the versions, filled, then renamed. A refused publish leaves nothing."""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tableside.contracts import schema
from tableside.contracts.schema import Contract
from tableside.errors import PublishFailed
from tableside.publishing import artifact_files
from tableside.repository import integrity, live_versions, paths, signatures, version_record
from tableside.repository.refusals import BreaksClients
from tableside.repository.signing_keys import Signer

STALE_S = 3600
"""A draft folder that is older than this was left behind by a publish that was killed."""


@dataclass(frozen=True)
class Terms:
    """What a new version may take. alias: the alias that will name it. breaking: also requests whose clients break."""

    alias: str | None = None
    breaking: bool = False


def check_repository(root: Path, name: str) -> None:
    """Raise PublishFailed unless a version of the model can be written below `root`, before any work is done.

    `root` itself is made at the first publish, but not the folders above it: a path with a mistake would go unnoticed.
    """
    for folder in (root, root / name):
        if folder.exists() and not folder.is_dir():
            raise PublishFailed(f"{folder} is a file, not a folder. Pass the model repository with --repository")
    if not root.exists() and not root.absolute().parent.is_dir():
        raise PublishFailed(
            f"the repository {root} does not exist, and neither does {root.absolute().parent}. Correct the path, or "
            f"make the folder: mkdir -p {root}"
        )
    existing = next(folder for folder in (root / name, root, root.absolute().parent) if folder.exists())
    if not os.access(existing, os.W_OK | os.X_OK):
        raise PublishFailed(
            f"{existing} cannot be written by this user, or is read-only. Publish as its owner, or pass another "
            "folder with --repository"
        )


@contextmanager
def draft_in(folder: Path) -> Iterator[Path]:
    """Make a draft in a model's folder, and remove it at the end unless it was renamed.

    Folders that were made for it are removed as well if they are empty then. Raises PublishFailed when the system
    refuses to write.
    """
    made = [each for each in (folder, folder.parent) if not each.exists()]
    draft = folder / f".publishing-{uuid.uuid4().hex}"
    try:
        draft.mkdir(parents=True)
        _remove_stale_drafts(folder)
        yield draft
    except OSError as problem:
        raise PublishFailed(f"{folder} cannot be written: {problem.strerror or problem}") from problem
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        for each in made:
            with suppress(OSError):  # it holds a version, or another publish's draft
                each.rmdir()


def _remove_stale_drafts(folder: Path) -> None:
    """Remove drafts that a killed publish left behind, once no running publish can still use them."""
    for draft in folder.glob(".publishing-*"):
        with suppress(OSError):
            if time.time() - draft.stat().st_mtime > STALE_S:
                shutil.rmtree(draft, ignore_errors=True)
    for deleted in folder.glob(".deleted-*"):  # a delete that was killed
        shutil.rmtree(deleted, ignore_errors=True)


def check_clients(root: Path, contract: Contract, version: int | None, terms: Terms) -> None:
    """Raise BreaksClients if the new version would take requests whose clients it breaks, unless that is admitted.

    contract: its input and outputs count. version: its number; None for the next one.
    """
    if terms.breaking:
        return
    name = contract.name
    number = version or version_record.next_number(root, name)
    moves = live_versions.moves_of_publish(root, name, contract, number, terms.alias)
    move = live_versions.first_breaking(moves)
    if move is None:
        return
    hold = (
        "Leave out the alias"
        if terms.alias and move.label in (terms.alias, live_versions.UNNAMED)
        else f"Hold these requests first, `tableside promote {name}/{move.old}`, and publish again"
    )
    raise BreaksClients(
        f"{live_versions.refusal(name, move)}. {hold}: then the version is published and takes none of them. If the "
        "clients are ready, add --breaking (in Python breaking=True, in a request breaking=true)"
    )


def rename_to_version(
    folder: Path, draft: Path, contract: Contract, version: int | None, signer: Signer | None = None, *,
    terms: Terms,
) -> Contract:  # fmt: skip
    """Rename the finished draft to its version number, and return the contract with that number.

    signer: the key that signs the version; it is signed before it has its name, so that no reload sees it unsigned.

    rename(2) fails when the target is a folder with files, so two publishers never get the same number. Without a
    `version`, the next number is tried then. The number is one that was never used (`version_record`).
    """
    root, name = folder.parent, folder.name
    if version is not None:
        refuse_used(root, name, version)
    while True:
        number = version or version_record.next_number(root, name)
        numbered = msgspec.structs.replace(contract, version=number)
        check_clients(root, numbered, number, terms)
        content = schema.encode(numbered)
        _replace(draft / paths.CONTRACT, content)
        _replace(draft / paths.CHECKSUMS, integrity.checksum_lines(numbered).encode())
        if signer is not None:
            statement = signatures.statement_of(draft, numbered, content)
            _replace(draft / paths.SIGNATURE, signatures.sign(statement, signer))
        artifact_files.make_read_only(draft)
        try:
            draft.rename(folder / str(number))
        except OSError as problem:
            if version is not None:
                raise PublishFailed(
                    f"{folder.name}/{number} is already published, and a version never changes. Use another number"
                ) from problem
            if not (folder / str(number) / paths.CONTRACT).is_file():
                raise PublishFailed(
                    f"{folder / str(number)} exists but is not a published version: {problem.strerror}. Move it away, "
                    "or publish with --version"
                ) from problem
            continue
        artifact_files.sync(folder)
        version_record.note(root, name, number)
        return numbered


def place(folder: Path, finished: Path, contract: Contract, terms: Terms) -> None:
    """Give a finished version that keeps its contract and number its place in the model's folder, in one step.

    finished: its folder, on the same disk. Raises PublishFailed if the number was published meanwhile, and
    BreaksClients.
    """
    check_clients(folder.parent, contract, contract.version, terms)
    artifact_files.make_read_only(finished)
    try:
        finished.rename(folder / str(contract.version))
    except OSError as problem:
        raise PublishFailed(
            f"{folder.name}/{contract.version} was published meanwhile, or cannot be written: {problem.strerror}"
        ) from problem
    artifact_files.sync(folder)
    version_record.note(folder.parent, folder.name, contract.version)


def refuse_used(root: Path, name: str, version: int) -> None:
    """Raise PublishFailed for a number that a version had which is not in the repository any more."""
    before = version_record.used(root, name, version)
    if before is None or version in paths.versions(root, name):
        return
    was = f"was deleted at {before.at}" if before.act == "deleted" else f"was {before.act} at {before.at} and removed"
    raise PublishFailed(
        f"{name}/{version} {was}. A number is never used twice, because clients and logs name it: leave out --version, "
        f"which gives {version_record.next_number(root, name)}, or give a number that was never used"
    )


def _replace(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)
    path.write_bytes(content)
