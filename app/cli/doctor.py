"""The command `doctor`: what does not fit together in the set-up of a stack."""

from __future__ import annotations

import sys

import click
import msgspec

from tableside.cli import render
from tableside.cli.options import json_option
from tableside.settings import load


@click.command()
@json_option
def doctor(as_json: bool) -> None:
    """Report what does not fit together in the set-up: settings, nginx, gunicorn, supervisor, kernel, files, models.

    If the stack runs, its own variables count in place of those of this shell.
    """
    from tableside.deployment import instances
    from tableside.deployment.doctor.diagnosis import diagnose
    from tableside.deployment.doctor.finding import Level

    found = diagnose(instances.settings_of_stack(load()))
    counts = {level: sum(each.level is level for each in found) for level in Level}
    if as_json:
        findings = [msgspec.to_builtins(each) for each in found]
        render.as_json({**{f"{level}s": count for level, count in counts.items()}, "findings": findings})
    else:
        for each in found:
            click.echo(f"{each.level.upper():8}{each.about}: {each.title}")
            click.echo(f"        found   {each.figures}")
            click.echo(f"        then    {each.consequence}")
            click.echo(f"        change  {each.change}\n")
        click.echo(", ".join(f"{count} {level}{'' if count == 1 else 's'}" for level, count in counts.items()))
    sys.exit(1 if counts[Level.ERROR] else 0)
