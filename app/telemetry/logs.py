"""Structured logs: one JSON line an event, to standard output; plain text where standard output is a terminal.

Other libraries' `logging` records leave through the same renderer. No value of a caller's data is ever logged.
"""

from __future__ import annotations

import atexit
import fcntl
import logging
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import orjson
import structlog
from structlog.typing import EventDict, WrappedLogger

CallLater = Callable[[Callable[[], None]], None]
"""Runs a function soon, on the caller's event loop. The function must not raise."""
Format = Literal["auto", "json", "text"]
_NUMBERS = logging.getLevelNamesMapping() | {k.lower(): v for k, v in logging.getLevelNamesMapping().items()}
PIPE_BYTES = 1 << 20
"""What may wait for supervisord to read it: a full pipe would stop the hub."""
_LINE = orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE


class _Stdout:
    """Standard output that cannot fail its caller. When its reader has died (a killed master's workers write to a pipe
    nobody reads), lines go on into `fallback`.
    """

    def __init__(self, fallback: Path | None) -> None:
        self._fallback = fallback

    def write(self, line: bytes) -> int:
        """Write the line, all of it, after those that wait; a log that cannot be written must not fail a prediction."""
        flush()
        self.send(line)
        return len(line)

    def send(self, line: bytes) -> None:
        """Write it before those that wait."""
        try:
            view = memoryview(line)
            while view:
                view = view[os.write(1, view) :]
        except OSError:
            self._turn_over(line)

    def _turn_over(self, line: bytes) -> None:
        if self._fallback is None:
            return
        try:
            fd = os.open(self._fallback, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            for standard in (1, 2):
                os.dup2(fd, standard)
            os.close(fd)
            os.write(1, line)
        except OSError:
            self._fallback = None

    def flush(self) -> None:
        """Nothing is held back."""


@dataclass
class _State:
    """What `configure` set, and the lines that wait to be written.

    out: where JSON lines go; None where they are text for a terminal.
    """

    level: int = logging.INFO
    out: _Stdout | None = None
    waiting: list[bytes] = field(default_factory=list)


_state = _State()


def flush() -> None:
    """Write the lines that wait. Done before any other line is written, and when the process ends."""
    waiting, _state.waiting = _state.waiting, []
    if waiting and _state.out is not None:
        _state.out.send(b"".join(waiting))


class _TextStdout(_Stdout):
    def write(self, line: str) -> int:  # type: ignore[override]
        return super().write(line.encode())


def _event_first(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    return {"event": event.pop("event", ""), **event}


def _shared() -> list[Any]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        _event_first,
    ]


def _json_text(event: EventDict, **_: Any) -> str:
    return orjson.dumps(event, default=str).decode()


def _is_text(style: Format) -> bool:
    return style == "text" or (style == "auto" and sys.stdout.isatty())


def _ending(style: Format, *, as_bytes: bool) -> list[Any]:
    """The processors that make the line: text for a terminal; else JSON, as bytes for our own lines."""
    if _is_text(style):
        return [
            structlog.dev.ConsoleRenderer(
                colors=sys.stdout.isatty(), timestamp_key="time", exception_formatter=structlog.dev.plain_traceback
            )
        ]
    serializer: Any = _json_bytes if as_bytes else _json_text
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(serializer=serializer)]


def _json_bytes(event: EventDict, **_: Any) -> bytes:
    return orjson.dumps(event, default=str)


def _name_source(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Records of other libraries bear the name of their logger."""
    event.setdefault("source", event["_record"].name)
    return event


def formatter(style: Format = "auto") -> logging.Formatter:
    """How the standard library's records are written: gunicorn's, and other libraries'."""
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[_name_source, *_shared()],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_ending(style, as_bytes=False)],
    )


def configure(style: Format = "auto", level: str = "info", fallback: Path | None = None) -> None:
    """Set up structlog and the standard library's root logger. Safe to call again.

    fallback: the file that takes the lines when standard output is gone.
    """
    number = _NUMBERS[level]
    flush()
    atexit.unregister(flush)
    atexit.register(flush)
    with suppress(OSError):  # standard output is no pipe, or may not be larger: then it is as it is
        fcntl.fcntl(1, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    _state.level, _state.out = number, None if _is_text(style) else _Stdout(fallback)
    factory: Any = (
        structlog.PrintLoggerFactory(file=_TextStdout(fallback))  # type: ignore[arg-type]
        if _is_text(style)
        else structlog.BytesLoggerFactory(file=_Stdout(fallback))  # type: ignore[arg-type]
    )
    structlog.configure(
        processors=[*_shared(), *_ending(style, as_bytes=True)],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=factory,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(_TextStdout(fallback))
    handler.setFormatter(formatter(style))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(number, logging.INFO))


class LineBuffer:
    """Writes lines that are frequent: in the format of the loggers, but several of them with one write.

    later: when the lines that wait are written; None where threads may write, then none waits.
    """

    def __init__(self, later: CallLater | None) -> None:
        self._later = later

    def wants(self, level: str) -> bool:
        """Whether lines of this level are written at all."""
        return _NUMBERS[level] >= _state.level

    def write(self, level: str, line: dict[str, object]) -> None:
        """Write a line of these fields; `event`, `level` and `time` are among them."""
        if _state.out is None:
            named = {key: value for key, value in line.items() if key not in ("event", "level", "time")}
            structlog.get_logger().log(_NUMBERS[level], line["event"], **named)
            return
        encoded = orjson.dumps(line, default=str, option=_LINE)
        if self._later is None:
            _state.out.write(encoded)
            return
        _state.waiting.append(encoded)
        if len(_state.waiting) == 1:
            self._later(flush)


def get_logger(name: str) -> Any:
    """A logger whose every line carries `source: name`."""
    return structlog.get_logger(source=name)


def frames_without_values(error: BaseException) -> str:
    """Where an exception and its causes were raised, and of which types: their texts may quote a caller's data."""
    parts: list[str] = []
    current: BaseException | None = error
    while current is not None:
        stack = "".join(traceback.format_tb(current.__traceback__))
        parts.append(
            f"{type(current).__module__}.{type(current).__qualname__} (predict.show_values shows its text)\n{stack}"
        )
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return "which led to\n".join(reversed(parts))
