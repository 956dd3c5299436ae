"""The text that `tableside run` prints when the stack is ready: addresses, the admin key's file and a curl command."""

from __future__ import annotations

import http.client
import os
import shlex
import sys
import time
from collections.abc import Callable, Collection
from pathlib import Path

import orjson

from tableside.contracts.schema import Contract
from tableside.deployment import disk_fit, memory_fit, own_connection, service_manager
from tableside.deployment.layout import PROJECT
from tableside.errors import ContractBroken
from tableside.process import worker_slots
from tableside.repository import integrity, paths
from tableside.serving.lifecycle import State
from tableside.serving.version_status import read_statuses
from tableside.settings import Settings

START_TIMEOUT_S = 120.0
"""How long the banner waits for the first ready answer before it is printed with the reason."""


def example_body(contract: Contract) -> dict[str, object]:
    """Return a V1 request body with the first golden row: an object by column name, or a list for a matrix model."""
    row = list(contract.golden.rows[0])
    names = [column.name for column in contract.input.columns]
    return {"instances": [row if contract.input.form == "matrix" else dict(zip(names, row, strict=True))]}


def curl_line(contract: Contract, address: str, settings: Settings | None = None) -> str:
    """Return a shell command that asks this model for a prediction. address: HOST:PORT of the data plane.

    settings: by default those without TLS and without keys for predictions.
    """
    body = orjson.dumps(example_body(contract)).decode()
    scheme, key = "http", ""
    if settings is not None:
        scheme = own_connection.scheme(settings)
        key = ' -H "Authorization: Bearer $KEY"' if settings.needs_keys else ""
    return f"curl -s{key} {scheme}://{address}/v1/models/{contract.name}:predict -d {shlex.quote(body)}"


def _ready(settings: Settings) -> dict[str, object]:
    connection = own_connection.connect(settings, settings.server.listen, timeout_s=5)
    try:
        connection.request("GET", "/v2/health/ready")
        answer: dict[str, object] = orjson.loads(connection.getresponse().read())
        return answer
    except (OSError, http.client.HTTPException, orjson.JSONDecodeError) as problem:
        return {"ready": False, "reason": f"no answer yet ({problem})"}
    finally:
        connection.close()


def _first_contract(root: Path, trusted_keys: Collection[str]) -> Contract | None:
    names = paths.models(root)
    for name in sorted(names, key=lambda name: name != "iris"):
        for number in reversed(paths.versions(root, name)):
            try:
                return integrity.read_contract(root, name, number, trusted_keys)
            except ContractBroken:
                continue
    return None


def _not_served(settings: Settings) -> list[str]:
    """Return one line for each version that a worker's status file reports as unavailable, with the reason."""
    entries = read_statuses(worker_slots.statuses(settings.run_dir / "worker_slots"))
    return [
        f"{entry.name}/{entry.version}: {entry.reason}"
        for entry in entries
        if entry.state is State.UNAVAILABLE and entry.failure_kind
    ]


def text(settings: Settings, *, behind_nginx: bool, problem: str = "") -> str:
    """Return the banner. problem: why the stack is not ready; empty if it is."""
    server, root = settings.server, settings.repository_path
    reason = "server.nginx is off" if server.nginx == "off" else "nginx is not installed: apt-get install nginx-light"
    scheme = own_connection.scheme(settings)
    in_checkout = (PROJECT / "Makefile").exists()
    command = ".venv/bin/tableside" if in_checkout else "tableside"
    front = "nginx" if behind_nginx else f"gunicorn without nginx ({reason})"
    lines = [
        "",
        "  Tableside is ready." if not problem else f"  Tableside has started but is not ready: {problem}",
        f"    predictions  {scheme}://{server.listen}/v2   answered by {front}, {server.workers} workers",
        *([f"    docs         {scheme}://{server.listen}/docs"] if server.docs else []),
        f"    status page  {scheme}://{server.admin_listen}/   key in {settings.run_dir / 'admin.key'}",
        f"    metrics      {scheme}://{server.admin_listen}/metrics",
        f"    models       {', '.join(paths.models(root)) or 'none yet'}   from {root}",
        *(f"    NOT SERVED   {line}" for line in _not_served(settings)),
        f"    logs         {command} logs -f   ({settings.run_dir / 'log'})",
        f"    stop         Ctrl-C, or {'make stop' if in_checkout else f'{command} stop'}",
    ]
    contract = _first_contract(root, settings.repository.trusted_keys)
    if contract is not None:
        lines += ["", "  Try it:", f"  {curl_line(contract, server.listen, settings)}"]
    return "\n".join(lines) + "\n\n"


def show_when_ready(settings: Settings, *, behind_nginx: bool, take_over: Callable[[], None]) -> int:
    """Wait until the stack is ready, print the banner to stdout and tell the service manager, if there is one.

    take_over: ends what is left of an earlier stack. Until then that stack may be what answers, so that the service
    manager is told afterwards.
    Return the exit code of the waiting process. The banner has the reason if the stack is not ready after
    START_TIMEOUT_S, or cannot become ready because the repository has no model. Return 1, without a banner, if
    supervisord ended first.
    """
    from tableside.deployment.doctor import diagnosis  # it imports much, and others need only `curl_line`

    parent, give_up_at_s = os.getppid(), time.monotonic() + START_TIMEOUT_S
    sys.stderr.write(memory_fit.warning(settings) + disk_fit.warning(settings))
    state: dict[str, object] = {}
    while time.monotonic() < give_up_at_s and os.getppid() == parent:
        state = _ready(settings)
        reason = str(state.get("reason", ""))
        if state.get("ready") or reason.startswith(("no model", "FileNotFound")):
            break
        time.sleep(0.1)
    if os.getppid() != parent:  # supervisord ended and has already printed why
        return 1
    problem = "" if state.get("ready") else str(state.get("reason", "no answer"))
    sys.stdout.write(text(settings, behind_nginx=behind_nginx, problem=problem))
    sys.stdout.flush()
    take_over()
    service_manager.ready(f"has started but is not ready: {problem}" if problem else "serves", os.environ)
    sys.stderr.write(diagnosis.start_lines(settings))
    return 0
