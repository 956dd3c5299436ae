"""`make test`: runs each step of the gate, goes on after a failure, and ends with one summary.

Usage: python -m tests.steps TARGET...; each TARGET is a target of the Makefile, so a failed step is run alone by
`make TARGET`. Exit status: 0 when every step passed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

PROJECT = Path(__file__).resolve().parents[1]


class Counts(NamedTuple):
    """How the tests of one or more pytest runs ended."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0


class Step(NamedTuple):
    """One step that has ended. status: of the process, 0 for success. counts: None for a step without tests."""

    target: str
    status: int
    seconds: float
    counts: Counts | None


def counted(folder: Path) -> Counts | None:
    """The sum of the JUnit reports that pytest wrote in a folder; None when there is none."""
    reports = sorted(folder.glob("*.xml"))
    if not reports:
        return None
    total = failed = skipped = 0
    for suite in (each for report in reports for each in ElementTree.parse(report).getroot().iter("testsuite")):
        total += int(suite.get("tests", 0))
        failed += int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        skipped += int(suite.get("skipped", 0))
    return Counts(total - failed - skipped, failed, skipped)


def run(target: str, number: int, of: int) -> Step:
    """Run `make TARGET`; its output goes where ours goes."""
    print(f"\n== step {number} of {of}: make {target}", flush=True)
    # In a folder of its own, pytest does not remove the folders of earlier runs, which fails if one cannot be removed.
    with tempfile.TemporaryDirectory(prefix="ts-", ignore_cleanup_errors=True) as folder:
        report = Path(folder) / "report.xml"
        options = f"{os.environ.get('PYTEST_ADDOPTS', '')} --basetemp={folder}/t --junitxml={report}".strip()
        environ = {**os.environ, "PYTEST_ADDOPTS": options}
        began_s = time.monotonic()
        status = subprocess.run(["make", "--no-print-directory", target], cwd=PROJECT, env=environ).returncode
        return Step(target, status, time.monotonic() - began_s, counted(Path(folder)))


def summary(steps: Sequence[Step]) -> list[str]:
    """The lines that end the run: a line a step, how to run each failed one alone, and the sum of all tests."""
    lines = ["", f"== summary: {len(steps)} steps in {_minutes(sum(step.seconds for step in steps))}"]
    for step in steps:
        verdict = "passed" if step.status == 0 else "FAILED"
        tests = "" if step.counts is None else f"  {step.counts.passed} tests passed, {step.counts.failed} failed"
        lines.append(f"  {verdict}  {step.target:<14} {_minutes(step.seconds):>8}{tests}")
    failed = [step.target for step in steps if step.status]
    if failed:
        lines.append("")
        lines += [f"tableside: step {target} failed; run it alone with: make {target}" for target in failed]
    counts = [step.counts or Counts() for step in steps]
    total = Counts(*(sum(column) for column in zip(*counts, strict=True)))
    without_tests = sum(step.status != 0 and not (step.counts and step.counts.failed) for step in steps)
    lines += ["", f"{total.passed} passed, {total.failed + without_tests} failed, {total.skipped} skipped"]
    return lines


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60} min {int(seconds) % 60:02d} s" if seconds >= 60 else f"{seconds:.0f} s"


def main(targets: Sequence[str]) -> int:
    """Run all, print the summary."""
    steps = [run(target, number, len(targets)) for number, target in enumerate(targets, 1)]
    print("\n".join(summary(steps)), flush=True)
    return 1 if any(step.status for step in steps) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
