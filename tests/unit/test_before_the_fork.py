"""gunicorn's master reads the metric files before it forks a worker."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from prometheus_client.mmap_dict import MmapedDict, mmap_key

PROJECT = Path(__file__).resolve().parents[2]
SCRIPT = """
import importlib.util
from types import SimpleNamespace

specification = importlib.util.spec_from_file_location("hooks", "gunicorn.conf.py")
hooks = importlib.util.module_from_spec(specification)
specification.loader.exec_module(hooks)
from tableside.telemetry.metric_reader import MetricReader

server = SimpleNamespace(log=SimpleNamespace(exception=print))
hooks.pre_fork(server, None)
print(len(hooks._metric_reader), "row")
of_master = hooks._metric_reader
hooks.pre_fork(server, None)
print("the same reader:", hooks._metric_reader is of_master)
MetricReader.read_ahead = None
hooks.pre_fork(server, None)
print(hooks._metric_reader)
"""


def test_the_master_reads_the_metrics_for_its_workers(tmp_path: Path) -> None:
    """One reader for all forks. An error is logged and ends nothing: the workers read the files themselves."""
    (tmp_path / "metrics").mkdir()
    file = MmapedDict(str(tmp_path / "metrics" / "counter_0.db"))
    file.write_value(mmap_key("rows", "rows_total", [], [], "Rows."), 3.0, 0.0)
    file.close()
    environ = {**os.environ, "TABLESIDE_ONLY_SETTINGS": "1", "TABLESIDE__SERVER__RUN_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=PROJECT, env=environ, text=True, capture_output=True, timeout=60,
    )  # fmt: skip
    assert done.stdout.splitlines() == [
        "1 row",
        "the same reader: True",
        "cannot read the metrics of the other workers: the first scrape of a worker will be slow",
        "None",
    ], done.stderr
