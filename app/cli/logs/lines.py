"""Lines of a stack's logs: when each was written, how serious it is, and how it is printed."""

from __future__ import annotations

import logging
import math
import re
from datetime import UTC, datetime
from typing import NamedTuple

import click
import orjson

_FIRST = ("time", "level", "source", "event")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Control characters, line separators, and marks that change the direction of text."""
_PLAIN = re.compile(r'[^"=]*')
_TEXT_HEAD = re.compile(
    r"(\d{4})[-/](\d\d)[-/](\d\d)[ T](\d\d):(\d\d):(\d\d)(?:[,.](\d{3})\d*)?(Z?)\s+(?:\[([a-z]+)\s*\]|([A-Z]{4}) )"
)
"""Time and level at the start of a line of supervisord or nginx, whose time is the local one, and of a worker with
`log.format = "text"`, whose time is UTC and ends in Z. A line that a model prints may begin with a date, but has no
level.
"""
LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR,
          "critical": logging.CRITICAL}  # fmt: skip
"""The levels of `--level`, by their names."""
_OTHER_LEVELS = {
    "notice": logging.INFO, "warn": logging.WARNING, "crit": logging.CRITICAL, "alert": logging.CRITICAL,
    "emerg": logging.CRITICAL, "exception": logging.ERROR, "debg": logging.DEBUG, "erro": logging.ERROR,
    "trac": logging.DEBUG, "blat": logging.DEBUG,
}  # fmt: skip
"""The names that nginx (ngx_log.c) and supervisor (loggers.py) have for them."""


class Head(NamedTuple):
    """The first line of an entry. Lines without a time, such as those of a traceback, belong to the entry before them.

    at_s: seconds since 1970. event: the fields of a JSON line. level: a number of `logging`.
    """

    at_s: float
    event: dict[str, object] | None
    level: int


NO_HEAD = Head(-math.inf, None, logging.INFO)
"""What lines belong to that come before the first line with a time."""


def head_of(line: bytes) -> Head | None:
    """Read a line. None if it has no time, and so belongs to the line before it."""
    if line[:1] == b"{":
        event = parsed(line)
        at_s = _seconds(event.get("time")) if event is not None else None
        return None if at_s is None else Head(at_s, event, _level(str(event.get("level", "info")) if event else ""))
    found = _TEXT_HEAD.match(line[:100].decode(errors="replace"))
    if found is None:
        return None
    year, month, day, hour, minute, second = (int(each) for each in found.groups()[:6])
    try:
        at = datetime(year, month, day, hour, minute, second, tzinfo=UTC if found[8] else None)
    except ValueError:
        return None
    return Head(at.timestamp() + int(found[7] or 0) / 1000, None, _level(found[9] or found[10]))


def parsed(line: str | bytes) -> dict[str, object] | None:
    """Return the fields of a JSON line; None for another one.

    Bytes that are no UTF-8 become U+FFFD: nginx writes paths as clients have sent them.
    """
    try:
        event = orjson.loads(line)
    except orjson.JSONDecodeError:
        if not isinstance(line, bytes):
            return None
        text = line.decode(errors="replace")
        return parsed(text) if "\ufffd" in text else None
    return event if isinstance(event, dict) else None


def _seconds(time: object) -> float | None:
    if not isinstance(time, str):
        return None
    try:
        found = datetime.fromisoformat(time)
    except ValueError:
        return None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def _level(name: str) -> int:
    name = name.lower()
    return LEVELS.get(name) or _OTHER_LEVELS.get(name, logging.INFO)


def render(line: str) -> str:
    """Return a JSON log line as text: time, level, source, event, then `key=value` for the other fields.

    An `exception` field follows on lines of its own. A line that is not a JSON object stays as it is. Control
    characters are escaped, because clients choose paths and request ids: what they send must not change a terminal or
    look like a second line.
    """
    event = parsed(line)
    if event is None:
        return escape(line)
    rest = " ".join(f"{key}={_value(value)}" for key, value in event.items() if key not in (*_FIRST, "exception"))
    text = f"{_shown(event.get('time', '')):23} {str(event.get('level') or 'info'):7} "
    text = escape(text + f"{event.get('source', '-')}: {event.get('event', '')} {rest}".rstrip())
    if "exception" not in event:
        return text
    return "\n".join((text, *(escape(part) for part in str(event["exception"]).split("\n"))))


def _shown(time: object) -> str:
    """A time as UTC with milliseconds; what is no time stays as it is."""
    at_s = _seconds(time)
    if at_s is None:
        return str(time)[:23]
    return datetime.fromtimestamp(at_s, UTC).isoformat(timespec="milliseconds")[:23]


def escape(text: str) -> str:
    """Return the text with every character escaped that ends a line, moves the cursor or changes the direction."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def _escape_json(text: str) -> str:
    """As `escape`, by escapes that JSON has, so that the line stays the same JSON."""
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _value(value: object) -> str:
    """A field's value: in quotes if it could be read as more than one field."""
    text = str(value)
    return text if _PLAIN.fullmatch(text) or not isinstance(value, str) else orjson.dumps(text).decode()


def write(line: bytes, as_json: bool) -> None:
    """Print a line: as text, or as it is in the file, but with control characters escaped."""
    text = line.decode(errors="replace")
    click.echo(_escape_json(text) if as_json else render(text))
