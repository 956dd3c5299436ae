"""Open files, connections, and the queues in which the kernel keeps connections until they are accepted."""

from __future__ import annotations

from collections.abc import Iterator

from tableside.deployment.doctor import nginx_conf
from tableside.deployment.doctor.finding import Finding, Level
from tableside.deployment.doctor.set_up import SetUp
from tableside.deployment.layout import DATA
from tableside.deployment.socket_holder import BACKLOG

ABOUT, QUEUES = "open files", "listen queues"
_ROOM = 128
"""Files of a worker that are no connections: libraries, logs, mapped files."""


def check(set_up: SetUp) -> Iterator[Finding]:
    """Yield what is wrong with open files and listen queues."""
    for plane, text in set_up.nginx.items():
        yield from _of_nginx(set_up, plane, text)
    yield from _of_workers(set_up)
    asked = max([BACKLOG, *(_backlog(text) for text in set_up.nginx.values())])
    if set_up.somaxconn and set_up.somaxconn < asked:
        yield Finding(
            Level.WARNING, QUEUES, "the kernel cuts the listen queue short",
            f"net.core.somaxconn {set_up.somaxconn}, backlog {asked}",
            f"of connections that arrive during a restart or in a burst, those beyond {set_up.somaxconn} wait for "
            "seconds or fail",
            f"Run: sysctl -w net.core.somaxconn={asked}, and write it into /etc/sysctl.d/; then `tableside stop` and "
            "start again",
        )  # fmt: skip


def _of_nginx(set_up: SetUp, plane: str, text: str) -> Iterator[Finding]:
    conf = nginx_conf.parse(text)
    connections = int(nginx_conf.value(conf, "events", "worker_connections") or 512)
    files = int(nginx_conf.value(conf, "worker_rlimit_nofile") or set_up.open_files)
    change = f"Raise the limit of open files (LimitNOFILE= of the service, or ulimit -n), see {set_up.files[plane]}"
    if files > set_up.open_files:
        yield Finding(
            Level.ERROR, ABOUT, f"nginx ({plane}) asks for more open files than it gets",
            f"worker_rlimit_nofile {files}, limit {set_up.open_files}",
            "nginx cannot accept connections beyond the limit, and logs `Too many open files`", change,
        )  # fmt: skip
    if connections >= files:
        yield Finding(
            Level.ERROR, ABOUT, f"nginx ({plane}) may have more connections than open files",
            f"worker_connections {connections}, worker_rlimit_nofile {files}",
            "with many clients nginx answers 500, because it cannot open connections to the workers", change,
        )  # fmt: skip
    places = [
        int(arg.removeprefix("max_conns="))
        for upstream in nginx_conf.within(conf, "http", "upstream")
        if upstream.args == ("web",)
        for server in nginx_conf.within(upstream.block, "server")
        for arg in server.args
        if arg.startswith("max_conns=")
    ]
    wanted = set_up.settings.server.max_requests_in_flight
    if plane == DATA and places and sum(places) < wanted:
        yield Finding(
            Level.WARNING, ABOUT, "nginx passes on fewer requests at once than the setting says",
            f"max_conns of all places {sum(places)}, server.max_requests_in_flight {wanted}, worker_connections "
            f"{connections}, open files {set_up.open_files}",
            f"clients get 429 from {sum(places)} requests at once on",
            f"{change}; or set server.max_requests_in_flight to {sum(places)}",
        )  # fmt: skip


def _of_workers(set_up: SetUp) -> Iterator[Finding]:
    connections = int(set_up.number("worker_connections"))
    if connections and connections + _ROOM > set_up.open_files:
        yield Finding(
            Level.ERROR, ABOUT, "a worker may have more connections than open files",
            f"worker_connections {connections}, limit {set_up.open_files}, other files of a worker about {_ROOM}",
            "a worker at the limit cannot open a model's file, a log or a connection",
            f"Set worker_connections in gunicorn.conf.py to {max(16, set_up.open_files - _ROOM)} or less, or raise the "
            "limit of open files",
        )  # fmt: skip


def _backlog(text: str) -> int:
    found = [
        int(arg.removeprefix("backlog="))
        for listen in nginx_conf.within(nginx_conf.parse(text), "http", "server", "listen")
        for arg in listen.args
        if arg.startswith("backlog=")
    ]
    return max(found, default=0)
