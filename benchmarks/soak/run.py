"""Runs the rounds of a soak beside a steady client."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.soak.client_process import steady_client
from benchmarks.soak.events import EVENTS
from benchmarks.soak.measured import BASELINE, Sent, Window, read
from benchmarks.soak.models import Target
from benchmarks.soak.stack import SoakFailed, Stack
from benchmarks.soak.switches import switching

BEFORE_S = 1.0
"""Seconds before an event that belong to its window."""


class Plan(NamedTuple):
    """rate: requests a second. settle_s: seconds after an event that belong to its window. events: names."""

    rounds: int
    rate: float
    settle_s: float
    events: tuple[str, ...]


class Result(NamedTuple):
    """What a soak measured.

    troubles: events that were not over in time, and changes that were refused, with the reason. switches: how many
    changes of the models all workers have made meanwhile.
    """

    start_s: float
    sent: list[Sent]
    windows: list[Window]
    troubles: list[str]
    switches: int = 0


def soak(stack: Stack, targets: Sequence[Target], plan: Plan, out: Path, progress: Callable[[str], None]) -> Result:
    """Start the stack, run all rounds beside the client, and stop the stack. `out`: the client's file."""
    windows: list[Window] = []
    troubles: list[str] = []
    try:
        progress("starting the stack")
        start_s = stack.start()
        progress(f"ready after {start_s:.1f} s")
        with (
            steady_client(stack.port, targets, plan.rate, out),
            switching(stack, targets[0].model, troubles) as switches,
        ):
            for number in range(1, plan.rounds + 1):
                windows.append(_window(BASELINE, number, lambda: time.sleep(plan.settle_s), 0))
                for event in plan.events:
                    progress(f"round {number} of {plan.rounds}: {event}")
                    windows.append(_window(event, number, lambda: _happen(event, stack, troubles), plan.settle_s))  # noqa: B023
    finally:
        stack.stop()
    return Result(start_s, read(out), windows, troubles, switches.made)


def _window(event: str, number: int, act: Callable[[], None], settle_s: float) -> Window:
    time.sleep(BEFORE_S)
    begin_s = time.time() - BEFORE_S
    act()
    time.sleep(settle_s)
    return Window(event, number, begin_s, time.time())


def _happen(event: str, stack: Stack, troubles: list[str]) -> None:
    try:
        EVENTS[event](stack)
    except (SoakFailed, subprocess.TimeoutExpired, OSError, ValueError) as problem:
        troubles.append(f"{event}: {problem}")
