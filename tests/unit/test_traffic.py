"""Who gets the canary, and what is counted of both sides in a worker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tableside.repository.model_toml import ModelConfig
from tableside.repository.traffic_config import CanaryConfig
from tableside.serving import comparisons
from tableside.serving.comparisons import FOLDER, Counts, ids
from tableside.serving.registry import Registry
from tableside.serving.traffic import BUCKETS, CanaryPick, ModelTraffic, bucket
from tableside.telemetry.request_trace import RequestTrace
from tests.unit.test_reloading import copy, registry_for

CANARY = "[aliases]\ndefault = 1\n[canary]\nversion = 2\npercent = {}\n"
VALUES = [f"user-{number}" for number in range(20_000)]


def takers(percent: float, name: str = "m") -> set[str]:
    pick = CanaryPick(name, CanaryConfig(2, percent, "X-User-Id"))
    return {value for value in VALUES if pick.takes(value)}


@pytest.mark.parametrize("percent", [0.0, 0.01, 1.0, 5.0, 50.0, 100.0])
def test_the_share_is_what_was_asked_for(percent: float) -> None:
    """Of 20,000 callers, and of 20,000 requests without the header, within five standard deviations."""
    by_chance = CanaryPick("m", CanaryConfig(2, percent))
    wanted, count = percent / 100, len(VALUES)
    spread = 5 * (wanted * (1 - wanted) / count) ** 0.5
    assert abs(len(takers(percent)) / count - wanted) <= spread
    assert abs(sum(by_chance.takes("") for _ in VALUES) / count - wanted) <= spread


def test_a_larger_canary_keeps_its_callers() -> None:
    """Who was answered by it once is so at each step up; another model's canary has other callers."""
    steps = [takers(percent) for percent in (1, 5, 25, 100)]
    assert all(small < large for small, large in zip(steps, steps[1:], strict=False))
    assert 0 < len(takers(25) & takers(25, "n")) < 0.5 * len(takers(25))


def test_a_callers_bucket_never_changes() -> None:
    """The values are written down: every release and every host gives a caller the same version."""
    assert [bucket("iris", value) for value in ("42", "user-7", "ä", "\udce4")] == [6616, 3185, 7681, 1443]
    assert all(0 <= bucket("m", value) < BUCKETS for value in VALUES[:100])


@pytest.fixture
def registry(small_repository: Path) -> Iterator[Registry]:
    """A registry with iris/1 as default and iris/2 as canary of all requests; its worker has slot 0."""
    copy(small_repository, "iris", 2)
    (small_repository / "iris" / "model.toml").write_text(CANARY.format(100))
    made = registry_for(small_repository)
    made.traffic.start(0)
    made.reload(1)
    yield made
    made.traffic.stop()


def traffic(registry: Registry) -> ModelTraffic:
    found = registry.wait_servable("iris", None, 0.0).traffic
    assert found is not None
    return found


def answer(registry: Registry, version: int, status: int = 200, times: int = 1) -> None:
    for _ in range(times):
        trace = RequestTrace("id", 0.0, rows=3)
        trace.serves("iris", version, "v1")
        traffic(registry).answered(trace, status, 0.01)


def counted(registry: Registry) -> Counts:
    registry.traffic.write()
    config = registry.catalog.models["iris"].config
    assert config is not None
    wanted = ids("iris", config)["canary"]
    return comparisons.merged(registry.repository.parent / "run" / FOLDER, [wanted])[wanted]


def test_the_canary_answers_only_while_it_is_ready(registry: Registry) -> None:
    """Then the default answers everything; and a request that names a version is never divided."""
    default = registry.wait_servable("iris", None, 0.0)
    assert traffic(registry).pick(default, "", registry.catalog).version == 2
    registry.wait_servable("iris", "2", 0.0).unload()
    assert traffic(registry).pick(default, "", registry.catalog) is default


def test_a_model_without_a_trial_has_no_traffic(registry: Registry, small_repository: Path) -> None:
    """The tables end with the next reload; the servables are the same ones, and nothing is loaded again."""
    before = registry.catalog.models["iris"].servables
    (small_repository / "iris" / "model.toml").write_text("[aliases]\ndefault = 1\n")
    registry.reload(2)
    assert registry.catalog.models["iris"].servables == before
    assert [each.traffic for each in before] == [None, None]


def test_both_sides_are_counted(registry: Registry) -> None:
    """Requests with their rows and latency; errors of the server's side; a client's error is only a request."""
    answer(registry, 2, times=4)
    answer(registry, 2, status=500)
    answer(registry, 2, status=400)
    answer(registry, 1, times=2)
    found = counted(registry)
    assert (found.candidate.requests, found.candidate.rows, found.candidate.errors) == (6, 12, 1)
    assert (found.others.requests, found.others.rows, found.others.errors) == (2, 6, 0)
    assert found.candidate.seconds.quantile(0.5) == pytest.approx(0.01, rel=0.06)


def test_the_next_worker_of_a_slot_goes_on(registry: Registry, small_repository: Path) -> None:
    """What a worker has counted is not lost when it ends; a comparison that began later starts at nothing."""
    answer(registry, 2, times=5)
    registry.traffic.stop()
    successor = registry_for(small_repository)
    successor.traffic.start(0)
    successor.reload(1)
    answer(successor, 2, times=2)
    assert counted(successor).candidate.requests == 7
    path = small_repository / "iris" / "model.toml"
    path.write_text(CANARY.format(20))
    successor.reload(2)
    answer(successor, 2)
    assert counted(successor).candidate.requests == 8
    path.write_text(CANARY.format(20) + "since = 2026-11-26T23:00:00Z\n")
    successor.reload(3)
    assert counted(successor).candidate.requests == 0
    successor.traffic.stop()


def test_ended_comparisons_leave_the_file(registry: Registry, small_repository: Path) -> None:
    """The same canary, set again without `since`, does not go on with what an earlier one counted."""
    answer(registry, 2, times=5)
    assert counted(registry).candidate.requests == 5
    (small_repository / "iris" / "model.toml").write_text("[aliases]\ndefault = 1\n")
    registry.reload(2)
    registry.traffic.write()
    (small_repository / "iris" / "model.toml").write_text(CANARY.format(100))
    registry.reload(3)
    assert counted(registry).candidate.requests == 0


def test_the_metrics_say_share_and_readiness(registry: Registry, small_repository: Path) -> None:
    """`tableside_release_ready` follows the judgement of all workers' counts, and is 0 when the trial has ended."""

    def metric(name: str) -> float | None:
        return registry.metrics.registry.get_sample_value(name, {"model": "iris", "version": "2"})

    assert metric("tableside_canary_ratio") == 1.0
    registry.traffic.judge()
    assert metric("tableside_release_ready") == 0.0
    (small_repository / "iris" / "model.toml").write_text(CANARY.format(100) + "[rules]\nrows = 9\n")
    registry.reload(2)
    answer(registry, 2, times=3)
    registry.traffic.write()
    registry.traffic.judge()
    assert metric("tableside_release_ready") == 1.0
    (small_repository / "iris" / "model.toml").write_text("[aliases]\ndefault = 1\n")
    registry.reload(3)
    registry.traffic.judge()
    assert (metric("tableside_release_ready"), metric("tableside_canary_ratio")) == (0.0, 0.0)


def test_nothing_is_asked_for_without_tables() -> None:
    """The configuration of most models."""
    assert ids("m", ModelConfig()) == {}
