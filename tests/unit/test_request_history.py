"""The requests of the last minutes, which workers write for the status page."""

from __future__ import annotations

import threading
from array import array
from pathlib import Path

import pytest

from tableside.serving import request_history
from tableside.serving.request_history import FILES, FOLDER, SAMPLE_S, SAMPLES, Count, Recorder, read
from tableside.telemetry import metrics, request_metrics
from tableside.telemetry.request_metrics import Activity, RequestMetrics
from tableside.telemetry.request_trace import RequestTrace
from tests.waiting import wait_until

NOW_S = 1_800_000_000.0
"""A moment at which a minute begins."""


class Answers:
    """Answers of models, which a recorder takes."""

    def __init__(self) -> None:
        self.activity: dict[str, Activity] = {}

    def __call__(self) -> dict[str, Activity]:
        taken, self.activity = self.activity, {}
        return taken

    def add(self, model: str, requests: int, errors: int = 0, seconds: float = 0.01) -> None:
        self.activity[model] = Activity(requests, errors, array("d", [seconds] * requests))


def at(sample: int) -> float:
    """The begin of a sample; 0 is the last one that is complete at NOW_S."""
    return NOW_S + (sample - 1) * SAMPLE_S


def test_samples_of_all_workers_add_up(tmp_path: Path) -> None:
    """By model and sample; None adds up the models. Rates are per second, the earliest first."""
    for slot in (0, 1):
        answers = Answers()
        recorder = Recorder(tmp_path, slot, answers)
        for sample, count in ((-1, 10), (0, 20)):
            answers.add("iris", count, errors=1)
            answers.add("wine", 5)
            recorder.sample(at(sample))
    history = read(tmp_path, NOW_S)
    assert history.rates("iris")[-3:] == [0.0, 2.0, 4.0]
    assert history.rates()[-3:] == [0.0, 3.0, 5.0]
    assert history.rates("nobody") == [0.0] * SAMPLES
    assert history.total("iris") == Count(60, 4)
    assert history.total(None) == Count(80, 4)
    assert history.total("iris", 1) == Count(40, 2)
    assert history.total("nobody") == Count()


def test_quantiles_are_those_of_all_workers(tmp_path: Path) -> None:
    """Exact to 5 %."""
    for slot, seconds in ((0, 0.010), (1, 0.100)):
        answers = Answers()
        answers.add("iris", 50 if slot else 51, seconds=seconds)
        Recorder(tmp_path, slot, answers).sample(at(0))
    history = read(tmp_path, NOW_S)
    assert history.seconds("iris", 0.5) == pytest.approx(0.010, rel=0.05)
    assert history.seconds(None, 0.99) == pytest.approx(0.100, rel=0.05)
    assert history.seconds("nobody", 0.5) is None


def test_a_sample_that_is_not_complete_is_not_shown(tmp_path: Path) -> None:
    """Its rate would be too low."""
    answers = Answers()
    answers.add("iris", 10)
    Recorder(tmp_path, 0, answers).sample(at(1))
    assert sum(read(tmp_path, NOW_S).rates()) == 0
    assert sum(read(tmp_path, NOW_S + SAMPLE_S).rates()) == 1.0


def test_the_files_of_a_slot_are_bounded_and_early_samples_end(tmp_path: Path) -> None:
    """An hour of requests leaves FILES files, of which the last SAMPLES samples are shown."""
    answers = Answers()
    recorder = Recorder(tmp_path, 3, answers)
    for sample in range(-360, 1):
        answers.add("iris", 10)
        recorder.sample(at(sample))
    assert len(list((tmp_path / FOLDER).iterdir())) == FILES
    history = read(tmp_path, NOW_S)
    assert history.rates("iris") == [1.0] * SAMPLES
    later = read(tmp_path, NOW_S + SAMPLES * SAMPLE_S)
    assert later.rates("iris") == [0.0] * SAMPLES
    assert later.total("iris") == Count()


