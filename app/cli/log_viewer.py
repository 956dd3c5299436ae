"""`tableside logs`: merges the log files of the stack by time and prints them as text."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from operator import itemgetter
from pathlib import Path

import click
import orjson

from tableside.settings import load

POLL_S = 0.3
"""How often `--follow` looks for new lines."""

_FIRST = ("time", "level", "source", "event")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Control characters, line separators, and marks that change the direction of text."""
_PLAIN = re.compile(r'[^"=]*')
_READ_BACK_BYTES = 8 << 20
"""How much of the end of each file is read, so that a large log costs no more memory than this."""


@click.command()
@click.option("--run-dir", type=click.Path(path_type=Path), help="Run folder of the stack. Default: server.run_dir.")
@click.option("-f", "--follow", is_flag=True, help="Keep printing new lines as they are written.")
@click.option(
    "-n", "--lines", default=50, show_default=True, type=click.IntRange(0), help="Number of older lines to print first."
)
@click.option("--request-id", help="Print only lines that contain this request id.")
@click.option("--json", "as_json", is_flag=True, help="Print the lines unchanged.")
def logs(run_dir: Path | None, follow: bool, lines: int, request_id: str | None, as_json: bool) -> None:
    """Print the log lines of the stack in the order of their time."""
    folder = (run_dir or load().run_dir) / "log"
    files = sorted(folder.glob("*.log"))
    if not files:
        click.echo(f"tableside: no log files in {folder}: start the stack, or pass --run-dir", err=True)
        raise SystemExit(2)
    timed_lines = [timed_line for file in files for timed_line in _timed(_tail(file))]
    chosen = [timed_line for timed_line in timed_lines if request_id is None or request_id in timed_line[1]]
    if request_id is not None and not chosen:
        click.echo(f"tableside: no log line with request id {request_id} in {folder}", err=True)
    for _, line in sorted(chosen, key=itemgetter(0))[-lines:] if lines else []:
        _write(line, as_json)
    if follow:
        for line in _follow(folder):
            if request_id is None or request_id in line:
                _write(line, as_json)


def _tail(file: Path) -> list[str]:
    with file.open("rb") as stream:
        stream.seek(max(0, file.stat().st_size - _READ_BACK_BYTES))
        return [line.decode(errors="replace") for line in stream.read().splitlines() if line.strip()]


def _parsed(line: str) -> dict[str, object] | None:
    try:
        event = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return event if isinstance(event, dict) else None


def _timed(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield (time, line). A line without a time, such as a line of a traceback, gets the time of the line before it."""
    last_time = ""
    for line in lines:
        found = _time_of(line)
        last_time = found if found[:4].isdecimal() else last_time
        yield last_time, line


def _time_of(line: str) -> str:
    event = _parsed(line)
    text = str(event.get("time", "")) if event else line.replace("/", "-", 2)
    return text[:26].replace(" ", "T")


def render(line: str) -> str:
    """Return a JSON log line as text: time, level, source, event, then `key=value` for the other fields.

    An `exception` field follows on lines of its own. A line that is not a JSON object stays as it is. Control
    characters are escaped, because clients choose paths and request ids: what they send must not change a terminal or
    look like a second line.
    """
    event = _parsed(line)
    if event is None:
        return escape(line)
    rest = " ".join(f"{key}={_value(value)}" for key, value in event.items() if key not in (*_FIRST, "exception"))
    text = f"{str(event.get('time', ''))[:23]:23} {event.get('level', 'info'):7} "
    text = escape(text + f"{event.get('source', '-')}: {event.get('event', '')} {rest}".rstrip())
    if "exception" not in event:
        return text
    return "\n".join((text, *(escape(part) for part in str(event["exception"]).split("\n"))))


def escape(text: str) -> str:
    """Return the text with every character escaped that ends a line, moves the cursor or changes the direction."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def _value(value: object) -> str:
    """A field's value: in quotes if it could be read as more than one field."""
    text = str(value)
    return text if _PLAIN.fullmatch(text) or not isinstance(value, str) else orjson.dumps(text).decode()


def _write(line: str, as_json: bool) -> None:
    click.echo(escape(line) if as_json else render(line))


def _follow(folder: Path) -> Iterator[str]:
    """Yield new lines of every log file, without end. A file that became shorter is read from its start."""
    offsets = {file: file.stat().st_size for file in folder.glob("*.log")}
    while True:
        for file in sorted(folder.glob("*.log")):
            size = file.stat().st_size
            start = offsets.get(file, 0)
            if size < start:
                start = 0
            if size > start:
                with file.open("rb") as stream:
                    stream.seek(start)
                    block = stream.read(size - start)
                whole = block.rfind(b"\n") + 1
                offsets[file] = start + whole
                yield from (line.decode(errors="replace") for line in block[:whole].splitlines() if line.strip())
        time.sleep(POLL_S)
