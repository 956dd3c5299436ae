"""The limits of bodies: nginx's, the workers', and what the memory allows."""

from __future__ import annotations

from collections.abc import Iterator

from tableside import machine
from tableside.deployment.doctor import nginx_conf
from tableside.deployment.doctor.finding import Finding, Level
from tableside.deployment.doctor.set_up import SetUp
from tableside.deployment.memory_fit import WORKER_BYTES

ABOUT = "body limits"
_NGINX_BODY_BYTES = 1 << 20
"""nginx's default of client_max_body_size."""


def check(set_up: SetUp) -> Iterator[Finding]:
    """Yield what is wrong with the limits of bodies."""
    for plane, text in set_up.nginx.items():
        yield from _of_nginx(set_up, plane, text)
    yield from _of_settings(set_up)
    yield from _of_memory(set_up)


def _of_nginx(set_up: SetUp, plane: str, text: str) -> Iterator[Finding]:
    written = nginx_conf.value(nginx_conf.parse(text), "http", "client_max_body_size")
    taken, limit = (
        nginx_conf.size_bytes(written) if written else _NGINX_BODY_BYTES,
        set_up.settings.server.max_body_bytes,
    )
    figures = f"client_max_body_size {taken} bytes, server.max_body_bytes {limit} bytes"
    change = f"Set client_max_body_size to {limit} in {set_up.files[plane]}; `tableside restart` does"
    if taken and taken < limit:
        yield Finding(
            Level.ERROR, ABOUT, f"nginx ({plane}) refuses bodies that the workers would take", figures,
            "they are 413 with the text of another limit", change,
        )  # fmt: skip
    elif taken != limit:
        yield Finding(
            Level.WARNING, ABOUT, f"nginx ({plane}) stores bodies that the workers refuse", figures,
            "a client fills the disk of the run folder with bodies that are 413 when they have arrived", change,
        )  # fmt: skip


def _of_settings(set_up: SetUp) -> Iterator[Finding]:
    server = set_up.settings.server
    if server.max_bytes_in_hand < server.max_body_bytes:
        yield Finding(
            Level.ERROR, ABOUT, "a worker may not hold the largest body",
            f"server.max_bytes_in_hand {server.max_bytes_in_hand}, server.max_body_bytes {server.max_body_bytes}",
            "bodies between the two are 429 for ever, however idle the server is",
            f"Set server.max_bytes_in_hand to {server.max_body_bytes} or more, or server.max_body_bytes lower",
        )  # fmt: skip
    if server.max_inflated_bytes < server.max_body_bytes:
        yield Finding(
            Level.WARNING, ABOUT, "the largest body is larger than the largest table",
            f"server.max_inflated_bytes {server.max_inflated_bytes}, server.max_body_bytes {server.max_body_bytes}",
            "bodies between the two are received in full and then refused with 413",
            f"Set server.max_body_bytes to {server.max_inflated_bytes} or less",
        )  # fmt: skip


def _of_memory(set_up: SetUp) -> Iterator[Finding]:
    server = set_up.settings.server
    limit, source = machine.memory_bytes()
    one = server.max_body_bytes + server.max_inflated_bytes
    all_held = server.workers * (WORKER_BYTES + server.max_bytes_in_hand)
    if limit and WORKER_BYTES + one > limit:
        yield Finding(
            Level.ERROR, ABOUT, "one largest request does not fit into memory",
            f"body {server.max_body_bytes} and table {server.max_inflated_bytes} bytes, {source} {limit} bytes",
            "one client can have the kernel kill workers",
            "Set server.max_body_bytes and server.max_inflated_bytes lower, or give the server more memory",
        )  # fmt: skip
    elif limit and all_held > limit:
        fits = max(server.max_body_bytes, (limit // 2) // server.workers)
        yield Finding(
            Level.WARNING, ABOUT, "the bodies that all workers may hold do not fit into memory",
            f"{server.workers} workers x server.max_bytes_in_hand {server.max_bytes_in_hand}, {source} {limit} bytes",
            "many large requests at once can have the kernel kill workers",
            f"Set server.max_bytes_in_hand to {fits} or less",
        )  # fmt: skip
