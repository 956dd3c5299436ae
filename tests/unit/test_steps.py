"""`make test` runs every step, says which failed and how to run it alone, and fails when one did."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import steps

pytestmark = pytest.mark.no_greenlets


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with four targets: of tests that pass, of tests that fail, of no tests, and one that is broken."""
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
    """The exit status is 0, and the last line counts all tests."""
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


def test_every_step_of_the_makefile_is_a_target() -> None:
    """What the summary tells a person to type exists."""
    text = (Path(__file__).parents[2] / "Makefile").read_text()
    named = next(line for line in text.splitlines() if line.startswith("STEPS :=")).split()[2:]
    assert len(named) > 5
    for target in named:
        assert f"\n{target}:" in text, target
