"""The command `tableside logs`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import click

from tableside.cli.logs import filters as reading_of
from tableside.cli.logs import following, reading
from tableside.cli.logs.files import LogFile, open_all
from tableside.cli.logs.files import logs as logs_of
from tableside.cli.logs.filters import Filters
from tableside.cli.logs.lines import LEVELS, write
from tableside.cli.logs.reading import Seen
from tableside.settings import load

LINES = 50
"""Lines that are printed if neither `-n` nor a time is given."""
READ_BACK_BYTES = 8 << 20
"""How much of the end of each log is read if no time is given. It keeps the command quick where nothing matches."""


@click.command()
@click.option("--run-dir", type=click.Path(path_type=Path), help="Run folder of the stack. Default: server.run_dir.")
@click.option("-f", "--follow", is_flag=True, help="Keep printing new lines as they are written.")
@click.option(
    "-n", "--lines", "count", type=click.IntRange(0), help="How many older lines. Default: 50; with a time: all."
)
@click.option("--since", callback=reading_of.moment(), help="From this time on: 10m, 14:30, 2026-11-27T02:00.")
@click.option("--until", callback=reading_of.moment(), help="Lines before this time.")
@click.option("--level", type=click.Choice(list(LEVELS)), help="Lines of this level and above.")
@click.option(
    "--status", multiple=True, callback=reading_of.statuses, help="Requests with this status: 429, 5xx, 400-499."
)
@click.option("--model", multiple=True, callback=reading_of.models, help="Lines about this model: wine, wine/3.")
@click.option(
    "--source",
    multiple=True,
    callback=reading_of.sources,
    help="Lines of this log: web, nginx, supervisord, commands, audit.",
)
@click.option("--slower", callback=reading_of.span, help="Requests that took at least so long: 100ms, 2s.")
@click.option("--request-id", help="Print only lines that contain this request id.")
@click.option("--json", "as_json", is_flag=True, help="Print the lines as they are in the files.")
def logs(
    run_dir: Path | None, follow: bool, count: int | None, since: float | None, until: float | None, level: str | None,
    status: tuple[reading_of.Range, ...], model: tuple[reading_of.Wanted, ...], source: frozenset[str],
    slower: float | None, request_id: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Print the log lines of the stack in the order of their time. Of several filters all must hold."""
    if follow and until is not None:
        raise click.UsageError("--until does not go together with --follow")
    if since is not None and until is not None and until <= since:
        raise click.UsageError("--until is not after --since")
    folder = (run_dir or load().run_dir) / "log"
    filters = Filters(
        status, model, LEVELS[level] if level else 0, source, since, until, slower, (request_id or "").encode()
    )
    has_time = since is not None or until is not None
    opened = [open_all(path, stem, older=True) for stem, path in logs_of(folder).items()]
    opened = [files for files in opened if files]
    if not opened:
        click.echo(f"tableside: no log files in {folder}: start the stack, or pass --run-dir", err=True)
        raise SystemExit(2)
    count = LINES if count is None and not has_time else count
    _print(opened, filters, count, None if has_time else READ_BACK_BYTES, as_json)
    if follow:
        for files in opened:
            for older in files[1:]:
                older.close()
        sys.stdout.flush()
        for line in following.follow(folder, {files[0].path: files[0] for files in opened}, filters):
            write(line, as_json)


def _print(
    opened: Sequence[Sequence[LogFile]], filters: Filters, count: int | None, most_bytes: int | None, as_json: bool
) -> None:
    """Print the lines that are there already, and say on standard error if none matches."""
    if count == 0:
        return
    seen, printed = Seen(), 0
    lines = (
        reading.every(opened, filters, seen)
        if count is None
        else reading.newest(opened, filters, count, most_bytes, seen)
    )
    for line in lines:
        write(line, as_json)
        printed += 1
    if not printed:
        is_partly_read = most_bytes is not None and any(
            sum(each.end for each in files) > most_bytes for files in opened
        )
        click.echo(f"tableside: {_nothing(seen, most_bytes if is_partly_read else None)}", err=True)


def _nothing(seen: Seen, most_bytes: int | None) -> str:
    """Say why nothing is printed. most_bytes: how much of each log was read, if there is more; else None."""
    if not seen.lines:
        return "there are no lines of this time"
    text = f"0 of {seen.lines} lines match"
    if seen.first_at_s < float("inf"):
        text += f"; the first line is of {datetime.fromtimestamp(seen.first_at_s, UTC):%Y-%m-%dT%H:%M:%SZ}"
    if most_bytes is not None:
        text += f". Only the last {most_bytes >> 20} MB of each log were read: --since reads further back"
    return text
