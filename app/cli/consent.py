"""`tableside consent`: shows the code that a version brings, and records that this host may run it."""

from __future__ import annotations

import sys
from collections.abc import Collection
from pathlib import Path

import click

from tableside.cli import render
from tableside.cli.local_audit import audited
from tableside.cli.options import json_option, repository_option, repository_path
from tableside.contracts.consent_digest import consent_digest, is_pickle, needs_consent
from tableside.contracts.schema import Contract
from tableside.errors import ContractBroken
from tableside.repository import consent_file, integrity, paths, verified_files
from tableside.settings import Settings, load


@click.command()
@click.argument("model", required=False)
@click.option("--text", is_flag=True, help="Print the text of every file of own code.")
@click.option("--yes", is_flag=True, help="Consent without a question.")
@click.option("--revoke", is_flag=True, help="Take back the consent to MODEL.")
@click.option("--list", "as_list", is_flag=True, help="List every version to which this host consents.")
@repository_option
@json_option
@audited("consent", "model", lambda given: not given["as_list"])
def consent(
    model: str | None, text: bool, yes: bool, revoke: bool, as_list: bool, repository: Path | None, as_json: bool
) -> None:
    """Consent to the own code or the pickle of MODEL, after showing what it is.

    MODEL is NAME, NAME/VERSION or NAME@ALIAS. The code runs in the server with all rights of the server, so consent
    only to what you would run yourself. `tableside publish` records the consent to what it publishes on this host.
    """
    settings = load()
    root = repository_path(repository, settings)
    path = Path(settings.repository.consent_file)
    if as_list or model is None:
        _list(path, as_json)
    elif revoke:
        _revoke(model, root, path)
    else:
        _consent(model, root, settings, text=text, yes=yes, as_json=as_json)


def notes(contract: Contract, path: Path, environment: str | None = None) -> list[str]:
    """Return what the user of `publish` should know about the consent to a version.

    environment: the one in which the model runs, as its model.toml says; None for the server's own.
    """
    if not needs_consent(contract):
        return []
    version, what = f"{contract.name}/{contract.version}", consent_file.what_it_brings(contract)
    if consent_file.is_granted(contract, path):
        said = [f"consent to {what} is recorded in {path}. Other hosts need `tableside consent {version}`"]
    else:
        said = [f"{path} cannot be written, so {what} waits for `tableside consent {version}`"]
    if is_pickle(contract) and environment is None:
        said.append(
            f'a pickle runs in a process of its own: write environment = "NAME" into models/{contract.name}/'
            "model.toml, and define NAME in tableside.toml: [environments.NAME]"
        )
    return said


def _list(path: Path, as_json: bool) -> None:
    entries = [*consent_file.granted(consent_file.read(path)).values()]
    if as_json:
        import msgspec

        render.as_json(msgspec.to_builtins(entries))
    else:
        render.consents(entries, path)


def _find(model: str, root: Path, trusted_keys: Collection[str] = ()) -> Contract:
    from tableside.repository import model_toml

    name, _ = paths.split_spec(model)
    number = paths.find(root, model, model_toml.read(root, name).aliases)
    return integrity.read_contract(root, name, number, trusted_keys)


def _consent(model: str, root: Path, settings: Settings, *, text: bool, yes: bool, as_json: bool) -> None:
    """Show what a version brings, ask, and record the answer.

    The digest that is recorded is that of the contract and of the bytes which are shown. A version that lacks a trusted
    signature is not asked about.
    """
    contract, path = _find(model, root, settings.repository.trusted_keys), Path(settings.repository.consent_file)
    version = f"{contract.name}/{contract.version}"
    if not needs_consent(contract):
        raise ContractBroken(f"{version} brings no code: its artifact is {contract.artifact.file}. It needs no consent")
    consent_file.check_place(path, root)
    integrity.check_artifact(root, contract)
    code = verified_files.read_code(root, contract)
    entry = consent_file.entry_of(contract, root, "consent")
    if as_json:
        import msgspec

        render.as_json(msgspec.to_builtins(entry))
    else:
        render.consent_question(contract, consent_digest(contract), code if text else {})
    if consent_file.is_granted(contract, path):
        click.echo(f"there is consent to {version} already, in {path}", err=as_json)
        return
    if not yes and not (sys.stdin.isatty() and click.confirm("Run this code in the server?", err=True)):
        raise ContractBroken(f"no consent recorded. To consent to {version}, add --yes")
    _append(path, entry)
    click.echo(f"recorded in {path}; next: `tableside reload`", err=as_json)


def _revoke(model: str, root: Path, path: Path) -> None:
    """Revoke every consent that was given to a version, also when it has left the repository."""
    name, number = paths.split_spec(model)
    if number is None or not number.isdigit():
        contract = _find(model, root)
        name, number = contract.name, str(contract.version)
    consented = consent_file.granted(consent_file.read(path)).values()
    about = [entry for entry in consented if (entry.name, str(entry.version)) == (name, number)]
    if not about:
        raise ContractBroken(f"there is no consent to {name}/{number} in {path}. `tableside consent --list` lists all")
    for entry in about:
        _append(path, consent_file.revoked(entry))
    click.echo(f"revoked the consent to {name}/{number} in {path}; next: `tableside reload`")


def _append(path: Path, entry: consent_file.Entry) -> None:
    try:
        consent_file.append(path, [entry])
    except OSError as problem:
        raise ContractBroken(f"repository.consent_file ({path}) cannot be written: {problem.strerror}") from problem
