"""What changed between two answers of /metrics: increases through new starts, and Prometheus's quantiles."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from tableside.telemetry import metric_changes, slot_counts
from tableside.telemetry.metrics import Metrics
from tests.unit.test_metrics import run

COUNT = """
slot, code, count = sys.argv[1:4]
assert metrics.use_worker_slot(int(slot), Path(sys.argv[4]))
made = metrics.make()
made.requests.labels("iris", "1", "v1", code).inc(int(count))
made.rows.labels("iris", "1").inc(1000)
"""


def text_of(metrics: Metrics) -> str:
    return generate_latest(metrics.registry).decode()


def test_only_the_wanted_families_are_parsed() -> None:
    """Labels keep what Prometheus escapes, and a family whose name begins like a wanted one is left out."""
    metrics = Metrics(CollectorRegistry())
    metrics.requests.labels('a"b\\c\nd', "1", "v1", "200").inc(3)
    metrics.request_seconds.labels("iris", "1").observe(0.002)
    metrics.in_flight.labels("iris").set(2)
    found = metric_changes.parse(text_of(metrics), {"tableside_requests", "tableside_requests_in_flight"})
    labels = (("code", "200"), ("model", 'a"b\\c\nd'), ("protocol", "v1"), ("version", "1"))
    assert found[("tableside_requests_total", labels)] == 3.0
    assert found[("tableside_requests_in_flight", (("model", "iris"),))] == 2.0
    assert {name for name, _ in found} <= {
        "tableside_requests_total",
        "tableside_requests_created",
        "tableside_requests_in_flight",
    }


def test_other_text_is_an_error() -> None:
    """An answer of another program says so, instead of looking like a stack without traffic."""
    with pytest.raises(ValueError, match="."):
        metric_changes.parse("tableside_requests_total{", {"tableside_requests"})


def test_a_smaller_counter_has_begun_again() -> None:
    """What it has counted since then is the increase; what it counted before is lost, and nothing is negative."""
    assert metric_changes.increase(10, 15) == 5
    assert metric_changes.increase(10, 4) == 4
    key = ("tableside_requests_total", (("model", "iris"),))
    other = ("tableside_requests_total", (("model", "wine"),))
    found = dict(metric_changes.counted({key: 10}, {key: 4, other: 7}, "tableside_requests_total"))
    assert found == {(("model", "iris"),): 4, (("model", "wine"),): 7}


def test_all_buckets_begin_again_with_their_count() -> None:
    """After a new start a bucket may be larger than before although its histogram has begun again."""

    def histogram(low: float, high: float) -> metric_changes.Samples:
        return {
            ("s_bucket", (("le", "0.1"), ("model", "iris"))): low,
            ("s_bucket", (("le", "+Inf"), ("model", "iris"))): high,
            ("s_count", (("model", "iris"),)): high,
        }

    iris = (("model", "iris"),)
    assert metric_changes.buckets(histogram(1, 9), histogram(4, 14), "s") == {iris: {0.1: 3, math.inf: 5}}
    assert metric_changes.buckets(histogram(1, 9), histogram(4, 5), "s") == {iris: {0.1: 4, math.inf: 5}}


@pytest.mark.parametrize(
    ("share", "counts", "expected"),
    [
        (0.5, (4, 8, 8), 0.1),
        (0.5, (0, 10, 10), 0.55),
        (0.95, (90, 100, 100), 0.55),
        (0.99, (0, 0, 5), 1.0),
        (0.5, (10, 10, 10), 0.05),
        (0.5, (3, 3, 9), 1.0),
        (0.5, (0, 0, 0), None),
    ],
)
def test_quantiles_are_those_of_prometheus(share: float, counts: tuple[float, ...], expected: float | None) -> None:
    """The values are what `promtool test rules` computes by histogram_quantile for buckets up to 0.1, 1 and above."""
    found = metric_changes.quantile(share, list(zip((0.1, 1.0, math.inf), counts, strict=True)))
    assert found == (pytest.approx(expected) if expected is not None else None)


def test_histograms_add_up() -> None:
    """Those of several versions are one."""
    assert metric_changes.summed([{0.1: 1, math.inf: 2}, {math.inf: 3, 0.1: 0}]) == [(0.1, 1), (math.inf, 5)]
    assert metric_changes.quantile(0.5, metric_changes.summed([])) is None


def test_a_slot_has_its_own_counts(tmp_path: Path) -> None:
    """The requests of one slot's workers, those that have ended included; other counters are not requests."""
    run(COUNT, "0", "200", "5", str(tmp_path))
    run(COUNT, "0", "503", "2", str(tmp_path))
    run(COUNT, "1", "429", "3", str(tmp_path))
    assert slot_counts.of_slot(tmp_path, 0) == (7, 0, 2)
    assert slot_counts.of_slot(tmp_path, 1) == (3, 3, 0)
    assert slot_counts.of_slot(tmp_path, 2) is None


def test_a_damaged_metric_file_has_no_counts(tmp_path: Path) -> None:
    """The list of workers is shown all the same."""
    for content in (b"abc\x00", b"\x10\x00\x00\x00" + bytes(4), b"\xff\xff\x00\x00" + bytes(100)):
        (tmp_path / "counter_0.db").write_bytes(content)
        assert slot_counts.of_slot(tmp_path, 0) is None