def test_the_next_worker_of_a_slot_goes_on(tmp_path: Path) -> None:
    """What the one before has counted in the same minute stays."""
    for sample in (-2, -1, 0):
        answers = Answers()
        answers.add("iris", 10)
        Recorder(tmp_path, 0, answers).sample(at(sample))
    assert read(tmp_path, NOW_S).rates("iris")[-3:] == [1.0, 1.0, 1.0]


def test_without_requests_nothing_is_written(tmp_path: Path) -> None:
    """An idle server writes no file."""
    Recorder(tmp_path, 0, Answers()).sample(at(0))
    assert not (tmp_path / FOLDER).exists()


@pytest.mark.parametrize("content", [b"", b"{", b'{"number": "x"}', b"[]"])
def test_a_damaged_file_counts_as_none(tmp_path: Path, content: bytes) -> None:
    """The others are shown, and the next worker of the slot writes over it."""
    answers = Answers()
    answers.add("iris", 10)
    Recorder(tmp_path, 0, answers).sample(at(0))
    (written,) = (tmp_path / FOLDER).iterdir()
    good = written.with_name("1" + written.name[1:])
    good.write_bytes(written.read_bytes())
    written.write_bytes(content)
    assert read(tmp_path, NOW_S).rates("iris")[-1] == 1.0
    answers.add("iris", 20)
    Recorder(tmp_path, 0, answers).sample(at(0))
    assert read(tmp_path, NOW_S).rates("iris")[-1] == 3.0


def test_where_nothing_can_be_written_nothing_is_raised(tmp_path: Path) -> None:
    """As on a full disk; the samples of before stay, and no draft is left."""
    answers = Answers()
    (tmp_path / FOLDER).write_text("in the way")
    answers.add("iris", 10)
    Recorder(tmp_path, 0, answers).sample(at(0))
    assert read(tmp_path, NOW_S).total(None) == Count()


def test_the_application_counts_from_the_first_call_on() -> None:
    """Without a recorder it keeps no times, which would take memory for ever."""
    counting = RequestMetrics(metrics.make(), None)

    def answer(status: int) -> None:
        trace = RequestTrace("id", 0.0, model="wine", version="2", protocol="v1", rows=1, counted=True, stages={})
        counting.record(trace, "POST", "/v1/models/wine:predict", status, 0.02)

    answer(200)
    assert counting.take_activity() == {}
    for status in (200, 400, 500, 503):
        answer(status)
    assert counting.take_activity() == {"wine": Activity(4, 2, array("d", [0.02] * 4))}
    assert counting.take_activity() == {}


def test_times_that_nobody_takes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """As while a write to the disk hangs: further requests are counted, and there is room again afterwards."""
    monkeypatch.setattr(request_metrics, "MAX_SECONDS_KEPT", 5)
    counting = RequestMetrics(metrics.make(), None)
    counting.take_activity()
    for _ in range(2):
        for model in ("wine", "iris") * 4:
            trace = RequestTrace("id", 0.0, model=model, version="2", protocol="v1", rows=1, counted=True, stages={})
            counting.record(trace, "POST", f"/v1/models/{model}:predict", 200, 0.02)
        found = counting.take_activity()
        assert sum(len(each.seconds) for each in found.values()) == 5
        assert sum(each.requests for each in found.values()) == 8


def test_drafts_of_a_worker_that_was_killed_are_removed(tmp_path: Path) -> None:
    """Those of the own slot, when the next worker starts; other slots have workers that write."""
    folder = tmp_path / FOLDER
    folder.mkdir()
    own, other = folder / "1.3.4711.tmp", folder / "11.3.4711.tmp"
    for draft in (own, other):
        draft.touch()
    Recorder(tmp_path, 1, Answers()).start()
    assert wait_until(lambda: not own.exists())
    assert other.exists()


def test_the_thread_survives_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes wrong once is logged, and the next sample is written."""
    monkeypatch.setattr(request_history, "SAMPLE_S", 0.01)
    calls, done = [], threading.Event()

    def take() -> dict[str, Activity]:
        calls.append(1)
        if len(calls) == 2:
            raise ValueError("once")
        if len(calls) > 3:
            done.set()
        return {}

    Recorder(tmp_path, 0, take).start()
    assert done.wait(30)
