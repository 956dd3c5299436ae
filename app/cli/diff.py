"""`tableside diff`: what changes from one version to another, for clients and in the answers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tableside.cli import diff_view, models, remote_commands, render, step_progress
from tableside.cli.options import json_option, repository_option
from tableside.cli.remote_commands import at_server
from tableside.settings import Settings, load

if TYPE_CHECKING:
    from tableside.comparison.report import AnswerComparison
    from tableside.repository.model_toml import ColumnConfig

Version = tuple[str, int]


@click.command()
@click.argument("old")
@click.argument("new")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Compare the answers to the rows of this file, .csv with a header line, .parquet or .jsonl, and not to the "
    "golden rows.",
)
@click.option("--contracts", is_flag=True, help="Compare the contracts only: load nothing.")
@repository_option
@json_option
@at_server(remote_commands.diff)
def diff(old: str, new: str, data: Path | None, contracts: bool, repository: Path | None, as_json: bool) -> None:
    """Compare the version OLD with NEW: what changes for clients, other answers to the same rows, and the time.

    OLD and NEW are NAME/VERSION or NAME@ALIAS. Both are loaded in a process of their own, as the server loads them. The
    exit status is 1 if NEW breaks clients of OLD, or if the answers cannot be compared.
    """
    import msgspec

    from tableside.comparison import report
    from tableside.repository import integrity

    settings = load()
    root, name, number = models.find(old, repository)
    was, now = (name, number), models.find(new, root)[1:]
    first, second = (integrity.read_contract(root, *each) for each in (was, now))
    found = report.compare_contracts(first, second, _columns(root, name))
    if not contracts:
        with step_progress.progress() as step:
            step(f"loading {found.old} and {found.new}, and asking them the same rows")
            found = msgspec.structs.replace(found, answers=_answers(root, was, now, data, settings))
    if as_json:
        render.as_json(msgspec.to_builtins(found))
    else:
        diff_view.show(found)
    if found.breaking or (found.answers is not None and found.answers.problem):
        raise SystemExit(1)


def _columns(root: Path, name: str) -> ColumnConfig:
    from tableside.repository import live_versions

    return live_versions.config_of(root, name).columns


def _answers(root: Path, old: Version, new: Version, data: Path | None, settings: Settings) -> AnswerComparison:
    from tableside.comparison import process
    from tableside.comparison.child import ComparisonJob
    from tableside.model_process.known_environments import known

    rows = str(data.absolute()) if data is not None else ""
    job = ComparisonJob(str(root.absolute()), old, new, settings.repository, os.getpid(), rows, dict(known(settings)))
    return process.compare(job)
