"""Under overload probes and other models are answered, late work is dropped, and the rest is refused at once."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import joblib
import pytest
from sklearn.ensemble import RandomForestRegressor

from tests.e2e.conftest import Stack, until
from tests.e2e.load_loops import closed_loop, open_loop, request
from tests.e2e.slow_model import slow_estimator

pytestmark = pytest.mark.e2e
PROBE = request("/v2/health/live", None)
IRIS = request("/v1/models/iris:predict", {"instances": [[5.1, 3.5, 1.4, 0.2]]})
RecordProperty = Callable[[str, object], None]


@pytest.fixture(scope="module")
def slow() -> tuple[Any, Any]:
    return slow_estimator()


@pytest.fixture(scope="module")
def stack(make_stack: Callable[..., Stack], slow: tuple[Any, Any], tmp_path_factory: Any) -> Iterator[Stack]:
    """A stack with a model that is slow per row, and one that is slow per call whatever the number of rows."""
    started = make_stack(start=False, TABLESIDE__SERVER__REQUEST_TIMEOUT_S="60")
    folder: Path = tmp_path_factory.mktemp("slow")
    estimator, sample = slow
    forest = RandomForestRegressor(200, random_state=0).fit(sample, estimator.predict(sample))
    sample.to_csv(folder / "sample.csv", index=False)
    for name, each in (("slow", estimator), ("forest", forest)):
        joblib.dump(each, folder / f"{name}.joblib")
        done = started.cli(
            "publish", name, str(folder / f"{name}.joblib"), "--sample", str(folder / "sample.csv"),
            "--runtime", "sklearn",  # with a fast backend no calls would be shared
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    started.start()
    started.wait_loaded()
    assert until(lambda: all(is_ready_in_every_worker(started, name) for name in ("slow", "forest")), 60), (
        started.logs()
    )
    yield started
    started.stop()


def is_ready_in_every_worker(stack: Stack, name: str) -> bool:
    """Return whether ten requests in a row, spread over the workers, find the model ready."""
    return all(stack.call(f"/v2/models/{name}/ready")[0] == 200 for _ in range(10))


def metric(stack: Stack, name: str, **labels: str) -> float:
    return total(stack.call("/metrics", admin=True)[1], name, **labels)


def total(text: str, name: str, **labels: str) -> float:
    lines = [line for line in text.splitlines() if line.startswith(f"{name}{{")]
    return sum(float(line.rpartition(" ")[2]) for line in lines if all(f'{k}="{v}"' in line for k, v in labels.items()))


def arrived(stack: Stack) -> float:
    """How many requests of `slow` the workers have received so far, answered or not."""
    _, text, _ = stack.call("/metrics", admin=True)
    in_flight, answered = (total(text, f"tableside_requests_{kind}", model="slow") for kind in ("in_flight", "total"))
    return in_flight + answered


def seconds_a_row(stack: Stack, sample: Any) -> float:
    """Return the time of a prediction per row, measured by requests of many rows through the stack."""
    rows = sample.sample(200, replace=True, random_state=1).values.tolist()
    times = []
    for _ in range(3):
        began_s = time.monotonic()
        assert stack.call("/v1/models/slow:predict", {"instances": rows})[0] == 200
        times.append(time.monotonic() - began_s)
    return min(times) / len(rows)


def busy(stack: Stack, message: bytes, clients: int, seconds: float) -> threading.Thread:
    """Start clients of the model `slow` in a thread. Return when predictions of it have begun."""
    thread = threading.Thread(target=closed_loop, args=(stack.data, message, clients, seconds, 90.0))
    thread.start()
    assert until(lambda: metric(stack, "tableside_requests_in_flight", model="slow") >= min(clients, 2))
    return thread


def test_a_predict_of_five_seconds_disturbs_nobody(stack: Stack, slow: Any, record_property: RecordProperty) -> None:
    """While every worker predicts for 5 s, probes and another model are answered quickly."""
    sample = slow[1]
    count = int(5.0 / seconds_a_row(stack, sample))
    rows = sample.sample(count, replace=True, random_state=1).values.tolist()
    thread = busy(stack, request("/v1/models/slow:predict", {"instances": rows}), 4, 0.1)
    probes, others = open_loop(stack.data, (PROBE, 20), (IRIS, 20), seconds=4)
    assert thread.is_alive()
    thread.join(120)
    result = f"probes p50 {probes.quantile_s(0.5):.4f} p99 {probes.quantile_s(0.99):.4f} s, "
    record_property("said", result + f"iris p50 {others.quantile_s(0.5):.4f} p99 {others.quantile_s(0.99):.4f} s")
    for load in (probes, others):
        assert set(load.counts) == {200}
        assert load.quantile_s(0.95) < 1.0


def test_64_heavy_requests_at_once_disturb_nobody(stack: Stack, slow: Any, record_property: RecordProperty) -> None:
    """While 64 clients send requests to a slow model without a pause, probes and another model are answered quickly."""
    sample = slow[1]
    count = max(1, int(0.05 / seconds_a_row(stack, sample)))
    rows = sample.sample(count, replace=True, random_state=1).values.tolist()
    thread = busy(stack, request("/v1/models/slow:predict", {"instances": rows}), 64, 6.0)
    probes, others = open_loop(stack.data, (PROBE, 20), (IRIS, 20), seconds=4)
    waited = metric(stack, "tableside_queue_rows", model="slow")
    thread.join(120)
    result = f"probes p50 {probes.quantile_s(0.5):.4f} p99 {probes.quantile_s(0.99):.4f} s, "
    result += f"iris p50 {others.quantile_s(0.5):.4f} p99 {others.quantile_s(0.99):.4f} s, {waited:g} rows waited"
    record_property("said", result)
    assert waited > count
    for load in (probes, others):
        assert set(load.counts) == {200}
        assert load.quantile_s(0.95) < 1.0
    assert metric(stack, "tableside_queue_rows", model="slow") == 0


def test_requests_for_a_busy_model_share_its_calls(stack: Stack, slow: Any, record_property: RecordProperty) -> None:
    """64 clients get far more answers per second than one client, because their requests share calls."""
    rows = slow[1].iloc[:1].values.tolist()
    message = request("/v1/models/forest:predict", {"instances": rows})
    closed_loop(stack.data, message, 16, 2.0)
    calls, answered = (metric(stack, f"tableside_batch_rows_{what}", model="forest") for what in ("count", "sum"))
    one, many = closed_loop(stack.data, message, 1, 3.0), closed_loop(stack.data, message, 64, 4.0)
    calls = metric(stack, "tableside_batch_rows_count", model="forest") - calls
    answered = metric(stack, "tableside_batch_rows_sum", model="forest") - answered
    rates = [len(load.times_s()) / load.seconds for load in (one, many)]
    result = f"1 client {rates[0]:.0f}/s p50 {one.quantile_s(0.5):.4f} s, 64 clients {rates[1]:.0f}/s "
    result += f"p50 {many.quantile_s(0.5):.4f} p99 {many.quantile_s(0.99):.4f} s; {answered:g} rows in {calls:g} calls"
    record_property("said", result)
    assert set(one.counts) == set(many.counts) == {200}
    assert answered == len(one.answers) + len(many.answers)
    assert calls < answered - len(one.answers) * 0.5
    assert rates[1] > 1.5 * rates[0]


def test_three_times_too_much(stack: Stack, slow: Any, record_property: RecordProperty) -> None:
    """At three times the peak rate goodput stays, accepted requests are answered in time, and others get 429."""
    sample, deadline_ms = slow[1], 1500
    count = max(1, int(0.04 / seconds_a_row(stack, sample)))
    rows = sample.sample(count, replace=True, random_state=1).values.tolist()
    message = request("/v1/models/slow:predict", {"instances": rows}, X_Request_Timeout_Ms=str(deadline_ms))

    def peak_per_s(seconds: float) -> float:
        return len(closed_loop(stack.data, message, 8, seconds).times_s()) / seconds

    closed_loop(stack.data, message, 8, 2.0)
    for _ in range(3):  # the machine is at times half as fast as just before: rounds, and the peak before and after
        peak = peak_per_s(5.0)
        load, probes = open_loop(stack.data, (message, 3 * peak), (PROBE, 20), seconds=8)
        goodput = sum(seconds <= deadline_ms / 1000 for seconds in load.times_s()) / load.seconds
        least = min(peak, peak_per_s(4.0))
        if goodput > 0.6 * least:
            break
    result = f"peak {peak:.0f}/s, sent {3 * peak:.0f}/s, goodput {goodput:.0f}/s ({goodput / peak:.0%}), "
    result += f"{dict(load.counts)}, "
    result += f"accepted p50 {load.quantile_s(0.5):.3f} p99 {load.quantile_s(0.99):.3f} s, "
    result += f"refused p50 {load.quantile_s(0.5, 429):.4f} p99 {load.quantile_s(0.99, 429):.4f} s, "
    record_property("said", result + f"probes p50 {probes.quantile_s(0.5):.4f} p99 {probes.quantile_s(0.99):.4f} s")
    others = sum(many for status, many in load.counts.items() if status not in (200, 429))
    assert others <= len(load.answers) * 0.03, load.counts
    assert load.counts[429] > 0
    assert all(re.search(r"\r\nRetry-After: [1-9][0-9]*(\r|$)", head) for head in load.headers)
    assert goodput > 0.6 * least
    assert load.quantile_s(0.95) < deadline_ms / 1000 * 1.2
    assert set(probes.counts) == {200}
    assert probes.quantile_s(0.9) < 1.0


def test_late_and_abandoned_requests_never_reach_the_estimator(stack: Stack, slow: Any) -> None:
    """Behind long calls, requests past their deadline or without a client are dropped before they are predicted."""
    sample = slow[1]
    count = int(2.0 / seconds_a_row(stack, sample))  # all requests below arrive while the first calls run
    rows = sample.sample(count, replace=True, random_state=1).values.tolist()
    abandoned = metric(stack, "tableside_dropped_total", reason="abandoned")
    predicted = metric(stack, "tableside_batch_rows_sum", model="slow")
    assert until(lambda: metric(stack, "tableside_requests_in_flight", model="slow") == 0), "nothing of other tests"
    before = arrived(stack)
    long = request("/v1/models/slow:predict", {"instances": rows})
    thread = busy(stack, long, 8, 0.1)  # enough that each worker has some
    short = request("/v1/models/slow:predict", {"instances": rows[:1]})
    hung_up = [socket.create_connection(("127.0.0.1", stack.data)) for _ in range(4)]
    for connection in hung_up:
        connection.sendall(short)
    assert until(lambda: arrived(stack) - before >= 8 + len(hung_up)), arrived(stack) - before
    for connection in hung_up:
        connection.close()
    thread.join(60)
    assert until(lambda: metric(stack, "tableside_dropped_total", reason="abandoned") - abandoned >= 3)
    assert metric(stack, "tableside_batch_rows_sum", model="slow") - predicted <= 8 * count + 1
    body = {"inputs": [{"name": "x", "shape": [1, 20], "datatype": "FP64", "data": rows[0]}]}
    status, content, _ = stack.call("/v2/models/slow/infer", {**body, "parameters": {"timeout": 1}})
    assert status in (429, 504), content
    assert stack.call("/v2/models/slow/infer", {**body, "parameters": {"timeout": 20_000_000}})[0] == 200
    status, content, _ = stack.call(
        "/v1/models/slow:predict", {"instances": rows}, headers={"X-Request-Timeout-Ms": "500"}
    )
    assert (status, content["status"]) == (504, 504), "the call takes some 2 s"
    status, content, _ = stack.call("/v2/models/slow/infer", body, headers={"X-Request-Timeout-Ms": "soon"})
    assert (status, "milliseconds" in content["error"]) == (400, True)
