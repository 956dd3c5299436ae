"""A frame of `tableside top`: the numbers between two looks, and lines that fit into a terminal."""

from __future__ import annotations

import io
import re
import threading
from datetime import UTC, datetime
from typing import Any, cast

import msgspec
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from rich.console import Console

from tableside.cli import remote
from tableside.cli.top import command, figures, looking, terminal
from tableside.cli.top.differences import SORT_KEYS, between, ordered
from tableside.cli.top.samples import FAMILIES, Models, Sample, Workers
from tableside.cli.top.screen import Frame
from tableside.cli.top.view import ModelView, Numbers, StackView, VersionView
from tableside.telemetry import metric_changes
from tableside.telemetry.metrics import Metrics

READY = {"version": 1, "state": "READY"}


def sample(metrics: Metrics, at_s: float, models: Any = (), workers: Any = (), **host: Any) -> Sample:
    """What a stack answers at a time, with a worker that is ready."""
    text = generate_latest(metrics.registry).decode()
    return Sample(
        datetime(2026, 11, 27, 12, 0, 0, tzinfo=UTC), at_s, metric_changes.parse(text, FAMILIES), at_s,
        msgspec.convert({"workers": list(workers), "host": host}, Workers),
        msgspec.convert({"generation": 3, "models": list(models)}, Models),
    )  # fmt: skip


def answer(metrics: Metrics, count: int, code: int = 200, model: str = "iris", version: str = "1") -> None:
    metrics.requests.labels(model, version, "v1", str(code)).inc(count)
    for _ in range(count):
        metrics.request_seconds.labels(model, version).observe(0.002)


def drawn(view: StackView | None, width: int = 100, height: int | None = None, **more: Any) -> list[str]:
    """The lines of a frame, as a terminal of this size shows them."""
    out = io.StringIO()
    frame = Frame(view, width, height, **more)
    Console(file=out, width=width, height=height or 500, color_system=None).print(frame.draw(), end="")
    return out.getvalue().split("\n")


def test_rates_are_those_between_two_looks() -> None:
    """What was counted before is not in them. Answers of 4xx and 5xx are counted apart; the total has all models."""
    metrics = Metrics(CollectorRegistry())
    answer(metrics, 1000)
    before = sample(metrics, 10.0)
    answer(metrics, 6)
    answer(metrics, 3, 429)
    answer(metrics, 1, 503)
    answer(metrics, 10, 404, "gone", "4")
    metrics.queue_rows.labels("iris", "1").set(7)
    metrics.in_flight.labels("iris").set(2)
    view = between("here", before, sample(metrics, 14.0, [{"name": "iris", "versions": [READY]}, {"name": "wine"}]))
    by_name = {each.name: each.numbers for each in view.models}
    iris = by_name["iris"]
    assert (iris.requests, iris.requests_per_s, iris.client_errors, iris.server_errors) == (10, 2.5, 3, 1)
    assert (iris.queue_rows, iris.in_flight) == (7, 2)
    assert iris.p50_s == pytest.approx(0.00175)  # the middle of the bucket from 1 to 2.5 ms
    assert (by_name["gone"].requests, by_name["wine"].requests, by_name["wine"].p99_s) == (10, 0, None)
    assert (view.total.requests, view.total.requests_per_s, view.seconds) == (20, 5.0, 4.0)


def test_a_rate_is_the_requests_by_the_seconds_of_the_document() -> None:
    """Also between looks that are a part of a second apart: a program that divides gets the printed rate."""
    metrics = Metrics(CollectorRegistry())
    before = sample(metrics, 0.0)
    answer(metrics, 120)
    view = between("here", before, sample(metrics, 0.1673299))
    assert view.total.requests_per_s == 120 / view.seconds == 120 / 0.1673299


def test_the_first_look_has_no_rates() -> None:
    """They are unknown and not 0; what is in hand now is known."""
    metrics = Metrics(CollectorRegistry())
    answer(metrics, 1000)
    metrics.in_flight.labels("iris").set(2)
    view = between("here", None, sample(metrics, 10.0, [{"name": "iris", "versions": [READY]}]))
    assert (view.total.requests_per_s, view.total.p50_s, view.total.in_flight, view.seconds) == (None, None, 2, 0.0)
    assert [each.name for each in view.models] == ["iris"]
    assert "iris/1" in "\n".join(drawn(view))


def test_a_new_start_is_no_negative_rate() -> None:
    """Counters that have begun again count from 0."""
    old, new = Metrics(CollectorRegistry()), Metrics(CollectorRegistry())
    answer(old, 1000)
    answer(new, 8)
    view = between("here", sample(old, 10.0), sample(new, 12.0, [{"name": "iris", "versions": [READY]}]))
    assert (view.total.requests, view.total.requests_per_s) == (8, 4.0)
    assert view.total.p99_s == pytest.approx(0.002485)


