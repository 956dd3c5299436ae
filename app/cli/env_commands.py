"""`tableside env`: makes, lists and checks the environments in which models may run."""

from __future__ import annotations

from pathlib import Path

import click

from tableside.cli import render, step_progress
from tableside.errors import ContractBroken
from tableside.settings import load


@click.group()
def env() -> None:
    """Make, list and check Python environments for models of other releases of scikit-learn."""


@env.command()
@click.argument("name")
@click.option(
    "-r", "--requirements", required=True, type=click.Path(path_type=Path),
    help="File of requirements for pip. One without hashes is resolved, and the result is written beside it.",
)  # fmt: skip
@click.option("--python", help="Interpreter to make the environment from. Default: the one that Tableside runs on.")
def create(name: str, requirements: Path, python: str | None) -> None:
    """Make the environment NAME from wheels whose hashes are checked.

    A running stack starts its model processes at once.
    """
    from tableside.deployment import instances, model_programs
    from tableside.deployment.running_stack import supervisor_pid
    from tableside.model_process import venvs

    settings = instances.settings_of_stack(load())
    with step_progress.progress() as step:
        made = venvs.create(settings, name, requirements, python or venvs.default_python(), step)
    if supervisor_pid(settings.run_dir):
        model_programs.update(settings)
    click.echo(f"made the environment {name}: {made}")
    click.echo(f'next: write environment = "{name}" into a model.toml, or `tableside publish --environment {name}`')


@env.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def list_environments(as_json: bool) -> None:
    """List the environments that models may name, with their versions of Python and scikit-learn."""
    from tableside.deployment import instances
    from tableside.model_process import known_environments

    settings = instances.settings_of_stack(load())
    rows: list[render.Row] = []
    for name, environment in known_environments.known(settings).items():
        row: render.Row = {
            "name": name, "python": environment.python, "versions": {}, "problem": "",
            "processes": known_environments.process_count(settings, environment),
        }  # fmt: skip
        try:
            row["versions"] = known_environments.installed(environment.python)
        except ContractBroken as problem:
            row["problem"] = str(problem)
        rows.append(row)
    if as_json:
        render.as_json(rows)
    else:
        render.environments(rows, settings.environments_path)


@env.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def check(name: str, as_json: bool) -> None:
    """Start a model process in the environment NAME and print what is installed there."""
    from tableside.deployment import instances
    from tableside.model_process import venvs

    found = venvs.check(instances.settings_of_stack(load()), name)
    if as_json:
        render.as_json(found)
    else:
        click.echo(f"ok  {name}: {', '.join(f'{package} {version}' for package, version in found.items())}")
