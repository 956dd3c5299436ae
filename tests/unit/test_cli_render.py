"""The text that commands print about a version: sizes, row ranges, speed-ups, equivalence checks, verify results."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console
from rich.progress import Progress

from tableside.cli import render, step_progress
from tableside.contracts.schema import Column, Contract, EquivalenceCheck, Input, Route
from tableside.publishing.progress import show_share
from tests.fakes import sum_contract

pytestmark = pytest.mark.no_greenlets

USED = EquivalenceCheck("linear", "used", "from 1 rows", 10432, 0.0, {"1": 12.345, "32": 4.0})
DIFFERS = EquivalenceCheck("onnx", "differs", "predict differs by 0.01 on 32 rows", 32, 0.0123)
UNSUPPORTED = EquivalenceCheck("treelite", "unsupported", "needs treelite")


def contract_with(*checks: EquivalenceCheck, routes: tuple[Route, ...] = (), **more: Any) -> Contract:
    return msgspec.structs.replace(sum_contract(), equivalence_checks=checks, routes=routes, **more)


@pytest.mark.parametrize(
    ("routes", "expected"),
    [
        ((Route("linear"),), "any number of rows"),
        ((Route("linear", 1), Route("sklearn")), "1 row"),
        ((Route("linear", 32), Route("sklearn")), "1 to 32 rows"),
        ((Route("sklearn", 1), Route("linear", 2), Route("sklearn")), "2 rows"),
        ((Route("sklearn", 32), Route("linear")), "33 or more rows"),
        ((Route("linear", 1), Route("onnx", 32), Route("linear")), "1 row, 33 or more rows"),
        ((Route("onnx"),), "from 1 rows"),
        ((), "from 1 rows"),
    ],
)
def test_a_row_range_is_read_from_the_routes(routes: tuple[Route, ...], expected: str) -> None:
    """The range starts after the route before; without a route of this backend the check's own reason is shown."""
    assert render.row_range(contract_with(USED, routes=routes), USED) == expected


def test_publish_prints_which_calls_a_fast_backend_answers(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Only backends in use are named, with their row range, the compared rows and the speed-up per call size."""
    render.published(contract_with(USED, DIFFERS, routes=(Route("linear"),)), tmp_path, ["a remark"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"published sums/1 in {tmp_path / 'sums' / '1'}"
    assert lines[1] == "  Sum: 2 columns, predict, transform"
    assert lines[2] == "  fast backend linear answers calls of any number of rows"
    assert lines[3] == (
        "    equal on 10432 compared rows; speed compared with the estimator: 12.3x at 1 row, 4x at 32 rows"
    )
    assert lines[4:6] == ["  2 golden rows, artifact 0 B", "note: a remark"]
    assert lines[6].startswith("next: `tableside reload`")
    assert len(lines) == 7


def test_publish_prints_no_speed_that_was_not_measured(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A check without timings ends after the number of compared rows."""
    check = msgspec.structs.replace(USED, speed_up={})
    render.published(contract_with(check, routes=(Route("linear"),)), tmp_path)
    assert "    equal on 10432 compared rows\n" in capsys.readouterr().out


def test_show_has_a_row_for_each_equivalence_check(capsys: pytest.CaptureFixture[str]) -> None:
    """The table names the outcome of the equivalence check, its reason, the compared rows and the difference."""
    render.contract(contract_with(USED, DIFFERS, UNSUPPORTED, routes=(Route("linear"),)))
    lines = capsys.readouterr().out.splitlines()
    heading = next(line for line in lines if line.lstrip().startswith("fast backend"))
    assert "equivalence check" in heading
    assert "preflight" not in heading
    rows = {
        line.split()[0]: line for line in lines if line.split() and line.split()[0] in ("linear", "onnx", "treelite")
    }
    assert "answers calls of any number of rows" in rows["linear"]
    assert "none, bit for bit equal" in rows["linear"]
    assert "12.3x, 4x" in rows["linear"]
    assert "predict differs by 0.01 on 32 rows" in rows["onnx"]
    assert "1.2e-02" in rows["onnx"]
    assert rows["treelite"].split()[-3:] == ["-", "-", "-"]


def test_show_prints_ranges_categories_and_differences(capsys: pytest.CaptureFixture[str]) -> None:
    """A numeric column shows its range, a category column its first six values; each difference is a line."""
    columns = (
        Column("size", "FP64", "float64", nullable=True, minimum=0.5, maximum=2.0),
        Column("shade", "BYTES", "object", categories=tuple("abcdefgh"), closed=True),
        Column("open", "BYTES", "object", categories=("x",)),
    )
    render.contract(contract_with(input=Input("frame", columns)), ["scikit-learn 1.8 here, 1.7 at publish"])
    text = capsys.readouterr().out
    assert "0.5 to 2" in text
    assert "a, b, c, d, e, f, ... (8 in all)" in text
    assert "x or other" in text
    assert "here         scikit-learn 1.8 here, 1.7 at publish" in text


def test_list_of_an_empty_repository_says_what_to_type(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """An empty repository is one line with the command that adds a model."""
    render.versions([], tmp_path)
    assert capsys.readouterr().out == f"no models in {tmp_path}; add one with `tableside publish`\n"


def test_list_shows_dashes_for_what_an_unreadable_contract_hides(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A version whose contract cannot be read has only name, version, aliases and its problem."""
    render.versions([{"name": "m", "version": 3, "aliases": ["best", "new"], "problem": "no contract"}], tmp_path)
    row = next(line for line in capsys.readouterr().out.splitlines() if line.lstrip().startswith("m "))
    assert row.split()[:4] == ["m", "3", "best,", "new"]
    assert row.split()[4:6] == ["-", "-"]
    assert row.rstrip().endswith("no contract")


def test_verify_prints_one_line_per_version(capsys: pytest.CaptureFixture[str]) -> None:
    """A good version shows its golden rows, a bad one its reason; no version at all is said."""
    render.verified(
        [
            {"name": "m", "version": 1, "ok": True, "golden_rows": 8},
            {"name": "m", "version": 2, "ok": False, "reason": "model.skops is damaged"},
        ]
    )
    assert capsys.readouterr().out.splitlines() == [
        "ok    m/1: 8 golden rows answered as at publish",
        "FAIL  m/2: model.skops is damaged",
    ]
    render.verified([])
    assert capsys.readouterr().out == "nothing to verify: the repository has no models\n"


def test_a_step_is_one_line_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a terminal each step is one line, with its prefix, however often it is told."""
    with step_progress.progress("1/2 m: ") as step:
        for name in ("reading", "comparing", "comparing"):
            step(name)
        show_share(step, 1, 2)
    assert capsys.readouterr().err == "... 1/2 m: reading\n... 1/2 m: comparing\n"


def test_a_bar_shows_the_share_of_a_step() -> None:
    """On a terminal the bar of a step is as long as its share, and begins anew with the next step."""
    with Progress(console=Console(file=io.StringIO())) as bar:
        step = step_progress.StepBar(bar, "1/2 m: ")
        step("comparing")
        show_share(step, 1, 4)
        (task,) = bar.tasks
        assert (task.description, task.completed, task.total) == ("1/2 m: comparing", 0.25, 1.0)
        step("writing")
        (task,) = bar.tasks
        assert (task.description, task.completed, task.total) == ("1/2 m: writing", 0, None)