def test_workers_are_compared_by_slot() -> None:
    """A slot counts on when its worker was replaced; the processor time is that of the new process alone."""
    metrics = Metrics(CollectorRegistry())
    counts = {"client_errors": 0, "server_errors": 0}
    before = [{"worker_slot": 0, "pid": 5, "requests": 100, "cpu_s": 0.4, "age_s": 90.0, **counts}]
    after = [
        {"worker_slot": 0, "pid": 6, "requests": 120, "cpu_s": 1.0, "age_s": 2.0, "ready": True, "instance_size": 3,
         "pss_bytes": 100, "client_errors": 5, "server_errors": 1},
        {"worker_slot": 1, "pid": 7, "requests": 900, "cpu_s": 1.0, "age_s": 60.0, "missing": ["iris/2"], **counts},
    ]  # fmt: skip
    view = between("here", sample(metrics, 10.0, workers=before), sample(metrics, 14.0, workers=after))
    first, second = view.workers
    assert (first.requests_per_s, first.client_error_share, first.server_error_share) == (5.0, 0.25, 0.05)
    assert first.processor_share == 0.5  # one second of the two that it has lived
    assert (second.requests_per_s, second.processor_share, second.problem) == (None, None, "loading iris/2")
    assert (view.workers_ready, view.workers_wanted, view.workers_memory_bytes) == (1, 3, 100)


def test_the_machine_is_busy_by_its_own_clock() -> None:
    """The share is of the seconds of all processors; memory in use is what is not free."""
    metrics = Metrics(CollectorRegistry())
    before = sample(metrics, 10.0, processor_s=100.0, processor_busy_s=40.0)
    after = sample(
        metrics, 12.0, processor_s=104.0, processor_busy_s=43.0, memory_bytes=800, memory_free_bytes=300, processors=2
    )
    view = between("here", before, after)
    assert (view.processor_share, view.memory_used_bytes, view.processors) == (0.75, 500, 2)


def test_problems_and_what_is_tried_have_lines() -> None:
    """A version that is not served says why, at most on two lines; a canary has its numbers and its judgement."""
    metrics = Metrics(CollectorRegistry())
    before = sample(metrics, 0.0)
    answer(metrics, 95)
    answer(metrics, 5, 500, version="2")
    iris = {
        "name": "iris", "aliases": {"default": 1}, "traffic": {"2": "canary 5 %: 200 more requests are needed"},
        "versions": [READY, {"version": 2, "state": "READY"},
                     {"version": 3, "state": "UNAVAILABLE", "reason": "the checksum\x1b[2J differs " * 20,
                      "failure_kind": "damaged"}],
    }  # fmt: skip
    off = {"version": 1, "state": "UNAVAILABLE", "reason": "unloaded: enabled is false in model.toml"}
    retired = {"version": 2, "state": "UNAVAILABLE", "reason": "not served: `versions` in model.toml leaves it out"}
    view = between("here", before, sample(metrics, 1.0, [iris, {"name": "wine", "versions": [off, retired]}]))
    lines = drawn(view, 80)
    text = "\n".join(lines)
    assert re.search(r"^iris  +100 +0 +5\.0 ", text, re.MULTILINE)
    assert re.search(r"^  1 default +95\.0 +0 +0 ", text, re.MULTILINE)
    assert re.search(r"^  2 canary 5 % +5\.0 +0 +100 ", text, re.MULTILINE)
    assert "200 more requests are needed" in text
    assert sum("checksum" in line for line in lines) == 2
    assert "3 is UNAVAILABLE: the checksum\\x1b[2J" in text
    assert "wine" in text
    assert "unloaded" not in text  # the operator has turned it off
    assert "leaves it out" not in text  # and has retired this one
    assert [each.has_problem for each in view.models] == [True, False]


def model(name: str, **numbers: Any) -> ModelView:
    return ModelView(name, Numbers(**numbers), [VersionView("1", Numbers(), "READY")])


def test_the_orders_of_models() -> None:
    """Each order puts what needs attention first, and equal ones in the order of their names."""
    models = [
        model("d", requests_per_s=1, server_errors=2, client_errors=0, p99_s=0.1),
        model("c", requests_per_s=9, server_errors=0, client_errors=9, p99_s=None, queue_rows=4),
        model("b", requests_per_s=1, server_errors=0, client_errors=0, p99_s=0.3),
        model("a", requests_per_s=None),
    ]
    found = {key: "".join(each.name for each in ordered(models, key)) for key in SORT_KEYS}
    assert found == {"rate": "cbda", "errors": "dcab", "p99": "bdac", "queue": "cabd", "model": "abcd"}
    assert tuple(SORT_KEYS) == command.SORT_NAMES


