"""Copies of versions under another name or number: the files are the same, and the contract says the new name."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec

from tableside.contracts.schema import Contract
from tableside.publishing import draft_folder
from tableside.publishing.draft_folder import Terms
from tableside.repository import integrity, model_toml, model_toml_edits, paths, verified_files, version_record
from tableside.repository.paths import CHECKSUMS, CONTRACT, MODEL_TOML, SIGNATURE
from tableside.repository.refusals import ReleaseRefused
from tableside.repository.signing_keys import Signer


def copy_version(
    root: Path, name: str, version: int, to: str, signer: Signer | None = None, *, breaking: bool = False
) -> Contract:
    """Copy a version as the next version of the model `to`, and return its contract. It is checked before.

    A signature is of a name and a number, so the copy has none, or that of `signer`. A new model gets the environment
    of the old one. breaking: also if it takes requests whose clients it breaks.
    Raises ReleaseRefused, PublishFailed for a name or a folder that is not valid and for a copy that would break
    clients, and ContractBroken for a version that is damaged.
    """
    paths.check_name(to)
    draft_folder.check_repository(root, to)
    environment = model_toml.read(root, name).environment
    if paths.versions(root, to):
        theirs = model_toml.read(root, to).environment
        if theirs != environment:
            raise ReleaseRefused(
                f"{name}/{version} runs in {_place(environment)}, and the versions of {to!r} run in {_place(theirs)}. "
                "A model has one environment: copy it to another name"
            )
    contract = _checked(root, name, version)
    copied = _write(root, contract, to, None, signer, lambda: None, Terms(breaking=breaking))
    if environment:
        model_toml_edits.set_environment(root, to, environment)
    return copied


def copy_model(root: Path, name: str, to: str, signer: Signer | None = None) -> list[Contract]:
    """Copy every version of a model, with its numbers, and its model.toml, as the new model `to`.

    Raises ReleaseRefused if there is such a model, or was one; and as `copy_version` does, before anything is written.
    """
    paths.check_name(to)
    draft_folder.check_repository(root, to)
    if paths.versions(root, to) or version_record.read(root, to) or (root / to / MODEL_TOML).exists():
        raise ReleaseRefused(
            f"there is a model {to!r}, or was one, and a number is never used twice. Choose another name, or copy one "
            f"version: `tableside copy {name}/N {to}`"
        )
    contracts = [_checked(root, name, version) for version in paths.versions(root, name)]
    text = model_toml.text_of(root, name)

    def settings_first() -> None:
        """Write model.toml before the first version has its name, so that no version answers against it."""
        if text is not None and not (root / to / MODEL_TOML).exists():
            (root / to / MODEL_TOML).write_bytes(text)

    nobody_asks = Terms(breaking=True)
    return [_write(root, each, to, each.version, signer, settings_first, nobody_asks) for each in contracts]


def _checked(root: Path, name: str, version: int) -> Contract:
    contract = integrity.read_contract(root, name, version)
    integrity.check_artifact(root, contract)
    integrity.check_checksums(root, contract)
    if contract.code:
        verified_files.read_code(root, contract)
    return contract


def _write(
    root: Path, contract: Contract, to: str, version: int | None, signer: Signer | None, before: Callable[[], None],
    terms: Terms,
) -> Contract:  # fmt: skip
    source = paths.version_folder(root, contract.name, contract.version)
    with draft_folder.draft_in(root / to) as draft:
        for entry in source.iterdir():
            if entry.name in (CONTRACT, CHECKSUMS, SIGNATURE):
                continue  # written anew
            if entry.is_dir():
                shutil.copytree(entry, draft / entry.name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copyfile(entry, draft / entry.name)
        before()
        renamed = msgspec.structs.replace(contract, name=to)
        return draft_folder.rename_to_version(root / to, draft, renamed, version, signer, terms=terms)


def _place(environment: str) -> str:
    return f"the environment {environment!r}" if environment else "the workers"
