"""`/metrics` adds up the files of all workers."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from structlog.testing import capture_logs

from tableside.process import worker_slots

CONTROL = {"tableside.plane": "control"}
SAMPLE = 'tableside_rows_total{model="iris",version="1"}'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of metric files, in which this process has none of its own."""
    made = tmp_path / "run" / "metrics"
    made.mkdir(parents=True)
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(made))
    return made


def write(folder: Path, slot: int, value: float) -> None:
    """Write a counter and a gauge into the files of a slot."""
    for kind, name in (("counter", "tableside_rows"), ("gauge_livesum", "tableside_requests_in_flight")):
        file = MmapedDict(str(folder / f"{kind}_{slot}.db"))
        sample = name + "_total" * (kind == "counter")
        file.write_value(mmap_key(name, sample, ["model", "version"], ["iris", "1"], "Help."), value, 0)
        file.close()


def scrape(app: Flask) -> dict[str, float]:
    """The samples that have a model: not those of the stack."""
    answer = app.test_client().get("/metrics", environ_overrides=CONTROL)
    assert answer.status_code == 200
    lines = re.findall(r"^(tableside\w+{model=\S*) (\S+)$", answer.get_data(as_text=True), re.MULTILINE)
    return {name: float(value) for name, value in lines}


def test_live_gauges_are_those_of_held_slots(make_app: Callable[..., Flask], folder: Path) -> None:
    """Counters of all slots are added up; requests in flight only of workers that live."""
    app = make_app(load=False)
    slot = worker_slots.acquire(folder.parent / "worker_slots")
    for number, value in ((slot.number, 3), (slot.number + 1, 4)):
        write(folder, number, value)
    assert scrape(app) == {SAMPLE: 7, SAMPLE.replace("rows_total", "requests_in_flight"): 3}
    slot.release()
    assert scrape(app) == {SAMPLE: 7}


def test_a_damaged_file_is_logged_once(make_app: Callable[..., Flask], folder: Path) -> None:
    """A scrape of the other files is answered, and the log names the file."""
    app = make_app(load=False)
    write(folder, 0, 3)
    (folder / "counter_1.db").write_bytes(b"\xff" * 64)
    with capture_logs() as lines:
        assert scrape(app) == scrape(app) == {SAMPLE: 3}
    (line,) = [line for line in lines if line["event"] == "metrics_left_out"]
    assert line["file"] == str(folder / "counter_1.db")
