"""What `make run` shows once the stack answers: the addresses, the key's place, and a curl line that works."""

from __future__ import annotations

import http.client
import os
import shlex
import sys
import time
from pathlib import Path

import orjson

from tableside.contract.schema import Contract
from tableside.deployment.layout import addresses
from tableside.errors import ContractBroken
from tableside.process import worker_slots
from tableside.repository import integrity, paths
from tableside.serving.lifecycle import State
from tableside.serving.version_status import read_statuses
from tableside.settings import Settings

START_TIMEOUT_S = 120.0


def example_body(contract: Contract) -> dict[str, object]:
    """A V1 body that works: the first golden row, by name where the model has names."""
    row = list(contract.golden.rows[0])
    names = [column.name for column in contract.input.columns]
    return {"instances": [row if contract.input.form == "matrix" else dict(zip(names, row, strict=True))]}


def curl_line(contract: Contract, address: str) -> str:
    """One line for a shell that asks this model for a prediction."""
    body = orjson.dumps(example_body(contract)).decode()
    return f"curl -s http://{address}/v1/models/{contract.name}:predict -d {shlex.quote(body)}"


def _ready(settings: Settings) -> dict[str, object]:
    host, port = addresses(settings)["data"]
    connection = http.client.HTTPConnection(host, port, timeout=5)
    try:
        connection.request("GET", "/v2/health/ready")
        found: dict[str, object] = orjson.loads(connection.getresponse().read())
        return found
    except (OSError, http.client.HTTPException, orjson.JSONDecodeError) as problem:
        return {"ready": False, "reason": f"no answer yet ({problem})"}
    finally:
        connection.close()


def _first_contract(root: Path) -> Contract | None:
    names = paths.models(root)
    for name in sorted(names, key=lambda name: name != "iris"):
        for number in reversed(paths.versions(root, name)):
            try:
                return integrity.read_contract(root, name, number)
            except ContractBroken:
                continue
    return None


def _not_served(settings: Settings) -> list[str]:
    """Versions the workers refuse, with the reason, as their status files say."""
    entries = read_statuses(worker_slots.statuses(settings.run_dir / "worker_slots"))
    return [f"{e.name}/{e.version}: {e.reason}" for e in entries if e.state is State.UNAVAILABLE and e.failure_kind]


def text(settings: Settings, *, behind_nginx: bool, problem: str = "") -> str:
    """The banner."""
    server, root = settings.server, settings.repository_path
    why = "server.nginx is off" if server.nginx == "off" else "nginx is not installed: apt-get install nginx-light"
    front = "nginx" if behind_nginx else f"gunicorn itself ({why})"
    lines = [
        "",
        "  Tableside is ready." if not problem else f"  Tableside is up, but not ready: {problem}",
        f"    predictions  http://{server.listen}/v2   answered by {front}, {server.workers} workers",
        *([f"    docs         http://{server.listen}/docs"] if server.docs else []),
        f"    control      http://{server.admin_listen}/admin/api/models   key in {settings.run_dir / 'admin.key'}",
        f"    metrics      http://{server.admin_listen}/metrics",
        f"    models       {', '.join(paths.models(root)) or 'none yet'}   from {root}",
        *(f"    NOT SERVED   {line}" for line in _not_served(settings)),
        f"    logs         .venv/bin/tableside logs -f   ({settings.run_dir / 'log'})",
        "    stop         Ctrl-C, or make stop",
    ]
    contract = _first_contract(root)
    if contract is not None:
        lines += ["", "  Try it:", f"  {curl_line(contract, server.listen)}"]
    return "\n".join(lines) + "\n\n"


def show_when_ready(settings: Settings, *, behind_nginx: bool) -> int:
    """Wait for the first ready answer and write the banner; also when it never comes, with the reason."""
    parent, give_up_at_s = os.getppid(), time.monotonic() + START_TIMEOUT_S
    state: dict[str, object] = {}
    while time.monotonic() < give_up_at_s and os.getppid() == parent:
        state = _ready(settings)
        reason = str(state.get("reason", ""))
        if state.get("ready") or reason.startswith(("no model", "FileNotFound")):
            break
        time.sleep(0.1)
    if os.getppid() != parent:  # supervisord ended, or never came to be, and has said why itself
        return 1
    problem = "" if state.get("ready") else str(state.get("reason", "no answer"))
    sys.stdout.write(text(settings, behind_nginx=behind_nginx, problem=problem))
    sys.stdout.flush()
    return 0
