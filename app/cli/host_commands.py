"""The commands about a host: workers, audit, operations, drain and resume, of the stack here or of a server."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click

from tableside import durations, sizes
from tableside.cli import remote, remote_commands, render
from tableside.cli.options import json_option
from tableside.cli.reload import find_stack
from tableside.cli.remote import Remote, objects, remote_options
from tableside.cli.remote_commands import if_generation_option
from tableside.settings import load


def _server(to: str | None, key_file: Path | None) -> Remote:
    """The server at --to, else the stack of the run folder."""
    if to:
        return remote.of_url(to, key_file)
    settings = load()
    return remote.of_stack(settings, find_stack(settings))


@click.command()
@remote_options
@json_option
def workers(to: str | None, key_file: Path | None, as_json: bool) -> None:
    """List the workers: age, memory, requests in hand, how late the event loop is, and the generation."""
    content = _server(to, key_file).ask("GET", "workers", {"models": "false"}).or_raise()
    if as_json:
        render.as_json(content)
        return
    rows = [
        (
            each.get("pid"), each.get("instance"), _age(each.get("age_s")), _size(each.get("pss_bytes")),
            _known(each.get("in_flight")), _known(each.get("hub_lag_s"), " s"), each.get("generation"),
            "yes" if each.get("ready") else "no", each.get("failure") or "",
        )
        for each in objects(content.get("workers"))
    ]  # fmt: skip
    render.table(("pid", "instance", "age", "memory", "in flight", "lag", "generation", "ready", "problem"), rows)


@click.command()
@click.option("--limit", type=click.IntRange(1, 10_000), default=40, show_default=True, help="How many lines.")
@remote_options
@json_option
def audit(limit: int, to: str | None, key_file: Path | None, as_json: bool) -> None:
    """Show the newest lines of the audit log: who changed what, when, and how it ended."""
    content = _server(to, key_file).ask("GET", "audit", {"limit": str(limit)}).or_raise()
    if as_json:
        render.as_json(content)
        return
    rows = [
        (
            str(each.get("time", ""))[:19], each.get("key") or each.get("who", ""), each.get("event"),
            each.get("model") or each.get("name", ""), each.get("state"), _change_in_words(each),
        )
        for each in objects(content.get("lines"))
    ]  # fmt: skip
    render.table(("time", "who", "what", "model", "state", "change"), rows)


@click.command()
@click.option("--limit", type=click.IntRange(1, 200), default=20, show_default=True, help="How many operations.")
@remote_options
@json_option
def operations(limit: int, to: str | None, key_file: Path | None, as_json: bool) -> None:
    """List the newest long acts of the admin API, with their state and what stopped them."""
    content = _server(to, key_file).ask("GET", "operations", {"limit": str(limit)}).or_raise()
    if as_json:
        render.as_json(content)
        return
    rows = [
        (
            str(each.get("started_at", ""))[:19], each.get("id"), each.get("by"), each.get("kind"), each.get("model"),
            each.get("state"), each.get("error") or each.get("step") or "",
        )
        for each in objects(content.get("operations"))
    ]  # fmt: skip
    render.table(("started", "id", "who", "what", "model", "state", "note"), rows)


@click.command()
@remote_options
def drain(to: str | None, key_file: Path | None) -> None:
    """Take the host out of the traffic: readiness answers 503 until `tableside resume`, and requests are answered."""
    server = _server(to, key_file)
    content = server.ask("POST", "drain").or_raise()
    was = "was drained already" if content.get("was_drained") else "is drained: readiness answers 503"
    click.echo(f"{server.name} {was}. Back: `tableside resume`")


@click.command()
@remote_options
def resume(to: str | None, key_file: Path | None) -> None:
    """Put a drained host back into the traffic."""
    server = _server(to, key_file)
    content = server.ask("POST", "resume").or_raise()
    click.echo(f"{server.name} {'is back' if content.get('was_drained') else 'was not drained'}")


def change_enabled(action: str, to: str | None, given: Mapping[str, object]) -> None:
    """Load or unload a model in every worker. given: `name`, `key_file` and the options of a change."""
    key_file = given["key_file"]
    server = _server(to, key_file if isinstance(key_file, Path) else None)
    remote_commands.change(server, given, str(given["name"]), action, {})


@click.command("load")
@click.argument("name")
@if_generation_option
@remote_options
@json_option
def load_model(to: str | None, **given: object) -> None:
    """Serve the model NAME again after `unload`, and try again what of it could not be served."""
    change_enabled("load", to, given)


@click.command("unload")
@click.argument("name")
@if_generation_option
@remote_options
@json_option
def unload_model(to: str | None, **given: object) -> None:
    """Stop serving the model NAME in every worker, until it is loaded again. Its files and aliases stay."""
    change_enabled("unload", to, given)


def show_settings(to: str, key_file: Path | None, as_json: bool) -> None:
    """Print the settings in force on a server, each with its origin."""
    content = remote.of_url(to, key_file).ask("GET", "settings").or_raise()
    if as_json:
        render.as_json(content)
        return
    rows = [(each.get("name"), each.get("value"), each.get("origin")) for each in objects(content.get("settings"))]
    render.table(("setting", "value", "origin"), rows)


def _known(value: object, unit: str = "") -> str:
    return "-" if value is None else f"{value}{unit}"


def _size(value: object) -> str:
    return sizes.in_words(value) if isinstance(value, int) else "-"


def _age(value: object) -> str:
    return durations.as_clock(value) if isinstance(value, (int, float)) else "-"


def _change_in_words(line: Mapping[str, object]) -> str:
    before, after, reason = (str(line.get(name) or "") for name in ("before", "after", "reason"))
    change = f"{before} -> {after}" if before else after
    return ": ".join(filter(None, (change, reason or str(line.get("error") or ""))))
