"""`make test`: runs each step of the gate, goes on after a failure, and ends with one summary.

Usage: python -m tests.steps TARGET...; each TARGET is a target of the Makefile, so a failed step is run alone by
`make TARGET`. Exit status: 0 when every step passed.

If at most SECOND_RUN_AT_MOST tests of a step fail, they alone run once more, as CPython's `regrtest --rerun` does. The
summary names each test that failed in the first run, also when it passed in the second: such a test is a fault to
mend. TABLESIDE_TEST_ONCE=1 leaves the second run out.
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
SECOND_RUN_AT_MOST = 3
"""If more tests of a step fail, the cause is not chance."""
SHOWN = 20
"""How many failed tests of a step the summary names."""


class Counts(NamedTuple):
    """How the tests of one or more pytest runs ended."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0


class Step(NamedTuple):
    """One step that has ended. status: of the process, 0 for success. counts: None for a step without tests.

    failed: the tests that failed. unsteady: those that failed in the first run and passed in the second.
    """

    target: str
    status: int
    seconds: float
    counts: Counts | None
    failed: Sequence[str] = ()
    unsteady: Sequence[str] = ()


def counted(folder: Path) -> Counts | None:
    """The sum of the JUnit reports that pytest wrote in a folder; None when there is none."""
    suites = _suites(folder)
    if not suites:
        return None
    total = failed = skipped = 0
    for suite in suites:
        total += int(suite.get("tests", 0))
        failed += int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        skipped += int(suite.get("skipped", 0))
    return Counts(total - failed - skipped, failed, skipped)


def failures(folder: Path) -> list[str]:
    """The tests that failed, as `path::name`, by the JUnit reports in a folder."""
    cases = [case for suite in _suites(folder) for case in suite.iter("testcase")]
    bad = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    return sorted({_named(case.get("classname", ""), case.get("name", "")) for case in bad})


def _named(module: str, name: str) -> str:
    """A file that cannot be collected is a test without a module, whose name is that of the file."""
    return f"{module.replace('.', '/')}.py::{name}" if module else f"{name.replace('.', '/')}.py"


def _suites(folder: Path) -> list[ElementTree.Element]:
    return [each for report in sorted(folder.glob("*.xml")) for each in ElementTree.parse(report).iter("testsuite")]


def run(target: str, number: int, of: int) -> Step:
    """Run `make TARGET`; its output goes where ours goes. Run the tests that failed once more, if they are few."""
    print(f"\n== step {number} of {of}: make {target}", flush=True)
    began_s = time.monotonic()
    # In a folder of its own, pytest does not remove the folders of earlier runs, which fails if one cannot be removed.
    with tempfile.TemporaryDirectory(prefix="ts-", ignore_cleanup_errors=True) as folder:
        status = _make(target, Path(folder), "1")
        counts, failed = counted(Path(folder) / "1"), failures(Path(folder) / "1")
        if counts and status and 0 < len(failed) <= SECOND_RUN_AT_MOST and not os.environ.get("TABLESIDE_TEST_ONCE"):
            print(f"\n== step {number} of {of}: the tests that failed run once more", flush=True)
            _make(target, Path(folder), "2", "--last-failed", "--last-failed-no-failures=none")
            # A part of a step that has no test to repeat ends with a status of its own, so the reports decide.
            if counted(Path(folder) / "2") == Counts(passed=len(failed)):
                counts = Counts(counts.passed + counts.failed, 0, counts.skipped)
                return Step(target, 0, time.monotonic() - began_s, counts, unsteady=failed)
        return Step(target, status, time.monotonic() - began_s, counts, failed)


def _make(target: str, folder: Path, name: str, *options: str) -> int:
    """Run `make TARGET` with the reports in folder/name. Returns its exit status."""
    reports = folder / name
    reports.mkdir()
    own = [f"--basetemp={reports}/t", f"--override-ini=cache_dir={folder}/cache", *options]
    # The report is the last option, so that a target without pytest can find it.
    added = " ".join([os.environ.get("PYTEST_ADDOPTS", ""), *own, f"--junitxml={reports}/report.xml"]).strip()
    environ = {**os.environ, "PYTEST_ADDOPTS": added}
    return subprocess.run(["make", "--no-print-directory", target], cwd=PROJECT, env=environ).returncode


def summary(steps: Sequence[Step]) -> list[str]:
    """The lines that end the run: a line a step, how to run each failed one alone, and the sum of all tests."""
    lines = ["", f"== summary: {len(steps)} steps in {_minutes(sum(step.seconds for step in steps))}"]
    for step in steps:
        verdict = "passed" if step.status == 0 else "FAILED"
        tests = "" if step.counts is None else f"  {step.counts.passed} tests passed, {step.counts.failed} failed"
        lines.append(f"  {verdict}  {step.target:<14} {_minutes(step.seconds):>8}{tests}")
    failed = [step for step in steps if step.status]
    if failed:
        lines.append("")
    for step in failed:
        lines.append(f"tableside: step {step.target} failed; run it alone with: make {step.target}")
        lines += [f"  {test}" for test in step.failed[:SHOWN]]
        if len(step.failed) > SHOWN:
            lines.append(f"  and {len(step.failed) - SHOWN} more")
    unsteady = [(step.target, test) for step in steps for test in step.unsteady]
    if unsteady:
        lines += ["", "tableside: failed in the first run and passed in the second, which is a fault to mend:"]
        lines += [f"  {target}: {test}" for target, test in unsteady]
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
