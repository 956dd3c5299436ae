"""Runs one contestant with one model once: starts it, checks its answers, loads it, measures and stops it."""

from __future__ import annotations

import contextlib
import http.client
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import fronts, wires, wrk
from benchmarks.constant_rate import open_loop
from benchmarks.contestants import DIRECT, NGINX, Contestant, Place
from benchmarks.free_ports import free_port
from benchmarks.models import Model
from benchmarks.processes import Server, pss_mb
from benchmarks.wires import Wire

START_LIMIT_S = 90
WARM_UP_S = 1
MANY_ROWS, MANY_CONNECTIONS = 1000, 4


class Failed(Exception):
    """A contestant did not start or gave a wrong answer; the message has the details."""


@dataclass(frozen=True)
class Plan:
    """What to measure. seconds: duration of each load. loads: their names.

    `c1` and `c64` are closed loops with so many connections. `open200` is an open loop at 200 requests/s. `half` is an
    open loop at half the rate that the closed loop reached. `binary` sends 1000 rows as JSON and as a binary tensor, to
    Tableside only.
    """

    seconds: float
    loads: tuple[str, ...]


@dataclass
class Trial:
    """The result of one run. measured: one entry per way and load. failure: why the run ended early, or empty."""

    contestant: str
    model: str
    startup_s: float = float("nan")
    pss_mb: float = float("nan")
    processes: int = 0
    measured: list[dict[str, Any]] = field(default_factory=list)
    failure: str = ""


def run(contestant: Contestant, bin_folder: Path, model: Model, plan: Plan, progress: Callable[[str], None]) -> Trial:
    """Run a contestant once. An error of the contestant is not raised but stored as `failure` of the trial."""
    trial = Trial(contestant.name, model.name)
    folder = Path(tempfile.mkdtemp(prefix="tsbench-"))
    try:
        place = Place(folder, bin_folder, model, free_port())
        with _served(contestant, place, trial) as (server, ports):
            wire = contestant.wire(model)
            if contestant.checked:
                check(ports[contestant.ways[0]], wire)
            for way, port in ports.items():
                _load(trial, way, port, wire, plan, progress)
            if "binary" in plan.loads and contestant.name == "tableside" and model.name == "logistic":
                _many_rows(trial, ports[DIRECT], model, plan)
            pids = server.pids()
            trial.pss_mb, trial.processes = pss_mb(pids), len(pids)
            if not server.running():
                raise Failed(f"ended under load: {server.last_lines()}")
    except Failed as problem:
        trial.failure = str(problem)
    except Exception as problem:  # noqa: BLE001 - an error of one contestant must not end the comparison
        trial.failure = f"{type(problem).__name__}: {problem}"[:600]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return trial


@contextlib.contextmanager
def _served(contestant: Contestant, place: Place, trial: Trial) -> Iterator[tuple[Server, dict[str, int]]]:
    launch = contestant.launch(place)
    with contextlib.ExitStack() as stack:
        began = time.perf_counter()
        server = Server(launch.command, launch.folder, launch.environ, place.folder / "server.log")
        stack.callback(server.stop)
        wait_for_answer(server, place.port, contestant.wire(place.model))
        trial.startup_s = time.perf_counter() - began
        if contestant.own_nginx:
            ports = {contestant.ways[0]: place.port}
        else:
            ports = {DIRECT: place.port}
            if NGINX in contestant.ways:
                front, more = fronts.start(place, contestant.ways)
                stack.callback(front.stop)
                ports |= more
                for port in more.values():
                    wait_for_answer(front, port, contestant.wire(place.model))
        yield server, ports


def wait_for_answer(server: Server, port: int, wire: Wire) -> None:
    """Wait for the first 200. Raises Failed if the server ends or takes longer than START_LIMIT_S."""
    deadline_at_s = time.monotonic() + START_LIMIT_S
    answer = "no connection"
    while time.monotonic() < deadline_at_s:
        with contextlib.suppress(OSError, http.client.HTTPException):
            status, body, _ = ask(port, wire, wire.bodies[0])
            if status == 200:
                return
            answer = f"{status} {body[:200]!r}"
        if not server.running():
            raise Failed(f"ended at start: {server.last_lines()}")
        time.sleep(0.02)
    raise Failed(f"no 200 within {START_LIMIT_S} s, last {answer}: {server.last_lines()}")


def ask(port: int, wire: Wire, body: bytes) -> tuple[int, bytes, dict[str, str]]:
    """Send one request. Return status, body and headers of the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("POST", wire.path, body, wire.headers)
        answer = connection.getresponse()
        return answer.status, answer.read(), dict(answer.getheaders())
    finally:
        connection.close()


def check(port: int, wire: Wire) -> None:
    """Compare the answer to every body with the estimator's. Raises Failed at the first difference."""
    for at, (body, expected) in enumerate(zip(wire.bodies, wire.expected, strict=True)):
        status, content, headers = ask(port, wire, body)
        if status != 200:
            raise Failed(f"row {at} was answered with status {status}: {content[:300]!r}")
        found = wire.read(content, headers)
        if found != expected:
            raise Failed(f"row {at} was answered {found[:5]}; the estimator answers {expected[:5]}")


def loads_of(plan: Plan, contestant: str, way: str) -> list[str]:
    """Return the single-row loads for a contestant. Behind nginx only Tableside gets the loads that do not saturate."""
    rows = [load for load in plan.loads if load != "binary"]
    if way == DIRECT or contestant.startswith("tableside"):
        return rows
    return [load for load in rows if load.startswith("c") and load != "c1"]


def _load(trial: Trial, way: str, port: int, wire: Wire, plan: Plan, progress: Callable[[str], None]) -> None:
    saturated = 0.0
    wrk.closed_loop(port, wire, 64, WARM_UP_S)
    for load in loads_of(plan, trial.contestant, way):
        progress(f"{way} {load}")
        if load.startswith("c"):
            measured = _closed(port, wire, int(load[1:]), plan.seconds)
            if int(load[1:]) > 1 and not measured["faults"]:
                saturated = max(saturated, measured["rate"])
        elif load == "half" and not saturated:
            measured = {"skipped": "no rate without faults to take half of"}
        elif load == "half" or load.startswith("open"):
            rate = saturated / 2 if load == "half" else float(load[4:])
            measured = open_loop(port, wire.path, wire.headers, wire.bodies, rate, plan.seconds)
        else:
            raise ValueError(f"{load!r} is not a load; choose from cN, openRATE, half and binary")
        trial.measured.append({"way": way, "load": load, **measured})


def _closed(port: int, wire: Wire, connections: int, seconds: float) -> dict[str, Any]:
    measured = wrk.closed_loop(port, wire, connections, seconds).as_dict()
    if connections > 1:
        hungry = wrk.starved(port, wire, connections, measured["rate"])
        if hungry:
            measured["faults"]["starved"] = hungry
    return measured


def _many_rows(trial: Trial, port: int, model: Model, plan: Plan) -> None:
    for form, wire in wires.many_rows(model, MANY_ROWS).items():
        check(port, wire)
        wrk.closed_loop(port, wire, MANY_CONNECTIONS, WARM_UP_S)
        measured = wrk.closed_loop(port, wire, MANY_CONNECTIONS, plan.seconds).as_dict()
        trial.measured.append({"way": DIRECT, "load": f"{form}-{MANY_ROWS}x{len(model.rows[0])}", **measured})
