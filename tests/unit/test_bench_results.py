"""The benchmark's arithmetic: faults do not count, ratios are within a round, and every failure is reported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import machine, report
from benchmarks.contestants import CONTESTANTS
from benchmarks.results import Spread, ratios, summarise

pytestmark = pytest.mark.no_greenlets

KEY = ("tableside", "direct", "logistic", "c64")


def measured(rate: float, *, load: str = "c64", way: str = "direct", **faults: int) -> dict[str, Any]:
    return {"way": way, "load": load, "rate": rate, "p50_ms": 2.0, "p99_ms": 8.0, "faults": faults}


def trial(
    number: int, contestant: str, *each: dict[str, Any], model: str = "logistic", failure: str = ""
) -> dict[str, Any]:
    about = {"round": number, "contestant": contestant, "model": model, "failure": failure}
    return {**about, "startup_s": 1.5, "pss_mb": 200.0, "processes": 3, "measured": list(each)}


def ratio(trials: list[dict[str, Any]], what: str) -> Any:
    found = {each.what: each for each in ratios(trials, "bare-gevent")}
    return found[what]


def test_a_spread_is_median_least_and_most() -> None:
    """A spread is shown as median (low to high), with fewer decimals for larger values."""
    assert Spread.of([3, 1, 2]) == Spread(2, 1, 3)
    assert str(Spread.of([1234.4, 1000.2, 2000])) == "1,234 (1,000 to 2,000)"
    assert str(Spread.of([0.512])) == "0.51"


def test_a_machine_is_described_without_wrk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The soak and the attacks do not use it, and describe the machine all the same."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.describe()["wrk"] == "not installed"


def test_rounds_with_faults_do_not_count() -> None:
    """The median is over the rounds without faults; each fault is shown with its largest count."""
    trials = [
        trial(1, "tableside", measured(100)),
        trial(2, "tableside", measured(900, timeout=3, starved=1)),
        trial(3, "tableside", measured(800, timeout=7)),
    ]
    summary = summarise(trials)[KEY]
    assert summary.figures["rate"] == Spread(100, 100, 100)
    assert summary.faulty["rate"] == Spread(850, 800, 900)
    assert summary.faults == {"timeout": 7, "starved": 1}


def test_a_load_that_was_skipped_is_no_measurement() -> None:
    """A skipped load has no rate and no summary."""
    assert summarise([trial(1, "tableside", {"way": "direct", "load": "half", "skipped": "no rate"})]) == {}


def test_ratios_are_taken_within_a_round() -> None:
    """A ratio is computed for each round, so a slow round weighs as much as a fast one."""
    trials = [
        *(trial(at, "tableside", measured(rate)) for at, rate in enumerate((500, 100))),
        *(trial(at, "bare-gevent", measured(rate)) for at, rate in enumerate((1000, 100))),
    ]
    assert ratio(trials, "Tableside direct / bare-gevent direct").spread == Spread(0.75, 0.5, 1)


def test_a_starving_bare_server_is_the_bar_all_the_same() -> None:
    """Leaving its rate out would make the comparison easier; the note says so."""
    trials = [trial(1, "tableside", measured(500)), trial(1, "bare-gevent", measured(1000, starved=9))]
    found = ratio(trials, "Tableside direct / bare-gevent direct")
    assert found.spread == Spread(0.5, 0.5, 0.5)
    assert "faults" in found.note


def test_tablesides_own_faults_leave_no_ratio() -> None:
    """A rate with errors is no rate, ours first of all."""
    trials = [trial(1, "tableside", measured(500, status=1)), trial(1, "bare-gevent", measured(1000))]
    assert ratio(trials, "Tableside direct / bare-gevent direct").spread is None


def test_the_best_peer_of_each_round_is_the_bar() -> None:
    """The best server of each round without faults counts; servers with faults are named in the note."""
    trials = [
        trial(1, "tableside", measured(1000)),
        trial(1, "mlserver", measured(100)),
        trial(1, "bentoml", measured(250)),
        trial(1, "mlflow", measured(900, timeout=2)),
    ]
    found = ratio(trials, "logistic, direct: Tableside / the best product")
    assert found.spread == Spread(4, 4, 4)
    assert "mlflow" in found.note


def test_tails_and_binary_tensors() -> None:
    """Tail ratios divide p99 by p50 of the same round, and the binary ratio divides its rate by that of JSON."""
    many = [measured(900, load="binary-1000x30"), measured(300, load="json-1000x30")]
    trials = [trial(1, "tableside", measured(500), measured(250, load="half"), *many)]
    assert ratio(trials, "p99 / p50 at saturation, direct").spread == Spread(4, 4, 4)
    assert ratio(trials, "p99 / p50 at half load, direct").spread == Spread(4, 4, 4)
    assert ratio(trials, "binary tensor / JSON, 1000 rows of 30, direct").spread == Spread(3, 3, 3)


@pytest.fixture
def results() -> dict[str, Any]:
    machine = {
        "cores": 2,
        "cpu": "Quick",
        "virtualised": True,
        "memory_gb": 8,
        "distribution": "Debian",
        "kernel": "Linux",
    }
    return {
        "date": "2026-01-01",
        "stem": "x",
        "commit": "abc",
        "machine": {**machine, "python": "3.11", "nginx": "nginx", "wrk": "wrk", "load_1min": 3.0},
        "remark": "shared with others",
        "plan": {"rounds": 1, "seconds": 2, "models": ["logistic"], "rows": 48},
        "packages": {"tableside": {"flask": "3.1", "numpy": "2.4"}, "bentoml": {"bentoml": "1.4"}},
        "bare": "bare-gevent",
        "not_installed": {"mlserver": "no wheel"},
        "trials": [
            trial(1, "tableside", measured(1000)),
            trial(1, "flask", measured(700, starved=30)),
            trial(1, "bentoml", failure="row 3 answered [1], the estimator [0]"),
        ],
    }


def test_the_page_lists_servers_that_did_not_run(results: dict[str, Any]) -> None:
    """A server that was not installed, or whose run failed, is listed with the reason."""
    page = report.page(results)
    assert "- mlserver: not installed: no wheel" in page
    assert "- bentoml, logistic, round 1: row 3 answered [1], the estimator [0]" in page
    assert "| bentoml | logistic |" not in page  # no start-up or memory of a run that failed


def test_the_page_strikes_rates_that_do_not_count(results: dict[str, Any]) -> None:
    """A rate with faults is struck through and shown with its faults."""
    page = report.page(results)
    assert "| tableside | direct | 1,000 | 2.00 | 8.00 | 1 |" in page
    assert "| flask | direct | ~~700~~ | ~~2.00~~ | ~~8.00~~ | 1, none without faults; at most 30 starved |" in page
    assert "shared with others" in page
    assert "tableside: flask 3.1, numpy 2.4; bentoml: bentoml 1.4" in page


def test_every_trials_contestant_is_known() -> None:
    """The contestants that ratios and tables name exist."""
    assert {"tableside", "tableside-nginx", "bare-gevent", "bare-pywsgi"} < CONTESTANTS.keys()
