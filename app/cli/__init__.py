"""The `tableside` command line.

Each command imports scikit-learn, pandas, rich or the server only when it runs, so that `tableside --help` stays fast.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from tableside import __version__
from tableside.cli import (
    client,
    consent,
    contract,
    copying,
    diff,
    doctor,
    env_commands,
    host_commands,
    init,
    keys,
    models,
    promotion,
    publish_command,
    push,
    reload,
    removal,
    restart,
    signing,
    traffic,
)
from tableside.cli.logs import command as logs_command
from tableside.cli.remote import remote_options
from tableside.cli.top import command as top_command
from tableside.errors import TablesideError
from tableside.process.long_lived import few_collections
from tableside.settings import load


class _Group(click.Group):
    """A command group that reports a TablesideError, and a file of another user, as one line with exit code 2."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the chosen command. Return what it returns, which click ignores."""
        try:
            with few_collections():  # most commands end soon after their imports
                return super().invoke(ctx)
        except TablesideError as problem:
            click.echo(f"tableside: {' '.join(str(problem).splitlines())}", err=True)
            ctx.exit(2)
        except PermissionError as problem:
            if problem.filename is None:
                raise
            click.echo(
                f"tableside: {problem.filename}: this user may not use it. Run the command as its owner, or with sudo",
                err=True,
            )
            ctx.exit(2)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="tableside %(version)s")
def main() -> None:
    """Publish scikit-learn models, serve them over HTTP and operate the server."""


@main.command()
def run() -> None:
    """Start supervisord, gunicorn and nginx, and stay in the foreground."""
    from tableside.deployment.launch import run as start

    sys.exit(start(load()))


@main.command()
def stop() -> None:
    """Stop the stack of this run folder, including processes that a killed stack left running."""
    from tableside.deployment.stopping import stop as end

    sys.exit(end(load()))


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead.")
@remote_options
def config(as_json: bool, to: str | None, key_file: Path | None) -> None:
    """Print the settings that a start from this shell would have: defaults, tableside.toml and variables combined.

    With --to, those in force on a server, each with its origin.
    """
    if to:
        host_commands.show_settings(to, key_file, as_json)
        return
    import msgspec

    found = msgspec.to_builtins(load())
    if not found["repository"]["trusted_keys"]:
        del found["repository"]["trusted_keys"]  # an empty list is refused where settings are read
    if as_json:
        click.echo(msgspec.json.encode(found))
        return
    import tomlkit

    click.echo(tomlkit.dumps(found), nl=False)


for command in (
    init.init,
    publish_command.publish,
    push.push,
    contract.contract,
    models.list_models,
    models.show,
    models.verify,
    diff.diff,
    consent.consent,
    promotion.promote,
    promotion.rollback,
    promotion.alias,
    traffic.traffic,
    traffic.shadow,
    removal.retire,
    removal.delete,
    copying.copy,
    copying.rename,
    reload.reload,
    restart.restart,
    client.client,
    logs_command.logs,
    top_command.top,
    env_commands.env,
    keys.keys,
    host_commands.workers,
    host_commands.operations,
    host_commands.audit,
    host_commands.drain,
    host_commands.resume,
    host_commands.load_model,
    host_commands.unload_model,
    doctor.doctor,
    signing.sign,
    signing.signing_key,
):
    main.add_command(command)

if __name__ == "__main__":
    sys.path.insert(0, str(Path.cwd()))
    main()
