"""Structured logs: each event is one JSON line on standard output, or one line of text on a terminal.

Records of the standard library's `logging`, such as those of other libraries, get the same format. Values of a request
must never be logged.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import orjson
import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

from tableside import private_files
from tableside.telemetry.line_writer import LineWriter

CallLater = Callable[[Callable[[], None]], None]
"""Runs a function soon, on the caller's event loop. The function must not raise."""
Format = Literal["auto", "json", "text"]
_NUMBERS = logging.getLevelNamesMapping() | {k.lower(): v for k, v in logging.getLevelNamesMapping().items()}
_LINE = orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE


class _Stdout:
    """Standard output. Buffered lines are written before any other."""

    def __init__(self, writer: LineWriter) -> None:
        self.send = writer.send

    def write(self, line: bytes) -> int:
        """Write the buffered lines, and then this one."""
        flush()
        self.send(line)
        return len(line)

    def flush(self) -> None:
        """Do nothing: `write` has no buffer of its own. structlog and `logging` call this."""


@dataclass
class _State:
    """What `configure` has set, and the buffered lines.

    writer: what writes all lines. out: where JSON lines are written; None if lines are text.
    """

    level: int = logging.INFO
    out: _Stdout | None = None
    buffered: list[bytes] = field(default_factory=list)
    writer: LineWriter | None = None


_state = _State()


def flush() -> None:
    """Write the buffered lines. This happens before any other line is written, and when the process ends."""
    lines, _state.buffered = _state.buffered, []
    if lines and _state.out is not None:
        _state.out.send(b"".join(lines))


def dropped_lines() -> int:
    """Return how many lines this process could not write since the last call."""
    return _state.writer.take_dropped() if _state.writer else 0


class _TextStdout(_Stdout):
    def write(self, line: str) -> int:  # type: ignore[override]
        return super().write(line.encode())


def _event_first(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    return {"event": event.pop("event", ""), **event}


def _shared_processors() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        _event_first,
    ]


def _json_text(event: EventDict, **_: object) -> str:
    return orjson.dumps(event, default=str).decode()


def _is_text(style: Format) -> bool:
    return style == "text" or (style == "auto" and sys.stdout.isatty())


def _renderers(style: Format, *, as_bytes: bool) -> list[Processor]:
    """Return the processors that make the line: text, or JSON as bytes or as a string."""
    if _is_text(style):
        return [
            structlog.dev.ConsoleRenderer(
                colors=sys.stdout.isatty(), timestamp_key="time", exception_formatter=structlog.dev.plain_traceback
            )
        ]
    serializer: Callable[..., bytes | str] = _json_bytes if as_bytes else _json_text
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(serializer=serializer)]


def _json_bytes(event: EventDict, **_: object) -> bytes:
    return orjson.dumps(event, default=str)


