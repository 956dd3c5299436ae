"""Structured logs: one JSON line an event, to standard output; plain text where standard output is a terminal.

Other libraries' `logging` records leave through the same renderer. No value of a caller's data is ever logged.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, Literal

import orjson
import structlog
from structlog.typing import EventDict, WrappedLogger

Format = Literal["auto", "json", "text"]


def _event_first(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    return {"event": event.pop("event", ""), **event}


def _shared() -> list[Any]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        structlog.processors.format_exc_info,
        _event_first,
    ]


def _json_text(event: EventDict, **_: Any) -> str:
    return orjson.dumps(event, default=str).decode()


def configure(style: Format = "auto", level: str = "info") -> None:
    """Set up structlog and the standard library's root logger. Safe to call again."""
    as_text = style == "text" or (style == "auto" and sys.stdout.isatty())
    number = logging.getLevelNamesMapping()[level.upper()]
    renderer: Any
    factory: Any
    if as_text:
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty(), event_key="event", timestamp_key="time")
        factory = structlog.PrintLoggerFactory(file=sys.stdout)
        stdlib_renderer = renderer
    else:
        renderer = structlog.processors.JSONRenderer(serializer=lambda event, **_: orjson.dumps(event, default=str))
        factory = structlog.BytesLoggerFactory(file=sys.stdout.buffer)
        stdlib_renderer = structlog.processors.JSONRenderer(serializer=_json_text)
    structlog.configure(
        processors=[*_shared(), renderer],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=factory,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_shared(),
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, stdlib_renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(number, logging.INFO))
    for name in ("gunicorn.error", "gunicorn.access"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True


def get(name: str) -> Any:
    """A logger whose every line carries `source: name`."""
    return structlog.get_logger(source=name)
