"""`tableside sign` and `tableside signing-key`, and what other commands say about signatures."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import click

from tableside.access_keys import check_name
from tableside.cli import render
from tableside.cli.options import repository_option, repository_path
from tableside.contracts.schema import Contract
from tableside.errors import ContractBroken, KeysFailed, PublishFailed
from tableside.settings import Settings, load

_SHORT = 16
"""Characters of a key without a name that a table shows: `ed25519:` and eight more."""


@click.command("signing-key")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--name", default="", help="Whose key it is, for the line that is printed.")
@click.option("--public", is_flag=True, help="Make no key; print the public key of FILE.")
def signing_key(file: Path, name: str, public: bool) -> None:
    """Make a private key in the new file FILE, and print its public key: a line for repository.trusted_keys."""
    from tableside.repository import signing_keys

    root = load().repository_path
    if name:
        check_name(name)
    key = signing_keys.read(file, root).public if public else signing_keys.make(file, root)
    line = f"{name}={key}" if name else key
    click.echo(line)
    if not public:
        click.echo(
            f"made the private key {file}: whoever reads it can sign versions. Servers need the public key only: "
            f'trusted_keys = ["{line}"] below [repository] in tableside.toml',
            err=True,
        )


@click.command()
@click.argument("model", nargs=-1)
@click.option("--key", required=True, metavar="KEYFILE", type=click.Path(path_type=Path), help="The private key.")
@click.option("--all", "everything", is_flag=True, help="Sign every version in the repository.")
@click.option("--replace", is_flag=True, help="Replace a signature that does not hold for the files as they are.")
@repository_option
def sign(model: tuple[str, ...], key: Path, everything: bool, replace: bool, repository: Path | None) -> None:
    """Sign published versions as they are: MODEL is NAME, NAME/VERSION or NAME@ALIAS, and there may be several.

    A signature says that you answer for the version. Sign only what you know the origin of. The exit code is 1 if a
    version of several could not be signed.
    """
    from tableside.publishing.version_signing import sign_version
    from tableside.repository import signing_keys

    settings = load()
    root = repository_path(repository, settings)
    wanted = _wanted(model, root, everything)
    signer = signing_keys.read(key, root)
    failures = 0
    for name, number in wanted:
        try:
            is_new = sign_version(root, name, number, signer, replace=replace)
        except (ContractBroken, KeysFailed) as problem:
            if len(wanted) == 1:
                raise
            failures += 1
            click.echo(f"tableside: {name}/{number}: {problem}", err=True)
            continue
        click.echo(f"signed {name}/{number}" if is_new else f"{name}/{number} is signed by this key already")
    names = signing_keys.names_by_key(settings.repository.trusted_keys)
    if names and signer.public not in names:
        click.echo(f"note: repository.trusted_keys does not name this key: {signer.public}", err=True)
    click.echo("next: `tableside reload`", err=True)
    if failures:
        raise SystemExit(1)


def _wanted(models: tuple[str, ...], root: Path, everything: bool) -> list[tuple[str, int]]:
    """Return the versions that are meant. Raises KeysFailed if none is."""
    from tableside.cli.models import find
    from tableside.repository import paths

    if everything == bool(models):
        raise KeysFailed("name the versions to sign, `tableside sign NAME/VERSION --key KEYFILE`, or --all")
    if everything:
        return [(name, number) for name in paths.models(root) for number in paths.versions(root, name)]
    return [find(model, root)[1:] for model in models]


def check_before_waiting(key_files: Iterable[Path | None], root: Path, settings: Settings) -> None:
    """Raise PublishFailed if the stack would not serve what is signed with one of these keys, None for no signature."""
    from tableside.repository import signing_keys

    names = signing_keys.names_by_key(settings.repository.trusted_keys)
    for file in set(key_files) if names else ():
        if file is None:
            raise PublishFailed(
                "--reload would wait for a version that is not served: repository.trusted_keys asks for a signature. "
                "Add --sign KEYFILE, or leave out --reload"
            )
        if signing_keys.read(file, root).public not in names:
            raise PublishFailed(
                f"--reload would wait for a version that is not served: repository.trusted_keys does not name {file}. "
                "Add its public key there and restart, or sign with another key"
            )


def notes(contract: Contract, root: Path, settings: Settings) -> list[str]:
    """Return what the user of `publish` should know about the signature of a new version."""
    from tableside.repository import integrity, paths, signatures

    number, folder = contract.version, paths.version_folder(root, contract.name, contract.version)
    content = integrity.read_with_bytes(root, contract.name, number)[1]
    trusted_keys = settings.repository.trusted_keys
    try:
        if trusted_keys:
            signatures.check(folder, contract, content, trusted_keys)
    except ContractBroken as problem:
        return [f"it will not be served: {problem}"]
    signer = signatures.standing(folder, contract, content, trusted_keys).signer
    return [f"signed by {signer}"] if signer else []


def row(root: Path, contract: Contract, content: bytes, settings: Settings) -> render.Row:
    """Return what `list` says of a version's signature.

    signed_by: who has signed it, or that it does not hold. content: the bytes of its contract.
    """
    from tableside.repository import paths, signatures

    folder = paths.version_folder(root, contract.name, contract.version)
    found = signatures.standing(folder, contract, content, settings.repository.trusted_keys)
    shown = found.signer if found.is_trusted or len(found.signer) <= _SHORT else f"{found.signer[:_SHORT]}..."
    return {
        "signed_by": "(does not hold)" if found.problem else shown,
        "signature": {"signer": found.signer, "is_trusted": found.is_trusted, "problem": found.problem},
    }


def in_words(root: Path, contract: Contract, content: bytes, settings: Settings) -> str:
    """Return in words who has signed a version, for `show`; empty if nobody has and nobody needs to."""
    from tableside.repository import paths, signatures

    trusted_keys = settings.repository.trusted_keys
    folder = paths.version_folder(root, contract.name, contract.version)
    found = signatures.standing(folder, contract, content, trusted_keys)
    if found.problem:
        return f"not valid: {found.problem}"
    if not found.signer:
        return "no, and repository.trusted_keys asks for it" if trusted_keys else ""
    if found.is_trusted:
        return f"by {found.signer}, whom repository.trusted_keys names"
    return f"by {found.signer}, whom repository.trusted_keys does not name"
