"""`tableside keys`: makes, lists and revokes the keys with which callers are let in."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from tableside.access_keys import AccessKey, KeysFile, Scope, parse_duration
from tableside.cli import local_audit, render
from tableside.deployment import running_stack
from tableside.settings import Settings, load


def _file(settings: Settings) -> KeysFile:
    """The keys file of the stack that runs, wherever it was started; without one, that of the settings here."""
    stack = running_stack.find(settings)
    path = Path(stack.folder, settings.server.keys_file) if stack and stack.folder else settings.keys_path
    return KeysFile(path.absolute(), settings.repository_path)


@click.group()
def keys() -> None:
    """Make, list and revoke keys for callers, Prometheus and operators."""


@keys.command()
@click.argument("name")
@click.option(
    "--scope", required=True, type=click.Choice([scope.value for scope in Scope]), help="What it is good for."
)
@click.option("--expires", metavar="TIME", help="When it ends: 12h, 90d, 4w. Default: never.")
def add(name: str, scope: str, expires: str | None) -> None:
    """Make a key with the name NAME and print it, this once. A running stack takes it within a second."""
    settings = load()
    lifetime = parse_duration(expires) if expires else None
    file = _file(settings)
    with local_audit.recorded("keys add", name, is_model=False):
        token = file.add(name, Scope(scope), datetime.now(UTC), lifetime)
    click.echo(token)
    click.echo(
        f"made the key {name} in {file.path}. It is shown only now. Send it as the header 'Authorization: Bearer KEY'",
        err=True,
    )


@keys.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def list_keys(as_json: bool) -> None:
    """List the keys by name, with scope and dates. The keys themselves are not kept."""
    settings = load()
    now = datetime.now(UTC)
    file = _file(settings)
    rows = [_row(key, now) for key in file.read()]
    if as_json:
        render.as_json(rows)
    else:
        render.keys(rows, file.path)


def _row(key: AccessKey, now: datetime) -> render.Row:
    return {
        "name": key.name, "scope": key.scope.value, "created": key.created.isoformat(timespec="seconds"),
        "expires": key.expires.isoformat(timespec="seconds") if key.expires else "",
        "state": "expired" if key.has_expired(now) else "valid",
    }  # fmt: skip


@keys.command()
@click.argument("name")
def revoke(name: str) -> None:
    """Remove the key NAME. A running stack refuses it within a second."""
    settings = load()
    with local_audit.recorded("keys revoke", name, is_model=False):
        removed = _file(settings).revoke(name)
    click.echo(f"revoked the key {name} (scope {removed.scope})")
