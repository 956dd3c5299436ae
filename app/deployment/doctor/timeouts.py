"""The order of the time limits: deadline < graceful_timeout < proxy_read_timeout < stopwaitsecs, and of keep-alive.

The inner limit has to expire first, so that whoever is nearest to the request answers for it.
"""

from __future__ import annotations

from collections.abc import Iterator

from tableside.deployment.doctor import nginx_conf
from tableside.deployment.doctor.finding import Finding, Level
from tableside.deployment.doctor.nginx_conf import Directive
from tableside.deployment.doctor.set_up import SetUp

ABOUT, KEEPALIVE = "timeouts", "keep-alive"
_NGINX_READ_S, _NGINX_UPSTREAM_S = 60.0, 60.0
"""nginx's own defaults of proxy_read_timeout and of keepalive_timeout in an upstream."""
_SUPERVISOR_STOP_S = 10.0


def check(set_up: SetUp) -> Iterator[Finding]:
    """Yield what is wrong with the time limits."""
    planes = {plane: nginx_conf.parse(text) for plane, text in set_up.nginx.items()}
    yield from _gunicorn(set_up)
    for plane, conf in planes.items():
        yield from _nginx(set_up, plane, conf)
        yield from _keepalive(set_up, plane, conf)
    yield from _supervisor(set_up, max([set_up.number("graceful_timeout"), *map(read_timeout_s, planes.values())]))


def read_timeout_s(conf: tuple[Directive, ...]) -> float:
    """Return how long nginx waits for the answer to a request. Probes and acts of an operator have limits of their own,
    in their locations, which do not count here.
    """
    written = nginx_conf.value(conf, "http", "server", "proxy_read_timeout") or nginx_conf.value(
        conf, "http", "proxy_read_timeout"
    )
    return nginx_conf.seconds(written) if written else _NGINX_READ_S


def _gunicorn(set_up: SetUp) -> Iterator[Finding]:
    if not set_up.gunicorn:
        return
    deadline, graceful = set_up.settings.server.request_timeout_s, set_up.number("graceful_timeout")
    if graceful <= deadline:
        yield Finding(
            Level.ERROR, ABOUT, "gunicorn's graceful_timeout is not above the deadline of a request",
            f"graceful_timeout {graceful:g} s, server.request_timeout_s {deadline:g} s",
            "a worker that stops is killed while it computes a request that has time left",
            f"Set graceful_timeout in gunicorn.conf.py, or in GUNICORN_CMD_ARGS, above {deadline:g}",
        )  # fmt: skip
    if not set_up.number("timeout"):
        yield Finding(
            Level.WARNING, ABOUT, "gunicorn does not replace a worker that hangs", "timeout 0 s",
            "a worker whose event loop stands still keeps its requests for ever",
            "Set timeout in gunicorn.conf.py to 30",
        )  # fmt: skip


def _nginx(set_up: SetUp, plane: str, conf: tuple[Directive, ...]) -> Iterator[Finding]:
    graceful, deadline = set_up.number("graceful_timeout"), set_up.settings.server.request_timeout_s
    inner = max(graceful, deadline)
    name = "graceful_timeout" if graceful > deadline else "server.request_timeout_s"
    shortest = read_timeout_s(conf)
    if shortest <= inner:
        yield Finding(
            Level.ERROR, ABOUT, f"nginx ({plane}) gives up before the worker does",
            f"proxy_read_timeout {shortest:g} s, {name} {inner:g} s",
            "the client gets nginx's 504 for a request that the worker goes on to compute",
            f"Set proxy_read_timeout above {inner:g} s in {set_up.files[plane]}",
        )  # fmt: skip
    shutdown = nginx_conf.value(conf, "worker_shutdown_timeout")
    if shutdown and nginx_conf.seconds(shutdown) < shortest:
        yield Finding(
            Level.ERROR, ABOUT, f"nginx ({plane}) cuts requests off when it reads its configuration again",
            f"worker_shutdown_timeout {nginx_conf.seconds(shutdown):g} s, proxy_read_timeout {shortest:g} s",
            "a request that takes longer gets no answer at a restart of nginx",
            f"Set worker_shutdown_timeout to {shortest:g}s in {set_up.files[plane]}",
        )  # fmt: skip


def _supervisor(set_up: SetUp, inner_s: float) -> Iterator[Finding]:
    needed = inner_s + set_up.settings.server.lame_duck_s
    for name, program in sorted(set_up.programs.items()):
        if name not in ("web", "nginx") and not name.startswith("model_"):
            continue
        waits = float(program.get("stopwaitsecs", _SUPERVISOR_STOP_S))
        if waits <= needed:
            lame_duck = f" and server.lame_duck_s {set_up.settings.server.lame_duck_s:g} s"
            yield Finding(
                Level.ERROR, ABOUT, f"supervisord kills the program {name} before it has drained",
                f"stopwaitsecs {waits:g} s, longest wait inside {inner_s:g} s{lame_duck}",
                "a restart or the end of the stack loses requests that were accepted",
                f"Set stopwaitsecs of [program:{name}] in supervisord.conf above {needed:g}",
            )  # fmt: skip


def _keepalive(set_up: SetUp, plane: str, conf: tuple[Directive, ...]) -> Iterator[Finding]:
    held = set_up.number("keepalive")
    for upstream in nginx_conf.within(conf, "http", "upstream"):
        kept = nginx_conf.value(upstream.block, "keepalive_timeout")
        kept_s = nginx_conf.seconds(kept) if kept else _NGINX_UPSTREAM_S
        if held and nginx_conf.value(upstream.block, "keepalive") and kept_s >= held:
            yield Finding(
                Level.ERROR, KEEPALIVE, f"nginx ({plane}) keeps idle connections longer than the workers do",
                f"keepalive_timeout of upstream {upstream.args[0]} {kept_s:g} s, gunicorn's keepalive {held:g} s",
                "now and then a request meets a connection that the worker has just closed, and is 502",
                f"Set keepalive in gunicorn.conf.py above {kept_s:g}, or keepalive_timeout of the upstream below "
                f"{held:g}s in {set_up.files[plane]}",
            )  # fmt: skip
    told = next((each.args for each in nginx_conf.within(conf, "http", "keepalive_timeout")), ())
    if len(told) == 2 and nginx_conf.seconds(told[0]) <= nginx_conf.seconds(told[1]):
        yield Finding(
            Level.ERROR, KEEPALIVE, f"nginx ({plane}) closes idle connections of clients earlier than it says",
            f"held {nginx_conf.seconds(told[0]):g} s, clients are told {nginx_conf.seconds(told[1]):g} s",
            "now and then a client or a load balancer sends a request on a connection that is being closed",
            f"Write the longer time first: keepalive_timeout in {set_up.files[plane]}",
        )  # fmt: skip
