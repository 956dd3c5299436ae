"""Counting in the shared files: what cells add is what prometheus-client itself would have counted."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, multiprocess, values

from app.metrics import Metrics
from app.tallies import Tallies

BOUNDS = (0.125, 1.0, 10.0)
ROOT = Path(__file__).parents[2]


@contextmanager
def sharing(folder: Path) -> Iterator[None]:
    """What is made here counts in files in the folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PROMETHEUS_MULTIPROC_DIR", str(folder))
        patch.setattr(values, "ValueClass", values.MultiProcessValue(lambda: "0"))
        yield


def histogram() -> tuple[CollectorRegistry, Any]:
    registry = CollectorRegistry()
    return registry, Histogram("h", "h", ("model",), buckets=BOUNDS, registry=registry)


def samples(registry: CollectorRegistry) -> dict[tuple[str, str], float]:
    """(sample name, bound) to its number."""
    return {
        (sample.name, sample.labels.get("le", "")): sample.value
        for family in registry.collect()
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def in_files(folder: Path) -> dict[tuple[str, str], float]:
    """The samples as every other process sees them."""
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry, path=str(folder))
    return samples(registry)


@given(st.lists(st.sampled_from([0.0, 0.125, 0.25, 0.5, 1.0, 4.0, 10.0, 10.5, 512.0])))
def test_the_file_says_what_was_observed(observed: list[float]) -> None:
    """Whatever values, on the buckets' bounds too: the same sums and the same buckets, while they are being counted."""
    plain_in, plain = histogram()
    told = plain.labels("m")
    with tempfile.TemporaryDirectory() as folder, sharing(Path(folder)):
        cells = Tallies(on_hub=True).histogram(histogram()[1], "m")
        for value in observed:
            cells.observe(value)
            told.observe(value)
        assert in_files(Path(folder)) == samples(plain_in)


def test_cells_of_one_number_add_up(tmp_path: Path) -> None:
    """Two versions share a gauge of their model, and a version that is loaded again has its counters anew."""
    with sharing(tmp_path):
        tallies, registry = Tallies(on_hub=True), CollectorRegistry()
        rows = Counter("rows", "r", ("model",), registry=registry)
        busy = Gauge("busy", "b", ("model",), registry=registry, multiprocess_mode="livesum")
        first, second = tallies.counter(rows, "m"), tallies.counter(rows, "m")
        one, other = tallies.gauge(busy, "m"), tallies.gauge(busy, "m")
        first.inc(2)
        second.inc()
        first.inc()
        one.set(7)
        other.inc(-3)
        one.inc()
        assert in_files(tmp_path) == {("rows_total", ""): 4.0, ("busy", ""): 5.0}


def test_cells_count_on_when_their_file_grows(tmp_path: Path) -> None:
    """prometheus-client maps a larger file anew. Cells of the old mapping write to the same pages."""
    with sharing(tmp_path):
        tallies, registry = Tallies(on_hub=True), CollectorRegistry()
        family = Counter("rows", "r", ("model",), registry=registry)
        file = tmp_path / "counter_0.db"
        cells = [tallies.counter(family, "model-0")]
        first_size = file.stat().st_size
        while file.stat().st_size <= 2 * first_size:  # it grows twice
            cells.append(tallies.counter(family, f"model-{len(cells)}"))
        for at, cell in enumerate(cells):
            cell.inc(at + 1)
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry, path=str(tmp_path))
        found = {s.labels["model"]: s.value for family in registry.collect() for s in family.samples}
    assert first_size == 65536
    assert found == {f"model-{at}": at + 1.0 for at in range(len(cells))}


def test_a_slot_is_taken_over_with_its_counts(tmp_path: Path) -> None:
    """The next worker of a slot goes on where the last one ended."""
    for _ in range(2):
        with sharing(tmp_path):
            Tallies(on_hub=True).counter(Counter("rows", "r", ("model",), registry=None), "m").inc(3)
    assert in_files(tmp_path) == {("rows_total", ""): 6.0}


def test_threads_and_memory_have_their_own_objects(tmp_path: Path) -> None:
    """Beside threads, and where nothing is shared, prometheus-client's objects count."""
    _, family = histogram()
    total = Counter("rows", "r", ("model",), registry=None)
    for tallies in (Tallies(), Tallies(on_hub=True)):
        assert tallies.histogram(family, "m") is family.labels("m")
        assert tallies.counter(total, "m") is total.labels("m")
    with sharing(tmp_path):
        shared = Counter("shared", "s", ("model",), registry=None)
        assert Tallies().counter(shared, "m") is shared.labels("m")
        assert Tallies(on_hub=True).counter(shared, "m") is not shared.labels("m")


def test_what_has_cells_is_written_to_by_cells_only() -> None:
    """prometheus-client's own objects would write over what cells counted."""
    sources = [file.read_text() for part in ("app", "blueprints") for file in (ROOT / part).rglob("*.py")]
    with_cells = {name for text in sources for name in re.findall(r"tallies\.\w+\((?:\w+\.)*(\w+),", text)}
    by_hand = {name for text in sources for name in re.findall(r"(\w+)\.labels\(", text)}
    known = vars(Metrics(CollectorRegistry()))
    assert with_cells >= {"requests", "stage_seconds", "request_seconds", "rows", "in_flight", "batch_rows", "dropped"}
    assert with_cells <= known.keys()
    assert not with_cells & by_hand
