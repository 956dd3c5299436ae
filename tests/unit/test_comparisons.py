"""Counts of all workers add up, and none is lost or counted twice when a slot gets another worker."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tableside.repository.model_toml import ModelConfig
from tableside.repository.traffic_config import CanaryConfig, ShadowConfig
from tableside.serving import comparisons
from tableside.serving.comparisons import ComparisonId, Counts
from tableside.serving.log_histogram import LogHistogram

ID = ComparisonId("m", 2, "shadow", "2026-11-26 23:00:00+00:00")


def counts(rows: int, wanted: ComparisonId = ID) -> Counts:
    made = Counts(wanted, flips=1, cpu_s=0.5, dropped={"busy": 2})
    made.candidate.requests = made.candidate.rows = rows
    made.candidate.seconds.add(0.01)
    made.of_output("predict").add_all(np.array([0.0, 1.0, 2.0]))
    return made


@pytest.mark.parametrize("share", [0.01, 0.5, 0.9, 0.99, 1.0])
def test_a_quantile_is_exact_to_five_per_cent(share: float) -> None:
    """Log-normal latencies over four decades, added one by one and as an array."""
    numbers = np.exp(np.random.default_rng(3).normal(-5, 1.5, 5000))
    one, all_at_once = LogHistogram(), LogHistogram()
    for number in numbers:
        one.add(float(number))
    all_at_once.add_all(numbers)
    assert one == all_at_once
    found = one.quantile(share)
    assert found == pytest.approx(np.quantile(numbers, share, method="inverted_cdf"), rel=0.06)


def test_zeros_count_in_quantiles() -> None:
    """Nine equal answers and one difference: the median is none."""
    histogram = LogHistogram()
    histogram.add_all(np.array([0.0] * 9 + [5.0]))
    assert (histogram.count, histogram.quantile(0.5)) == (10, 0.0)
    assert histogram.quantile(0.99) == pytest.approx(5.0, rel=0.06)
    assert LogHistogram().quantile(0.5) is None


def test_the_files_of_all_slots_add_up(tmp_path: Path) -> None:
    """Other comparisons, damaged files and files of another form do not count."""
    other = ComparisonId("m", 2, "shadow", "later")
    comparisons.write(tmp_path, 0, [counts(100)])
    comparisons.write(tmp_path, 1, [counts(11), counts(5, other)])
    (tmp_path / "2.json").write_text("[{")
    (tmp_path / "3.json").write_text('[{"id": 7}]')
    found = comparisons.merged(tmp_path, [ID])[ID]
    assert (found.candidate.rows, found.flips, found.cpu_s, found.dropped) == (111, 2, 1.0, {"busy": 4})
    assert (found.candidate.seconds.count, found.deltas["predict"].zeros, found.deltas["predict"].count) == (2, 2, 6)
    assert comparisons.merged(tmp_path / "nowhere", [ID])[ID] == Counts(ID)
    assert comparisons.read(tmp_path, 0) == [counts(100)]


def test_a_folder_that_cannot_be_made_is_no_error(tmp_path: Path) -> None:
    """Counts then stay in the worker's memory."""
    (tmp_path / "file").write_text("")
    comparisons.write(tmp_path / "file" / "comparisons", 0, [counts(1)])


def test_a_comparison_is_the_version_the_kind_and_when_it_began() -> None:
    """A larger percentage goes on with the same one; another `since` begins anew."""
    small, large = ModelConfig(canary=CanaryConfig(2, 5)), ModelConfig(canary=CanaryConfig(2, 50))
    assert comparisons.ids("m", small) == comparisons.ids("m", large)
    assert set(comparisons.ids("m", ModelConfig(canary=CanaryConfig(2, 5), shadow=ShadowConfig(2, 5)))) == {
        "canary", "shadow",
    }  # fmt: skip
