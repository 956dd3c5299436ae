"""`tableside logs`: the stack's log files as one readable stream."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from operator import itemgetter
from pathlib import Path
from typing import Any

import click
import orjson

from tableside.settings import load

POLL_S = 0.3
_FIRST = ("time", "level", "source", "event")
_READ_BACK = 8 << 20


@click.command()
@click.option("--run-dir", type=click.Path(path_type=Path), help="The run folder; default: server.run_dir.")
@click.option("-f", "--follow", is_flag=True, help="Go on as lines are written.")
@click.option(
    "-n", "--lines", default=50, show_default=True, type=click.IntRange(0), help="How many lines to begin with."
)
@click.option("--request-id", help="Only lines of this request.")
@click.option("--json", "as_json", is_flag=True, help="The lines as they are.")
def logs(run_dir: Path | None, follow: bool, lines: int, request_id: str | None, as_json: bool) -> None:
    """Show what the stack has logged, by time, as text."""
    folder = (run_dir or load().run_dir) / "log"
    files = sorted(folder.glob("*.log"))
    if not files:
        click.echo(f"tableside: no logs in {folder}", err=True)
        raise SystemExit(2)
    last = [pair for file in files for pair in _timed(_tail(file))]
    kept = [pair for pair in last if request_id is None or request_id in pair[1]]
    if request_id is not None and not kept:
        click.echo(f"tableside: no line of request {request_id} in {folder}", err=True)
    for _, line in sorted(kept, key=itemgetter(0))[-lines:] if lines else []:
        _write(line, as_json)
    if follow:
        for line in _follow(folder):
            if request_id is None or request_id in line:
                _write(line, as_json)


def _tail(file: Path) -> list[str]:
    with file.open("rb") as stream:
        stream.seek(max(0, file.stat().st_size - _READ_BACK))
        return [line.decode(errors="replace") for line in stream.read().splitlines() if line.strip()]


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        event = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return event if isinstance(event, dict) else None


def _timed(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Each line with its time; one without, of a traceback say, goes with the line before it."""
    time_of = ""
    for line in lines:
        found = _time_of(line)
        time_of = found if found[:4].isdecimal() else time_of
        yield time_of, line


def _time_of(line: str) -> str:
    event = _parsed(line)
    text = str(event.get("time", "")) if event else line.replace("/", "-", 2)
    return text[:26].replace(" ", "T")


def render(line: str) -> str:
    """A JSON line as text: time, level, source, event, then the rest; any other line as it is."""
    event = _parsed(line)
    if event is None:
        return line
    rest = " ".join(f"{key}={value}" for key, value in event.items() if key not in (*_FIRST, "exception"))
    text = f"{str(event.get('time', ''))[:23]:23} {event.get('level', 'info'):7} "
    text += f"{event.get('source', '-')}: {event.get('event', '')} {rest}".rstrip()
    return f"{text}\n{event['exception']}" if "exception" in event else text


def _write(line: str, as_json: bool) -> None:
    click.echo(line if as_json else render(line))


def _follow(folder: Path) -> Iterator[str]:
    """New lines of every file, for ever; a file that was rotated is begun anew."""
    at = {file: file.stat().st_size for file in folder.glob("*.log")}
    while True:
        for file in sorted(folder.glob("*.log")):
            size = file.stat().st_size
            start = at.get(file, 0)
            if size < start:
                start = 0
            if size > start:
                with file.open("rb") as stream:
                    stream.seek(start)
                    block = stream.read(size - start)
                whole = block.rfind(b"\n") + 1
                at[file] = start + whole
                yield from (line.decode(errors="replace") for line in block[:whole].splitlines() if line.strip())
        time.sleep(POLL_S)
