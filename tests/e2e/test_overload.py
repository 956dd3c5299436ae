"""Busy and overloaded: probes and other models go on, late work is dropped, the rest is refused at once."""

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

from tests.e2e.conftest import Stack
from tests.e2e.load_loops import closed_loop, kept_loop, open_loop, request
from tests.e2e.slow_model import slow_estimator

pytestmark = pytest.mark.e2e
PROBE = request("/v2/health/live", None)
IRIS = request("/v1/models/iris:predict", {"instances": [[5.1, 3.5, 1.4, 0.2]]})
Said = Callable[[str, object], None]


@pytest.fixture(scope="module")
def slow() -> tuple[Any, Any]:
    return slow_estimator()


@pytest.fixture(scope="module")
def stack(make_stack: Callable[..., Stack], slow: tuple[Any, Any], tmp_path_factory: Any) -> Iterator[Stack]:
    """A stack that also serves a model whose rows are dear, and one whose calls are dear whatever their rows."""
    one = make_stack(start=False, TABLESIDE__SERVER__REQUEST_TIMEOUT_S="60")
    folder: Path = tmp_path_factory.mktemp("slow")
    estimator, sample = slow
    forest = RandomForestRegressor(200, random_state=0).fit(sample, estimator.predict(sample))
    sample.to_csv(folder / "sample.csv", index=False)
    for name, each in (("slow", estimator), ("forest", forest)):
        joblib.dump(each, folder / f"{name}.joblib")
        done = one.cli(
            "publish", name, str(folder / f"{name}.joblib"), "--sample", str(folder / "sample.csv"),
            "--runtime", "sklearn",  # a fast backend would leave nothing to share
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    one.start()
    one.wait_loaded()
    give_up_at_s, ready = time.monotonic() + 60, 0
    while ready < 10:  # every worker has them
        assert time.monotonic() < give_up_at_s, one.logs()
        ready = ready + 1 if all(one.call(f"/v2/models/{name}/ready")[0] == 200 for name in ("slow", "forest")) else 0
        time.sleep(0.05)
    yield one
    one.stop()


def metric(stack: Stack, name: str, **labels: str) -> float:
    _, text, _ = stack.call("/metrics", admin=True)
    lines = [line for line in text.splitlines() if line.startswith(f"{name}{{")]
    return sum(float(line.rpartition(" ")[2]) for line in lines if all(f'{k}="{v}"' in line for k, v in labels.items()))


def seconds_a_row(stack: Stack, sample: Any) -> float:
    """Measured through the stack, by a request of many rows."""
    rows = sample.sample(200, replace=True, random_state=1).values.tolist()
    times = []
    for _ in range(3):
        began_s = time.monotonic()
        assert stack.call("/v1/models/slow:predict", {"instances": rows})[0] == 200
        times.append(time.monotonic() - began_s)
    return min(times) / len(rows)


def busy(stack: Stack, message: bytes, clients: int, seconds: float) -> threading.Thread:
    thread = threading.Thread(target=closed_loop, args=(stack.data, message, clients, seconds, 90.0))
    thread.start()
    return thread


def test_a_predict_of_five_seconds_disturbs_nobody(stack: Stack, slow: Any, record_property: Said) -> None:
    """While every worker predicts for 5 s, probes and another model answer; the slow answers come, too."""
    sample = slow[1]
    count = int(5.0 / seconds_a_row(stack, sample))
    rows = sample.sample(count, replace=True, random_state=1).values.tolist()
    thread = busy(stack, request("/v1/models/slow:predict", {"instances": rows}), 4, 0.1)
    time.sleep(1.0)
    probes, others = open_loop(stack.data, (PROBE, 20), (IRIS, 20), seconds=4)
    assert thread.is_alive()
    thread.join(120)
    said = f"probes p50 {probes.quantile_s(0.5):.4f} p99 {probes.quantile_s(0.99):.4f} s, "
    record_property("said", said + f"iris p50 {others.quantile_s(0.5):.4f} p99 {others.quantile_s(0.99):.4f} s")
    for load in (probes, others):
        assert set(load.counts) == {200}
        assert load.quantile_s(0.95) < 0.5


def test_64_heavy_requests_at_once_disturb_nobody(stack: Stack, slow: Any, record_property: Said) -> None:
    """The same beside 64 clients that ask the slow model without a pause: they do not stand before other requests."""
    sample = slow[1]
    count = max(1, int(0.05 / seconds_a_row(stack, sample)))
    rows = sample.sample(count, replace=True, random_state=1).values.tolist()
    thread = busy(stack, request("/v1/models/slow:predict", {"instances": rows}), 64, 6.0)
    time.sleep(1.5)
    probes, others = open_loop(stack.data, (PROBE, 20), (IRIS, 20), seconds=4)
    waited = metric(stack, "tableside_queue_rows", model="slow")
    thread.join(120)
    said = f"probes p50 {probes.quantile_s(0.5):.4f} p99 {probes.quantile_s(0.99):.4f} s, "
    said += f"iris p50 {others.quantile_s(0.5):.4f} p99 {others.quantile_s(0.99):.4f} s, {waited:g} rows waited"
    record_property("said", said)
    assert waited > count
    for load in (probes, others):
        assert set(load.counts) == {200}
        assert load.quantile_s(0.95) < 0.5
    assert metric(stack, "tableside_queue_rows", model="slow") == 0


def test_requests_for_a_busy_model_share_its_calls(stack: Stack, slow: Any, record_property: Said) -> None:
    """64 clients at once get far more answers a second than one, because calls are shared; each its own answer."""
    rows = slow[1].iloc[:1].values.tolist()
    message = request("/v1/models/forest:predict", {"instances": rows})
    closed_loop(stack.data, message, 16, 2.0)
    calls, answered = (metric(stack, f"tableside_batch_rows_{what}", model="forest") for what in ("count", "sum"))
    one, many = closed_loop(stack.data, message, 1, 3.0), closed_loop(stack.data, message, 64, 4.0)
    calls = metric(stack, "tableside_batch_rows_count", model="forest") - calls
    answered = metric(stack, "tableside_batch_rows_sum", model="forest") - answered
    rates = [len(load.times_s()) / load.seconds for load in (one, many)]
    said = f"1 client {rates[0]:.0f}/s p50 {one.quantile_s(0.5):.4f} s, 64 clients {rates[1]:.0f}/s "
    said += f"p50 {many.quantile_s(0.5):.4f} p99 {many.quantile_s(0.99):.4f} s; {answered:g} rows in {calls:g} calls"
    record_property("said", said)
    assert set(one.counts) == set(many.counts) == {200}
    assert answered == len(one.answers) + len(many.answers)
    assert calls < answered - len(one.answers) * 0.5
    assert rates[1] > 1.5 * rates[0]


def test_no_connection_starves(make_stack: Callable[..., Stack], record_property: Said) -> None:
    """48 kept connections to the workers themselves, without a pause: each is answered about as often as the others."""
    one = make_stack(TABLESIDE__SERVER__NGINX="off")
    one.wait_loaded()
    counts = kept_loop(one.data, IRIS, 48, 4.0)
    by_worker = sorted(counts)
    record_property("said", f"{sum(counts)} answers, {by_worker[0]} to {by_worker[-1]} a connection")
    assert by_worker[0] > 0.2 * sum(counts) / len(counts)
    one.stop()


def test_three_times_too_much(stack: Stack, slow: Any, record_property: Said) -> None:
    """Open loop at three times the measured peak: goodput stays, who is let in is answered in time, others get 429."""
    sample, deadline_ms = slow[1], 1500
    count = max(1, int(0.04 / seconds_a_row(stack, sample)))
    rows = sample.sample(count, replace=True, random_state=1).values.tolist()
    message = request("/v1/models/slow:predict", {"instances": rows}, X_Request_Timeout_Ms=str(deadline_ms))
    closed_loop(stack.data, message, 8, 2.0)
    peak = len(closed_loop(stack.data, message, 8, 5.0).times_s()) / 5.0
    load, probes = open_loop(stack.data, (message, 3 * peak), (PROBE, 20), seconds=8)
    goodput = sum(seconds <= deadline_ms / 1000 for seconds in load.times_s()) / load.seconds
    said = f"peak {peak:.0f}/s, sent {3 * peak:.0f}/s, goodput {goodput:.0f}/s ({goodput / peak:.0%}), "
    said += f"{dict(load.counts)}, "
    said += f"accepted p50 {load.quantile_s(0.5):.3f} p99 {load.quantile_s(0.99):.3f} s, "
    said += f"refused p50 {load.quantile_s(0.5, 429):.4f} p99 {load.quantile_s(0.99, 429):.4f} s, "
    record_property("said", said + f"probes p50 {probes.quantile_s(0.5):.4f} p99 {probes.quantile_s(0.99):.4f} s")
    others = sum(many for status, many in load.counts.items() if status not in (200, 429))
    assert others <= len(load.answers) * 0.03, load.counts
    assert load.counts[429] > 0
    assert all(re.search(r"\r\nRetry-After: [1-9][0-9]*(\r|$)", head) for head in load.headers)
    assert goodput > 0.6 * peak
    assert load.quantile_s(0.95) < deadline_ms / 1000 * 1.2
    assert set(probes.counts) == {200}
    assert probes.quantile_s(0.9) < 0.25


def test_late_and_abandoned_requests_never_reach_the_estimator(stack: Stack, slow: Any) -> None:
    """Behind a long call: whose deadline passes is 504, whose client hangs up is dropped; neither is predicted."""
    sample = slow[1]
    count = int(0.75 / seconds_a_row(stack, sample))
    rows = sample.sample(count, replace=True, random_state=1).values.tolist()
    before = {reason: metric(stack, "tableside_dropped_total", reason=reason) for reason in ("expired", "abandoned")}
    predicted = metric(stack, "tableside_batch_rows_sum", model="slow")
    long = request("/v1/models/slow:predict", {"instances": rows})
    thread = busy(stack, long, 8, 0.1)  # enough of them that each worker has some
    time.sleep(0.3)
    one = request("/v1/models/slow:predict", {"instances": rows[:1]})
    hung_up = [socket.create_connection(("127.0.0.1", stack.data)) for _ in range(4)]
    for connection in hung_up:
        connection.sendall(one)
    time.sleep(0.2)
    for connection in hung_up:
        connection.close()
    thread.join(60)
    time.sleep(1.0)
    assert metric(stack, "tableside_batch_rows_sum", model="slow") - predicted <= 8 * count + 1
    assert metric(stack, "tableside_dropped_total", reason="abandoned") - before["abandoned"] >= 3
    body = {"inputs": [{"name": "x", "shape": [1, 20], "datatype": "FP64", "data": rows[0]}]}
    status, content, _ = stack.call("/v2/models/slow/infer", {**body, "parameters": {"timeout": 1}})
    assert status in (429, 504), content
    assert stack.call("/v2/models/slow/infer", {**body, "parameters": {"timeout": 20_000_000}})[0] == 200
    status, content, _ = stack.call("/v2/models/slow/infer", body, headers={"X-Request-Timeout-Ms": "soon"})
    assert (status, "milliseconds" in content["error"]) == (400, True)