def hundred(problem: bool = False) -> StackView:
    """A stack with 100 models of long names and 30 workers."""
    metrics = Metrics(CollectorRegistry())
    before = sample(metrics, 0.0)
    state = {"version": 1, "state": "UNAVAILABLE", "reason": "damaged", "failure_kind": "damaged"} if problem else READY
    models = [{"name": f"model-of-length-{number:03}", "versions": [state]} for number in range(100)]
    workers = [{"worker_slot": number, "pid": 4000000 + number, "ready": True} for number in range(30)]
    return between("https://models.example.com:8081", before, sample(metrics, 1.0, models, workers, drained=True))


@pytest.mark.parametrize(("width", "height"), [(80, 24), (40, 10), (200, 60), (20, 5), (100, 200)])
def test_a_frame_has_the_size_of_the_terminal(width: int, height: int) -> None:
    """No line is wider, the frame is as high as the terminal, and the last line names the keys."""
    lines = drawn(hundred(), width, height, keys=True, rates=[1.0, 2.0, 3.0], server="here")
    assert len(lines) == height
    assert max(len(line) for line in lines) <= width
    assert lines[-1].startswith("q quit")
    narrow = drawn(None, width, height, trouble="no answer from 127.0.0.1:8081: refused. " * 5)
    assert len(narrow) == height
    assert "no answer" in "\n".join(narrow)


def test_samples_that_nobody_takes_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal that takes no output stops the reader; then only the newest sample waits for it."""
    taken: list[str] = []
    is_over, go_on = threading.Event(), threading.Event()

    def take(_: object) -> str:
        if len(taken) == 50:
            is_over.set()
            go_on.wait()  # the thread ends with the process
        taken.append(f"sample {len(taken)}")
        return taken[-1]

    monkeypatch.setattr(looking.samples, "take", take)
    looker = looking.Looker(lambda: cast("remote.Remote", None), 0.001)
    looker.start()
    assert is_over.wait(60)
    assert cast("str", looker.newest()) == "sample 49"
    assert looker.newest() is None


def test_keys_that_come_together_are_all_read() -> None:
    """A key that is held, and keys that are typed while a frame is drawn."""
    assert terminal.split_keys(b"sq\x1b[B\x1b[B\x1b[5~\x1bOA j") == [
        b"s", b"q", b"\x1b[B", b"\x1b[B", b"\x1b[5~", b"\x1bOA", b" ", b"j",
    ]  # fmt: skip


def test_a_tall_list_is_scrolled() -> None:
    """A terminal shows as many models as fit, and which these are; without a terminal all are printed."""
    view = hundred(problem=True)
    frame = Frame(view, 80, 24, keys=True, sort="model", first=90)
    out = io.StringIO()
    Console(file=out, width=80, height=24).print(frame.draw(), end="")
    text = out.getvalue()
    assert "model-of-length" in text
    assert "-090/1" in text
    assert "-089/1" not in text
    assert f"models 91 to {90 + frame.shown[0]} of 100" in text
    assert "... 30 workers in all" in text
    frame.view = msgspec.structs.replace(view, models=view.models[:10])
    Console(file=(out := io.StringIO()), width=80, height=24).print(frame.draw(), end="")
    assert "models 10 to 10 of 10" in out.getvalue(), "the others have gone"
    every = "\n".join(drawn(view, 80, sort="model"))
    assert all(f"-{number:03}/1" in every for number in range(100))
    assert "q quit" not in every


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (figures.rate(None), "-"), (figures.rate(0), "0"), (figures.rate(0.01), "<0.1"), (figures.rate(12.34), "12.3"),
        (figures.rate(99.97), "100"), (figures.rate(4310.4), "4310"), (figures.percent(0.0001), "<0.1"),
        (figures.percent(0.002), "0.2"), (figures.percent(0.5), "50"), (figures.percent(1.43), "143"),
        (figures.milliseconds(0.00043), "0.43"), (figures.milliseconds(0.0431), "43.1"),
        (figures.milliseconds(30), "30000"), (figures.milliseconds(0), "0"), (figures.size(852_000_000), "852 MB"),
        (figures.size(3_040_000_000), "3.0 GB"), (figures.size(0), "-"), (figures.duration(5), "5 s"),
        (figures.duration(725), "12 min 5 s"), (figures.duration(273600), "3 d 4 h"), (figures.clock(725), "0:12:05"),
        (figures.clock(8e6), "92 d"), (figures.bars([0, 4, 8]), "▁▅█"), (figures.bars([0, 0]), "▁▁"),
    ],
)  # fmt: skip
def test_figures(made: str, expected: str) -> None:
    """Few digits, one form for each unit, and nothing that happened is shown as 0."""
    assert made == expected
