"""Metrics of all workers lie in files that are keyed by the worker's slot, so counters outlive their worker."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tableside.telemetry import metrics

ROOT = Path(__file__).parents[2]
CODE = """
import sys
from pathlib import Path
from tableside.telemetry import metrics
slot, rows = int(sys.argv[1]), float(sys.argv[2])
assert metrics.use_worker_slot(slot, Path(sys.argv[3]))
made = metrics.make()
made.rows.labels("iris", "1").inc(rows)
made.in_flight.labels("iris").inc(rows)
made.stage_seconds.labels("iris", "1", "decode").observe(0.0001)
"""


def worker(slot: int, rows: float, folder: Path) -> None:
    """A process that counts in a slot and ends without cleaning up."""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", CODE, str(slot), str(rows), str(folder)]
    subprocess.run(command, check=True, cwd=ROOT, env=environ, timeout=60)


def values(folder: Path, held: set[int]) -> dict[str, float]:
    """The samples of interest, over all workers."""
    text = metrics.render(metrics.make(), folder, held).decode()
    lines = (line.rpartition(" ") for line in text.splitlines() if 'model="iris"' in line)
    return {name.partition("{")[0]: float(value) for name, _, value in lines}


def test_counters_outlive_workers_and_live_gauges_do_not(tmp_path: Path) -> None:
    """The next worker of a slot goes on counting; a gauge of requests in flight begins anew, or ends with its slot."""
    worker(0, 3, tmp_path)
    worker(1, 4, tmp_path)
    found = values(tmp_path, {0, 1})
    assert (found["tableside_rows_total"], found["tableside_in_flight"]) == (7.0, 7.0)
    worker(0, 2, tmp_path)
    found = values(tmp_path, {0, 1})
    assert (found["tableside_rows_total"], found["tableside_in_flight"]) == (9.0, 6.0)
    found = values(tmp_path, {0})
    assert (found["tableside_rows_total"], found["tableside_in_flight"]) == (9.0, 2.0)
    assert found["tableside_stage_seconds_count"] == 3.0


def test_the_names_of_the_files(tmp_path: Path) -> None:
    """prometheus-client ends them with the slot, and those of live gauges are found by their beginning."""
    worker(7, 1, tmp_path)
    assert {"counter_7.db", "histogram_7.db", "gauge_livesum_7.db"} <= {file.name for file in tmp_path.iterdir()}
    live = {file.name for file in tmp_path.glob(metrics.LIVE_GAUGE_FILES)}
    assert "gauge_livesum_7.db" in live
    assert all(name.endswith("_7.db") for name in live)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """The worker serves on with metrics in its own memory."""
    (tmp_path / "file").write_text(json.dumps({}))
    assert not metrics.use_worker_slot(0, tmp_path / "file" / "metrics")
