"""Metric files are named after the worker's slot, so that counters outlive their worker."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tableside.telemetry import metrics
from tableside.telemetry.metric_entries import kind_of
from tests.small_disks import run_on_small_disk

ROOT = Path(__file__).parents[2]
IMPORTS = """
import sys
from pathlib import Path
from tableside.telemetry import metrics
"""
COUNT = """
slot, rows = int(sys.argv[1]), float(sys.argv[2])
assert metrics.use_worker_slot(slot, Path(sys.argv[3]))
made = metrics.make()
made.rows.labels("iris", "1").inc(rows)
made.in_flight.labels("iris").inc(rows)
made.stage_seconds.labels("iris", "1", "decode").observe(0.0001)
"""


def worker(slot: int, rows: float, folder: Path) -> None:
    """Run a worker that counts in a slot and ends without cleaning up."""
    run(COUNT, str(slot), str(rows), str(folder))


def run(code: str, *arguments: str) -> None:
    """Run code in another process, because the files of metrics are chosen once in a process."""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", IMPORTS + code, *arguments]
    subprocess.run(command, check=True, cwd=ROOT, env=environ, timeout=60)


def values(folder: Path, held: set[int]) -> dict[str, float]:
    """The samples of the model iris, over all workers."""
    text = metrics.render(metrics.make(), folder, held).decode()
    lines = (line.rpartition(" ") for line in text.splitlines() if 'model="iris"' in line)
    return {name.partition("{")[0]: float(value) for name, _, value in lines}


def test_counters_outlive_workers_and_live_gauges_do_not(tmp_path: Path) -> None:
    """The next worker of a slot continues its counters. Live gauges begin again, and are removed with their slot."""
    worker(0, 3, tmp_path)
    worker(1, 4, tmp_path)
    found = values(tmp_path, {0, 1})
    assert (found["tableside_rows_total"], found["tableside_requests_in_flight"]) == (7.0, 7.0)
    worker(0, 2, tmp_path)
    found = values(tmp_path, {0, 1})
    assert (found["tableside_rows_total"], found["tableside_requests_in_flight"]) == (9.0, 6.0)
    found = values(tmp_path, {0})
    assert (found["tableside_rows_total"], found["tableside_requests_in_flight"]) == (9.0, 2.0)
    assert found["tableside_stage_seconds_count"] == 3.0


def test_files_are_named_after_the_slot(tmp_path: Path) -> None:
    """prometheus-client ends each file's name with the slot, and the names say which files have live gauges."""
    worker(7, 1, tmp_path)
    kinds = {file.name: kind_of(file.name) for file in tmp_path.iterdir()}
    assert {"counter_7.db", "histogram_7.db", "gauge_livesum_7.db"} <= kinds.keys()
    assert all(kind is not None and kind.writer == "7" for kind in kinds.values())
    assert {name for name, kind in kinds.items() if kind.is_live} == {name for name in kinds if "_live" in name}


def test_without_a_folder_metrics_stay_in_memory(tmp_path: Path) -> None:
    """A folder that cannot be written must not stop a worker: its metrics stay in its own memory."""
    (tmp_path / "file").write_bytes(b"")
    assert not metrics.use_worker_slot(0, tmp_path / "file" / "metrics")
    assert metrics.folder() is None
    made = metrics.make()
    made.rows.labels("iris", "1").inc(3)
    assert b'tableside_rows_total{model="iris",version="1"} 3.0' in metrics.render(made, None, ())


ON_A_FULL_DISK = """
import os
from tests.small_disks import fill
folder = Path(sys.argv[1])

def first_worker():
    assert metrics.use_worker_slot(0, folder)
    made = metrics.make()
    made.rows.labels("before", "1").inc(2)
    fill(folder)
    for number in range(2000):
        made.rows.labels(f"model-{number}", "1").inc()
        made.stage_seconds.labels(f"model-{number}", "1", "decode").observe(0.1)
    made.rows.labels("before", "1").inc(3)
    text = metrics.render(made, folder, {0}).decode()
    assert 'tableside_rows_total{model="before",version="1"} 5.0' in text
    assert 0 < text.count("tableside_rows_total{") - 1 < 2000

if not os.fork():
    first_worker()
    os._exit(7)
assert os.waitstatus_to_exitcode(os.wait()[1]) == 7
# A worker that starts now goes on counting in the files of its slot; one of a new slot counts in memory.
print(metrics.use_worker_slot(0, folder), metrics.use_worker_slot(1, folder))
assert not [file for file in folder.glob("*_1.db")], "a file without space would break every scrape"
(folder / "filler").unlink()
assert metrics.use_worker_slot(1, folder)
"""


@pytest.mark.processes
def test_a_full_disk_ends_no_worker(tmp_path: Path) -> None:
    """Metrics of new labels stay in memory when their file cannot grow; those of known labels are still counted."""
    ended = run_on_small_disk(IMPORTS + ON_A_FULL_DISK, tmp_path, "1m")
    assert (ended.returncode, ended.stdout.splitlines()[-1:]) == (0, ["True False"]), ended.stderr
    assert "metrics_in_memory" in ended.stdout


def test_two_sets_of_metrics_are_independent() -> None:
    """Each has a registry of its own, so that two applications in one process do not share counters."""
    first, second = metrics.make(), metrics.make()
    first.rows.labels("iris", "1").inc()
    assert b"tableside_rows_total{" not in metrics.render(second, None, ())


def test_totals_keep_stages_and_successes_apart() -> None:
    """Sums are over protocols; the stage and the code 200 are suffixes of the name; other labels are not listed."""
    made = metrics.make()
    for protocol, code, count in (("v1", "200", 3), ("v2", "200", 4), ("v1", "400", 1), ("v2", "500", 1)):
        made.requests.labels("iris", "1", protocol, code).inc(count)
    made.stage_seconds.labels("iris", "1", "decode").observe(0.25)
    made.stage_seconds.labels("iris", "1", "predict").observe(0.5)
    made.in_flight.labels("iris").inc()
    sums = metrics.totals(made, None, ())
    assert sums["tableside_requests_total:200", "iris", "1"] == 7
    assert sums["tableside_requests_total", "iris", "1"] == 2
    assert sums["tableside_stage_seconds_sum:predict", "iris", "1"] == 0.5
    assert sums["tableside_stage_seconds_count:decode", "iris", "1"] == 1
    assert not [name for name, *_ in sums if "bucket" in name or "in_flight" in name]


@pytest.mark.processes
def test_the_lowest_generation_and_the_longest_load_are_shown(tmp_path: Path) -> None:
    """Gauges of several workers become one number: the lowest generation, the longest load, and the sum of states."""
    for slot, generation, load_s in ((0, 5, 1.5), (1, 4, 0.5)):
        run(
            f"""
assert metrics.use_worker_slot({slot}, Path({str(tmp_path)!r}))
made = metrics.make()
made.generation.set({generation})
made.load_seconds.labels("iris", "1").set({load_s})
made.model_state.labels("iris", "1", "READY").set(1)
"""
        )
    text = metrics.render(metrics.make(), tmp_path, {0, 1}).decode()
    assert "tableside_generation 4.0" in text
    assert 'tableside_model_load_seconds{model="iris",version="1"} 1.5' in text
    assert 'tableside_model_state{model="iris",state="READY",version="1"} 2.0' in text
