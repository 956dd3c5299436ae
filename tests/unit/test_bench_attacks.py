"""The attacks' table: what counts as a promise that did not hold, and the walk of the URL map."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.attacks import bodies, routes, workers
from benchmarks.attacks.rows import CPU_MARGIN, Limits, Row, refused, size_text, table
from benchmarks.soak.measured import Sent, Window
from tableside.web.auth import Access
from tests.waiting import wait_until

pytestmark = pytest.mark.no_greenlets
WINDOW = Window("bomb", 1, 100.0, 110.0)


def row(limits: Limits | None = None, **more: object) -> Row:
    made = Row("bomb", 1780, "1.2 GB", "413", True, WINDOW, limits or refused(1780, 0), "tests/x.py", cpu_ms=1.0)
    for name, value in more.items():
        assert hasattr(made, name)
        setattr(made, name, value)
    return made


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({}, None),
        ({"is_right": False, "status": "200"}, "it got 200"),
        ({"lost": 1}, "1 workers died, and 0 may"),
        ({"failed": 2, "said": ["503 x"]}, "2 other requests failed: 503 x"),
        ({"peak_bytes": 68_000_000}, "a worker grew by 68 MB, and 67 MB are allowed"),
        ({"kept_bytes": 68_000_000}, "a worker kept 68 MB, and 67 MB are allowed"),
        ({"cpu_ms": 5.1 * CPU_MARGIN}, "it took 15 ms of CPU, and 5 ms are allowed"),
        ({"cpu_ms": None}, None),
    ],
)
def test_what_breaks_a_promise(more: dict[str, object], problem: str | None) -> None:
    """A wrong answer, a lost worker, a failed neighbour, memory and CPU time beyond the limits; each by itself."""
    assert row(**more).problems() == ([problem] if problem else [])


def test_limits_may_be_wider() -> None:
    """A request that ends workers may take two, and a flood may keep the steady client out."""
    assert row(Limits(lost=2, neighbours_may_fail=True), lost=2, failed=9, cpu_ms=900.0).problems() == []


def test_a_refusal_may_cost_what_inflating_costs() -> None:
    """5 ms, and 10 ms a megabyte that is received or inflated; 64 MB, and 50 times the body."""
    limits = refused(1_000_000, 2_000_000)
    assert (limits.cpu_ms, limits.peak_bytes) == (35.0, 50_000_000 + (64 << 20))


def test_neighbours_are_those_that_were_due_meanwhile() -> None:
    """The longest wait and the failures are of the attack's window."""
    found = row()
    beside = [Sent(99.9, 9.0, "m", "503"), Sent(100.0, 0.5, "m", "ok"), Sent(109.0, 0.1, "m", "503 y")]
    found.observe([*beside, Sent(110.0, 8.0, "m", "ok")])
    assert (found.requests, found.failed, found.stall_ms, found.said) == (2, 1, 500.0, ["503 y"])
    line = table([found]).splitlines()[-1]
    assert line == "| bomb | 1.8 kB | 1.2 GB | 413 | 1.0 | 0.0 | 0.0 | 500 | 0 | 1 of 2 | `tests/x.py` |"


def test_sizes_have_a_unit() -> None:
    """As in the report of the weakness."""
    assert [size_text(size) for size in (728, 54_000, 7_200_045, 60_000_000)] == ["728 B", "54.0 kB", "7.2 MB", "60 MB"]


TAKES_MEMORY = """
import sys
print("ready", flush=True)
sys.stdin.readline()
taken = b"x" * (30 << 20)
sum(range(3 * 10**6))
print(len(taken), flush=True)
sys.stdin.readline()
"""


def test_a_process_is_measured() -> None:
    """Memory that is taken shows in the peak and in what is kept, and work in the CPU time. It is a process of its own:
    what takes memory here may get some that was freed before, and grow by nothing.
    """
    with subprocess.Popen(
        [sys.executable, "-c", TAKES_MEMORY], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        peaks, before_s = workers.Peaks([process.pid]), workers.cpu_s([process.pid])
        process.stdin.write(b"take\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"31457280\n"
        assert peaks.growth("VmRSS") > 20 << 20
        assert peaks.growth() > 20 << 20
        assert wait_until(lambda: workers.cpu_s([process.pid]) > before_s)
        process.stdin.write(b"end\n")
        process.stdin.flush()
    assert workers.cpu_s([2**22 + 1]) == 0


def test_bodies_are_as_small_as_they_were_reported() -> None:
    """They are made in code, and have the sizes of the report."""
    sizes = {"Arrow: a million rows of nulls": 728, "V2: one output 1000 times": 41_081}
    assert {body.name: len(body.make()[0]) for body in bodies.BODIES if body.name in sizes} == sizes


def test_the_walk_names_every_rule(tmp_path: Path) -> None:
    """Each rule with its methods, planes and scope: the data plane has no operator's route."""
    walked = routes.walk(routes.application(tmp_path))
    assert ("/v2/health/ready", "GET", "data, control", "open") in walked
    assert ("/admin/api/reload", "POST", "control", "admin") in walked
    assert ("/metrics", "GET", "control", "metrics") in walked
    assert {planes for _, _, planes, scope in walked if scope in ("admin", "metrics")} == {"control"}
    assert {scope for *_, scope in walked} == {access.value for access in Access}
    assert routes.table(walked).count("\n") == len(walked) + 1
