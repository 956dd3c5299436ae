"""Refuse gunicorn settings that the worker class does not support, instead of ignoring them silently."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NamedTuple

from tableside.server.gunicorn_types import Log, Settings


class Refused(NamedTuple):
    """A setting that may be refused.

    applies: whether the setting has a refused value. reason: why it is refused, and what to set instead.
    """

    setting: str
    applies: Callable[[Settings], bool]
    reason: str


REFUSED = (
    Refused(
        "http_protocols",
        lambda cfg: any(protocol != "h1" for protocol in cfg.http_protocols),
        "this worker serves HTTP/1.1 only. Set it to 'h1', and configure HTTP/2 in nginx",
    ),
    Refused(
        "proxy_protocol",
        lambda cfg: cfg.proxy_protocol != "off",
        "this worker does not support the PROXY protocol. Set it to 'off', and configure the protocol in nginx",
    ),
    Refused("protocol", lambda cfg: cfg.protocol != "http", "this worker serves HTTP only. Set it to 'http'"),
    Refused(
        "certfile",
        lambda cfg: cfg.is_ssl,
        "this worker does not support TLS. Remove certfile and keyfile, and configure TLS in nginx",
    ),
    Refused(
        "keepalive",
        lambda cfg: cfg.keepalive <= 0,
        "it is also the time that a client has to send the head of a request. Set it to 1 or more seconds",
    ),
    Refused(
        "statsd_host",
        lambda cfg: bool(cfg.statsd_host),
        "this worker does not send metrics to StatsD. Remove it, and let Prometheus scrape /metrics",
    ),
)


def find_refused(cfg: Settings) -> list[str]:
    """Return one line for each setting of `cfg` that is refused."""
    return [f"setting '{refused.setting}' is refused: {refused.reason}." for refused in REFUSED if refused.applies(cfg)]


def check(cfg: Settings, log: Log) -> None:
    """If any setting is refused, log one line for each and exit with status 1."""
    lines = find_refused(cfg)
    for line in lines:
        log.error("%s", line)
    if lines:
        sys.exit(1)
