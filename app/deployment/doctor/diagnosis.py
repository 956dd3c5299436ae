"""Runs every check of the doctor."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tableside.deployment.doctor import (
    bodies,
    clock,
    connections,
    drift,
    exposed,
    leftovers,
    models,
    modes,
    processors,
    space,
    timeouts,
    workers,
)
from tableside.deployment.doctor.finding import Finding, Level
from tableside.deployment.doctor.set_up import SetUp, gather
from tableside.errors import StackError, TablesideError
from tableside.settings import Settings

CHECKS: dict[str, Callable[[SetUp], Iterator[Finding]]] = {
    "timeouts": timeouts.check, "bodies": bodies.check, "connections": connections.check,
    "processors": processors.check, "leftovers": leftovers.check, "modes": modes.check, "exposed": exposed.check,
    "space": space.check, "clock": clock.check, "models": models.check, "workers": workers.check, "drift": drift.check,
}  # fmt: skip
TOLD_BY_START = ("space", "exposed")
"""What `tableside run` itself tells or refuses."""
_ORDER = list(Level)


def examine(set_up: SetUp, without: tuple[str, ...] = ()) -> list[Finding]:
    """Return what every check finds, errors first. without: names of CHECKS to leave out.

    A check that cannot read what it needs is a finding itself, and the others go on.
    """
    found: list[Finding] = []
    for name, check in CHECKS.items():
        if name in without:
            continue
        try:
            found += check(set_up)
        except (OSError, ValueError, LookupError, TablesideError) as problem:
            found.append(
                Finding(
                    Level.WARNING,
                    name,
                    f"the doctor cannot check {name}",
                    f"{type(problem).__name__}: {problem}",
                    "mistakes there are not seen",
                    "Give this user read access, or correct the file",
                )  # fmt: skip
            )
    return sorted(found, key=lambda each: _ORDER.index(each.level))


def diagnose(settings: Settings) -> list[Finding]:
    """Return what is wrong with the stack of these settings, running or not."""
    try:
        return examine(gather(settings))
    except (StackError, ValueError) as problem:
        return [
            Finding(
                Level.ERROR,
                "set-up",
                "the set-up cannot be read",
                str(problem),
                "the stack does not start",
                "Correct what the message names",
            )  # fmt: skip
        ]


def start_lines(settings: Settings) -> str:
    """Return the errors and warnings as lines, for the start of a stack. Never raises: nothing may stop a start."""
    try:
        found = examine(gather(settings), without=TOLD_BY_START)
        lines = [each.line() for each in found if each.level is not Level.NOTE]
    except Exception as problem:  # noqa: BLE001 - a mistake in a check must not stop a start
        lines = [f"warning: `tableside doctor` has failed: {type(problem).__name__}: {problem}"]
    return "".join(f"tableside: {line}\n" for line in lines)
