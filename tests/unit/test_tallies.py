"""Gathered metrics: what is written once a turn is what prometheus-client itself would have counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from app.tallies import Tallies, at_once

BOUNDS = (0.125, 1.0, 10.0)
Work = Callable[[], None]


def histogram() -> tuple[CollectorRegistry, Any]:
    registry = CollectorRegistry()
    return registry, Histogram("h", "h", ("model",), buckets=BOUNDS, registry=registry).labels("m")


def samples(registry: CollectorRegistry) -> dict[tuple[str, str], float]:
    found = {}
    for family in registry.collect():
        for sample in family.samples:
            if not sample.name.endswith("_created"):
                found[sample.name, sample.labels.get("le", "")] = sample.value
    return found


@given(st.lists(st.lists(st.sampled_from([0.0, 0.125, 0.25, 0.5, 1.0, 4.0, 10.0, 10.5, 512.0]))))
def test_turns_add_up_to_what_was_observed(turns: list[list[float]]) -> None:
    """Whatever values in whatever turns, on the buckets' bounds too: the same sums and the same buckets."""
    waiting: list[Work] = []
    tallies = Tallies(waiting.append)
    (gathered_in, child), (plain_in, plain) = histogram(), histogram()
    gathering = tallies.histogram(child)
    for values in turns:
        for value in values:
            gathering.observe(value)
            plain.observe(value)
        assert len(waiting) == bool(values)
        for work in waiting:
            work()
        waiting.clear()
    assert samples(gathered_in) == samples(plain_in)


def test_nothing_is_written_before_the_turn_ends_and_all_of_it_then() -> None:
    """Many counts, one piece of work; a gauge that went up and down again is not written at all."""
    waiting: list[Work] = []
    tallies, registry = Tallies(waiting.append), CollectorRegistry()
    rows, busy = Counter("rows", "r", registry=registry), Gauge("busy", "b", registry=registry)
    counted, level = tallies.counter(rows), tallies.counter(busy)
    for _ in range(5):
        counted.inc(3)
        level.inc()
        level.inc(-1)
    assert len(waiting) == 1
    assert samples(registry)["rows_total", ""] == 0.0
    waiting[0]()
    assert samples(registry) == {("rows_total", ""): 15.0, ("busy", ""): 0.0}
    level.inc()
    assert len(waiting) == 2
    waiting[1]()
    assert samples(registry)["busy", ""] == 1.0


def test_one_that_cannot_be_written_does_not_stop_the_others() -> None:
    """A turn of the hub is no place for an exception."""

    class Broken:
        def inc(self, amount: float) -> None:
            raise OSError("no space left")

    waiting: list[Work] = []
    tallies, registry = Tallies(waiting.append), CollectorRegistry()
    broken, good = tallies.counter(Broken()), tallies.counter(Counter("good", "g", registry=registry))
    broken.inc()
    good.inc()
    waiting[0]()
    assert samples(registry)["good_total", ""] == 1.0


def test_without_a_hub_nothing_is_gathered() -> None:
    """Threads count on prometheus-client's own objects, which are safe for them."""
    _, child = histogram()
    assert Tallies(at_once).histogram(child) is child
    assert Tallies().counter(child) is child
