"""The `tableside` command. Commands import what they need when they run, so `tableside --help` is quick."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from tableside import __version__
from tableside.cli import client, logs, models, reload
from tableside.errors import TablesideError
from tableside.settings import load


class _Group(click.Group):
    """Turns our errors into one line and exit code 2."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except TablesideError as problem:
            click.echo(f"tableside: {problem}", err=True)
            ctx.exit(2)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="tableside %(version)s")
def main() -> None:
    """Publish scikit-learn models, serve them over HTTP, and look after what serves them."""


@main.command()
def run() -> None:
    """Start the stack in the foreground: supervisord, gunicorn and nginx."""
    from tableside.deployment.launch import run as start

    sys.exit(start(load()))


@main.command()
def stop() -> None:
    """End the stack of this run folder, and what a killed one left behind."""
    from tableside.deployment.launch import stop as end

    sys.exit(end(load()))


@main.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def config(as_json: bool) -> None:
    """Show the settings in force."""
    import msgspec

    settings = load()
    if as_json:
        click.echo(msgspec.json.encode(settings))
        return
    import tomlkit

    click.echo(tomlkit.dumps(msgspec.to_builtins(settings)), nl=False)


for command in (
    models.publish,
    models.list_models,
    models.show,
    models.verify,
    reload.reload,
    client.client,
    logs.logs,
):
    main.add_command(command)

if __name__ == "__main__":
    sys.path.insert(0, str(Path.cwd()))
    main()
