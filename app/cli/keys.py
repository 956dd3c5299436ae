"""`tableside keys`: makes, lists and revokes the keys with which callers are let in."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from tableside.access_keys import AccessKey, KeysFile, Scope, parse_duration
from tableside.cli import render
from tableside.settings import Settings, load


def _file(settings: Settings) -> KeysFile:
    return KeysFile(settings.keys_path, settings.repository_path)


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
    token = _file(settings).add(name, Scope(scope), datetime.now(UTC), lifetime)
    click.echo(token)
    click.echo(
        f"made the key {name} in {settings.keys_path}. It is shown only now. "
        "Send it as the header 'Authorization: Bearer KEY'",
        err=True,
    )


@keys.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def list_keys(as_json: bool) -> None:
    """List the keys by name, with scope and dates. The keys themselves are not kept."""
    settings = load()
    now = datetime.now(UTC)
    rows = [_row(key, now) for key in _file(settings).read()]
    if as_json:
        render.as_json(rows)
    else:
        render.keys(rows, settings.keys_path)


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
    removed = _file(settings).revoke(name)
    click.echo(f"revoked the key {name} (scope {removed.scope})")
