"""Which lines `tableside logs` prints. All filters that are given must hold."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import unquote

import click

from tableside.cli.logs.lines import Head

Range = tuple[int, int]
Wanted = tuple[str, str]
"""A model and its version, which is empty for every version."""
_STATUS = re.compile(r"(\d{3})(?:-(\d{3}))?|([1-5])xx")
_SPAN = re.compile(r"(\d+(?:\.\d+)?)(ms|s|min|m|h|d|w)")
_SPAN_S = {"ms": 0.001, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 604800}
_PATH_OF_MODEL = re.compile(r"/models/([^/:?]+)(?:/versions/(\d+))?")
"""How the paths of V1 and V2 name a model. nginx knows no more of a request than its path."""


@dataclass(frozen=True)
class Filters:
    """What a line must have. since_s, until_s: seconds since 1970. slower_s: seconds that a request took at least."""

    statuses: tuple[Range, ...] = ()
    models: tuple[Wanted, ...] = ()
    level: int = 0
    sources: frozenset[str] = frozenset()
    since_s: float | None = None
    until_s: float | None = None
    slower_s: float | None = None
    request_id: bytes = b""

    def holds(self, head: Head, stem: str, line: bytes) -> bool:
        """Return whether an entry is to be printed. line: its first line. stem: the name of its file without `.log`."""
        return (
            head.level >= self.level
            and (self.since_s is None or head.at_s >= self.since_s)
            and (self.until_s is None or head.at_s < self.until_s)
            and self.request_id in line
            and (not self.sources or self._has_source(head, stem))
            and self._has_fields(head.event or {})
        )

    def _has_source(self, head: Head, stem: str) -> bool:
        of_line = str((head.event or {}).get("source", ""))
        return any(each in (stem, of_line) or stem.startswith(f"{each}-") for each in self.sources)

    def _has_fields(self, event: dict[str, object]) -> bool:
        status = event.get("status")
        if self.statuses and not (isinstance(status, int) and any(low <= status <= up for low, up in self.statuses)):
            return False
        if self.slower_s is not None and _took_s(event) < self.slower_s:
            return False
        return not self.models or _model_of(event) in self.models or (_model_of(event)[0], "") in self.models


def _took_s(event: dict[str, object]) -> float:
    """How long a request took: `ms` in the access log of the workers, `s` in nginx's. Negative for other lines."""
    for name, factor in (("ms", 0.001), ("s", 1.0)):
        value = event.get(name)
        if isinstance(value, (int, float)) and "status" in event:
            return value * factor
    return -1.0


def _model_of(event: dict[str, object]) -> Wanted:
    """The model and the version of a line, by its fields or else by its path."""
    if name := event.get("model"):
        model, _, version = str(name).partition("/")
        return model, str(event.get("version", version))
    found = _PATH_OF_MODEL.search(str(event.get("path", "")))
    return (unquote(found[1]), found[2] or "") if found else ("", "-")


def statuses(_: click.Context, __: click.Parameter, given: Sequence[str]) -> tuple[Range, ...]:
    """Read `--status`."""
    return tuple(_status(part) for text in given for part in text.split(","))


def _status(text: str) -> Range:
    found = _STATUS.fullmatch(text.strip().lower())
    if found is None:
        raise click.BadParameter(f"{text!r} is no status. Write 429, 5xx, 400-499, or several: 429,5xx")
    if found[3]:
        return int(found[3]) * 100, int(found[3]) * 100 + 99
    return int(found[1]), int(found[2] or found[1])


def models(_: click.Context, __: click.Parameter, given: Sequence[str]) -> tuple[Wanted, ...]:
    """Read `--model`."""
    return tuple(_model(part.strip()) for text in given for part in text.split(","))


def _model(text: str) -> Wanted:
    name, slash, version = text.partition("/")
    if not name or (slash and not version.isdecimal()):
        raise click.BadParameter(f"{text!r} is no model. Write wine, or wine/3 for one version")
    return name, version


def sources(_: click.Context, __: click.Parameter, given: Sequence[str]) -> frozenset[str]:
    """Read `--source`."""
    return frozenset(part.strip() for text in given for part in text.split(","))


def span(_: click.Context, __: click.Parameter, text: str | None) -> float | None:
    """Read `--slower`. Return seconds."""
    if text is None:
        return None
    found = _SPAN.fullmatch(text.strip())
    if found is None:
        raise click.BadParameter(f"{text!r} is no length of time. Write 100ms, 0.5s or 2m")
    return float(found[1]) * _SPAN_S[found[2]]


def moment(now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> Callable[..., float | None]:
    """Return what reads `--since` and `--until` into seconds since 1970."""

    def read(_: click.Context, __: click.Parameter, text: str | None) -> float | None:
        return None if text is None else _moment(text.strip(), now())

    return read


def _moment(text: str, now: datetime) -> float:
    """Read a time: a length of time before now, a time of today, a date, or both. Without an offset it is UTC."""
    if found := _SPAN.fullmatch(text):
        return (now - timedelta(seconds=float(found[1]) * _SPAN_S[found[2]])).timestamp()
    if re.fullmatch(r"\d\d:\d\d(:\d\d)?", text):
        text = f"{now:%Y-%m-%d}T{text}"
    try:
        found_time = datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is no time. Write 10m, 2h or 1d for so long ago, 14:30 for today, or {now:%Y-%m-%dT%H:%M}"
            " (UTC; +01:00 behind it for another zone)"
        ) from None
    return (found_time if found_time.tzinfo else found_time.replace(tzinfo=UTC)).timestamp()
