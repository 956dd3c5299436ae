"""`make test` runs every step, prints how to run each failed one alone, and fails if one failed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests import steps
from tests.step_parts import of_part

pytestmark = pytest.mark.no_greenlets


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with four make targets: passing tests, failing tests, a step without tests, and a step that fails."""
    (tmp_path / "Makefile").write_text(
        "good:\n\t@cp good.xml $${PYTEST_ADDOPTS##*--junitxml=}\n"
        "bad:\n\t@cp bad.xml $${PYTEST_ADDOPTS##*--junitxml=}; exit 1\n"
        "lint:\n\t@true\n"
        "broken:\n\t@false\n"
    )
    (tmp_path / "good.xml").write_text('<testsuites><testsuite tests="5" skipped="1"/></testsuites>')
    (tmp_path / "bad.xml").write_text('<testsuites><testsuite tests="4" failures="1" errors="1"/></testsuites>')
    monkeypatch.setattr(steps, "PROJECT", tmp_path)
    return tmp_path


def test_all_pass(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """If every step passes, the exit status is 0 and the last line counts all tests."""
    assert steps.main(["lint", "good"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert "== step 1 of 2: make lint" in lines
    assert lines[-1] == "4 passed, 0 failed, 1 skipped"
    assert not [line for line in lines if "FAILED" in line]


def test_a_failure_is_named_and_the_rest_still_runs(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A step without tests that fails counts as one failure, so the last line never looks like a success."""
    assert steps.main(["bad", "broken", "good"]) == 1
    lines = capfd.readouterr().out.splitlines()
    assert "tableside: step bad failed; run it alone with: make bad" in lines
    assert "tableside: step broken failed; run it alone with: make broken" in lines
    assert [line.split()[0] for line in lines if line.startswith("  ")] == ["FAILED", "FAILED", "passed"]
    assert lines[-1] == "6 passed, 3 failed, 1 skipped"


UNSTEADY = """
from pathlib import Path
import pytest

@pytest.mark.parametrize("case", ["a b", "c"])
def test_unsteady(case):
    marker = Path(__file__).with_name(case)
    seen, _ = marker.exists(), marker.touch()
    assert seen

def test_bad():
    assert BAD_PASSES

def test_good():
    pass
"""


@pytest.fixture
def real_tests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose step runs pytest: two tests fail in their first run only. test_bad.py is written by the test."""
    (tmp_path / "Makefile").write_text(f"unit:\n\t@'{sys.executable}' -m pytest -q tests\n")
    (tmp_path / "tests").mkdir()
    monkeypatch.setattr(steps, "PROJECT", tmp_path)
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p no:xdist")
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize(("once", "bad_passes", "status"), [("", True, 0), ("", False, 1), ("1", True, 1)])
def test_few_failed_tests_run_once_more_and_are_named(
    real_tests: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    once: str,
    bad_passes: bool,
    status: int,
) -> None:
    """A test that passes in its second run only fails no step, but the summary names it. One that fails twice fails."""
    monkeypatch.setenv("TABLESIDE_TEST_ONCE", once)
    (real_tests / "tests" / "test_it.py").write_text(UNSTEADY.replace("BAD_PASSES", repr(bad_passes)))
    assert steps.main(["unit"]) == status
    lines = capfd.readouterr().out.splitlines()
    note = "tableside: failed in the first run and passed in the second, which is a fault to mend:"
    assert (note in lines) == (status == 0)
    mark = "  unit: " if status == 0 else "  "
    assert f"{mark}tests/test_it.py::test_unsteady[a b]" in lines
    assert (f"{mark}tests/test_it.py::test_bad" in lines) == (not bad_passes)
    assert lines[-1] == ("4 passed, 0 failed, 0 skipped" if status == 0 else lines[-1])


@pytest.mark.slow
def test_many_failed_tests_do_not_run_again(real_tests: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """If many tests fail, the step has failed."""
    count = steps.SECOND_RUN_AT_MOST + 1
    (real_tests / "tests" / "test_it.py").write_text(
        f"import pytest\n@pytest.mark.parametrize('n', range({count}))\ndef test_it(n):\n    assert n < 0\n"
    )
    assert steps.main(["unit"]) == 1
    lines = capfd.readouterr().out.splitlines()
    assert not [line for line in lines if "run once more" in line]
    assert lines[-1] == f"0 passed, {count} failed, 0 skipped"


def test_every_step_of_the_makefile_is_a_target() -> None:
    """Each step of `make test` is a make target, so it can be run alone."""
    text = (Path(__file__).parents[2] / "Makefile").read_text()
    named = next(line for line in text.splitlines() if line.startswith("STEPS :=")).split()[2:]
    assert len(named) > 5
    for target in named:
        assert f"\n{target}:" in text, target


def test_reports_with_several_suites_are_added_up(tmp_path: Path) -> None:
    """Failures and errors count as failed; without a report the step has no counts."""
    assert steps.counted(tmp_path) is None
    suites = '<testsuite tests="5" failures="1" skipped="2"/><testsuite tests="3" errors="1"/>'
    (tmp_path / "report0.xml").write_text(f"<testsuites>{suites}</testsuites>")
    assert steps.counted(tmp_path) == steps.Counts(passed=4, failed=2, skipped=2)
    (tmp_path / "report1.xml").write_text('<testsuites><testsuite tests="3"/></testsuites>')
    assert steps.counted(tmp_path) == steps.Counts(passed=7, failed=2, skipped=2)


def test_each_part_of_a_step_has_its_own_folder_and_report() -> None:
    """Parts of `make unit-gevent` run side by side, so they must not remove each other's files."""
    options = "-q --basetemp=/tmp/x/t --junitxml=/tmp/x/report.xml"
    assert of_part(options, 1) == "-q --basetemp=/tmp/x/t1 --junitxml=/tmp/x/report1.xml"
    assert of_part("--override-ini=cache_dir=/tmp/cache -k a=b", 0) == "--override-ini=cache_dir=/tmp/cache0 -k a=b"


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0.4, "0 s"), (59.0, "59 s"), (60.0, "1 min 00 s"), (605.9, "10 min 05 s")]
)
def test_the_summary_shows_minutes_from_one_minute_on(seconds: float, expected: str) -> None:
    """The time of a step is in seconds below one minute, and in minutes and seconds above."""
    line = steps.summary([steps.Step("unit", 0, seconds, None)])[2]
    assert line.rstrip().endswith(expected)
