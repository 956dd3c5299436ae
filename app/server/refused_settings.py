"""Refuse gunicorn settings that the worker class can't honour: ignoring one in silence would surprise its operator."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NamedTuple

from tableside.server.gunicorn_types import Log, Settings


class Refused(NamedTuple):
    """A setting, when it is refused, and what to do instead."""

    setting: str
    applies: Callable[[Settings], bool]
    reason: str


REFUSED = (
    Refused(
        "http_protocols",
        lambda cfg: any(protocol != "h1" for protocol in cfg.http_protocols),
        "this worker serves HTTP/1.1 only. Set it to 'h1', and let nginx speak HTTP/2 to clients",
    ),
    Refused(
        "proxy_protocol",
        lambda cfg: cfg.proxy_protocol != "off",
        "this worker does not support the PROXY protocol. Set it to 'off', and let nginx read it",
    ),
    Refused("protocol", lambda cfg: cfg.protocol != "http", "this worker serves HTTP only. Set it to 'http'"),
    Refused(
        "certfile",
        lambda cfg: cfg.is_ssl,
        "this worker does not support TLS. Remove certfile and keyfile, and let nginx end TLS",
    ),
    Refused(
        "keepalive",
        lambda cfg: cfg.keepalive <= 0,
        "it is also the time a client has to send a request's head. Set it to 1 second or more",
    ),
    Refused(
        "statsd_host",
        lambda cfg: bool(cfg.statsd_host),
        "metrics are not sent to StatsD. Remove it, and let Prometheus read /metrics",
    ),
)


def find_refused(cfg: Settings) -> list[str]:
    """One line for each setting that can't be honoured."""
    return [f"setting '{one.setting}' is refused: {one.reason}." for one in REFUSED if one.applies(cfg)]


def check(cfg: Settings, log: Log) -> None:
    """Log one line for each refused setting and exit with status 1, if there is any."""
    lines = find_refused(cfg)
    for line in lines:
        log.error("%s", line)
    if lines:
        sys.exit(1)