def _name_source(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Add the name of the `logging` logger that made the record."""
    event.setdefault("source", event["_record"].name)
    return event


def formatter(style: Format = "auto") -> logging.Formatter:
    """Make the formatter for records of `logging`: those of gunicorn and of other libraries."""
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[_name_source, *_shared_processors()],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_renderers(style, as_bytes=False)],
    )


def handler() -> logging.Handler:
    """Make the handler of gunicorn's master: a line that cannot be written at once is dropped."""
    return logging.StreamHandler(_TextStdout(LineWriter(None)))


def configure(style: Format = "auto", level: str = "info", fallback: Path | None = None) -> None:
    """Set up structlog and the root logger of `logging`. It may be called again.

    style: `auto` is text if standard output is a terminal, else JSON.
    level: the lowest level that is written, in lower case. Records of `logging` below `info` are never written.
    fallback: the file that gets the lines if standard output cannot be written.
    Raises KeyError for an unknown level.
    """
    number = _NUMBERS[level]
    flush()
    atexit.unregister(flush)
    atexit.register(flush)
    _state.writer = LineWriter(fallback)
    text_out, bytes_out = _TextStdout(_state.writer), _Stdout(_state.writer)
    _state.level, _state.out = number, None if _is_text(style) else bytes_out
    factory: Callable[..., WrappedLogger] = (
        structlog.PrintLoggerFactory(file=text_out)  # type: ignore[arg-type]
        if _is_text(style)
        else structlog.BytesLoggerFactory(file=bytes_out)  # type: ignore[arg-type]
    )
    structlog.configure(
        processors=[*_shared_processors(), *_renderers(style, as_bytes=True)],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=factory,
        cache_logger_on_first_use=False,
    )
    out = logging.StreamHandler(text_out)
    out.setFormatter(formatter(style))
    root = logging.getLogger()
    root.handlers[:] = [out]
    root.setLevel(max(number, logging.INFO))


class _SharedFile:
    """A log file that several processes append to and may rename, so it is opened for each line.

    Its owner is that of the folder: root's commands write it as well as those of the user of the stack.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, line: str | bytes) -> int:
        """Append a line if that is possible."""
        with suppress(OSError):
            fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                private_files.give_to_owner(fd, self._path.parent)
                os.write(fd, line.encode() if isinstance(line, str) else line)
            finally:
                os.close(fd)
        return len(line)

    def flush(self) -> None:
        """Do nothing. structlog calls this."""


def append_to(path: Path, style: Format, level: str) -> None:
    """Let this process, a command, append its lines to a log of the stack, and write none to standard output.

    path: not a file that supervisord writes. It does so at an offset of its own, over what others have appended.
    style, level: as for `configure`; `auto` is JSON, as in a stack. Raises KeyError for an unknown level.
    """
    file = _SharedFile(path)
    written: Format = "text" if style == "text" else "json"
    factory: Callable[..., WrappedLogger] = (
        structlog.PrintLoggerFactory(file=file)  # type: ignore[arg-type]
        if written == "text"
        else structlog.BytesLoggerFactory(file=file)  # type: ignore[arg-type]
    )
    structlog.configure(
        processors=[*_shared_processors(), *_renderers(written, as_bytes=True)],
        wrapper_class=structlog.make_filtering_bound_logger(_NUMBERS[level]),
        logger_factory=factory,
        cache_logger_on_first_use=False,
    )


class LineBuffer:
    """Writes frequent lines in the format of the loggers, but many of them with one system call.

    later: runs a function later on the event loop, where the buffered lines are written. None means that threads may
    write lines too: then each line is written at once.
    """

    def __init__(self, later: CallLater | None) -> None:
        self._later = later

    def is_enabled(self, level: str) -> bool:
        """Whether lines of this level are written."""
        return _NUMBERS[level] >= _state.level

    def write(self, level: str, line: dict[str, object]) -> None:
        """Write one line, or buffer it. line: its fields, which include `event`, `level` and `time`."""
        if _state.out is None:
            fields = {key: value for key, value in line.items() if key not in ("event", "level", "time")}
            structlog.get_logger().log(_NUMBERS[level], line["event"], **fields)
            return
        encoded = orjson.dumps(line, default=str, option=_LINE)
        if self._later is None:
            _state.out.write(encoded)
            return
        _state.buffered.append(encoded)
        if len(_state.buffered) == 1:
            self._later(flush)


def get_logger(name: str) -> FilteringBoundLogger:
    """Return a logger that adds the field `source` with this name to each line."""
    logger: FilteringBoundLogger = structlog.get_logger(source=name)
    return logger


def hide_texts_of_warnings() -> None:
    """Make Python write warnings without their texts, which may quote values of a request. Their places stay."""
    warnings.formatwarning = _without_text


def _without_text(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    return (
        f"{filename}:{lineno}: {category.__name__} "
        "(text hidden: it may quote values of a request; set predict.show_values to log it)\n"
    )


def frames_without_values(error: BaseException) -> str:
    """Return the traceback of an exception and its causes without their texts, which may quote values of a request.

    The cause comes first, as in Python's own tracebacks. An exception that was raised in another process has the
    traceback of there in its attribute `stack_elsewhere`.
    """
    parts: list[str] = []
    current: BaseException | None = error
    while current is not None:
        stack = "".join(traceback.format_tb(current.__traceback__))
        parts.append(
            f"{type(current).__module__}.{type(current).__qualname__} "
            f"(text hidden: it may quote values of a request; set predict.show_values to log it)\n"
            f"{getattr(current, 'stack_elsewhere', '')}{stack}"
        )
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return "which caused:\n".join(reversed(parts))
