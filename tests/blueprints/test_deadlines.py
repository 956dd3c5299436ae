"""A request's deadline, from the header, from Triton's parameter and from nginx's start time, and what it leads to."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from flask.testing import FlaskClient

from tableside.errors import RequestRejected
from tableside.settings import Server
from tableside.web import deadlines
from tests.conftest import CONTROL, MakeApp, error_of, serve
from tests.fakes import SumRuntime, numbers

V1, V2 = "/v1/models/sums:predict", "/v2/models/sums/infer"
ROWS = {"instances": [[1.0, 2.0]]}
TENSOR = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP64", "data": [1.0, 2.0]}]}
HEADER = "X-Request-Timeout-Ms"


class GatedRuntime(SumRuntime):
    """A SumRuntime whose calls wait until the test opens the gate."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()

    def run(self, method: str, data: Any) -> Any:
        self.gate.wait(30)
        return super().run(method, data)


@pytest.fixture
def runtime() -> Iterator[GatedRuntime]:
    gated = GatedRuntime()
    yield gated
    gated.gate.set()


@pytest.fixture
def client(make_app: MakeApp, runtime: GatedRuntime) -> FlaskClient:
    """A client of one model, `sums`, which answers when the gate is open."""
    app = make_app(empty=True)
    serve(app, {"sums": (numbers("a", "b"), runtime)})
    return app.test_client()


@pytest.fixture(params=["unix", "tcp"])
def connection(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    """The server's end of a connection whose client is present."""
    with connected(request.param) as (server_end, _client):
        yield server_end


class connected:
    """The two ends of a connection, the server's first."""

    def __init__(self, kind: str) -> None:
        if kind == "unix":
            self.ends = socket.socketpair(socket.AF_UNIX)
            return
        with closing(socket.create_server(("127.0.0.1", 0))) as listener:
            theirs = socket.create_connection(listener.getsockname())
            self.ends = listener.accept()[0], theirs

    def __enter__(self) -> tuple[socket.socket, socket.socket]:
        return self.ends

    def __exit__(self, *_: object) -> None:
        for end in self.ends:
            end.close()


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "soon", "", "9999999999", "1e3", " 5", "٥"])
def test_an_invalid_header_is_400(client: FlaskClient, value: str) -> None:
    """The header must be a whole number of milliseconds from 1; the error names the header and what it expects."""
    response = client.post(V1, json=ROWS, environ_overrides={"HTTP_X_REQUEST_TIMEOUT_MS": value})
    assert response.status_code == 400
    assert error_of(response)["error"] == f"{HEADER}: expected a whole number of milliseconds, from 1 to 999999999"


@pytest.mark.parametrize("value", [-1, 1.5, "1", True, 2**63])
def test_an_invalid_parameter_is_400(client: FlaskClient, value: Any) -> None:
    """Triton's timeout must be a whole number of microseconds; the error names the parameter."""
    response = client.post(V2, json={**TENSOR, "parameters": {"timeout": value}})
    assert response.status_code == 400
    place = {"path": "parameters.timeout", "message": "expected a whole number of microseconds, from 0 to 2^63 - 1"}
    assert error_of(response)["errors"] == [place]


@pytest.mark.parametrize(
    ("header_ms", "parameter_us"), [("50", None), (None, 50_000), ("50", 60_000_000), ("60000", 50_000), ("50", 0)]
)
def test_the_earliest_deadline_ends_the_request(
    client: FlaskClient, header_ms: str | None, parameter_us: int | None
) -> None:
    """A client can shorten its time by header or by parameter; the earlier one ends the request with 504."""
    body = TENSOR if parameter_us is None else {**TENSOR, "parameters": {"timeout": parameter_us}}
    response = client.post(V2, json=body, headers={} if header_ms is None else {HEADER: header_ms})
    assert response.status_code == 504
    assert error_of(response)["error"] == "no answer within the deadline of 0.05 s"


def test_an_answer_within_the_deadline_is_sent(client: FlaskClient, runtime: GatedRuntime) -> None:
    """A parameter of 0 sets no deadline, and a request that is answered in time is a 200."""
    runtime.gate.set()
    body = {**TENSOR, "parameters": {"timeout": 0}}
    response = client.post(V2, json=body, headers={HEADER: "30000"})
    assert response.get_json()["outputs"][0]["data"] == [3.0]


def test_a_client_cannot_lengthen_its_time(make_app: MakeApp) -> None:
    """`server.request_timeout_s` ends a request whose header gives more time."""
    app = make_app(empty=True, server__request_timeout_s="0.000001")
    serve(app, {"sums": (numbers("a", "b"), SumRuntime())})
    response = app.test_client().post(V1, json=ROWS, headers={HEADER: "60000"})
    assert response.status_code == 504
    # The difference of two moments: after a day of uptime it is 9.99993e-07.
    found = re.search(r"deadline of (\S+) s", error_of(response)["error"])
    assert found and float(found[1]) == pytest.approx(1e-6, rel=1e-3)


@pytest.mark.parametrize("started_ms", ["50", "1", "999999999"])
def test_the_deadline_counts_from_the_start_of_the_request(started_ms: str) -> None:
    """The deadline is the start plus the smaller of the header's budget and the operator's."""
    deadline_at_s = deadlines.at_s({"HTTP_X_REQUEST_TIMEOUT_MS": started_ms}, 100.0, 2.0)
    assert deadline_at_s == 100.0 + min(2.0, int(started_ms) / 1000)
    assert deadlines.at_s({}, 100.0, 2.0) == 102.0
    with pytest.raises(RequestRejected, match=HEADER):
        deadlines.at_s({"HTTP_X_REQUEST_TIMEOUT_MS": "0"}, 100.0, 2.0)


def stamp(age_s: float) -> str:
    return f"t={time.time() - age_s:.3f}"


def test_a_request_that_waited_too_long_is_503(client: FlaskClient, runtime: GatedRuntime) -> None:
    """A request that waited in the kernel's queue past its deadline: the server is late, with Retry-After."""
    runtime.gate.set()
    with connected("unix") as (connection, _client):
        response = client.post(
            V1, json=ROWS, headers={"X-Request-Start": stamp(35)}, environ_overrides={"gunicorn.socket": connection}
        )
    assert response.status_code == 503
    assert int(response.headers["Retry-After"]) >= 1
    assert "until a worker read it and has 0 s left" in error_of(response)["error"]
    assert runtime.seen == []


def test_only_nginx_can_set_the_start_of_a_request(connection: socket.socket) -> None:
    """The start time counts on a Unix socket, which only nginx connects to; over TCP it is ignored."""
    environ = {"HTTP_X_REQUEST_START": stamp(35), "gunicorn.socket": connection}
    age_s = deadlines.age_s(environ, Server())
    if connection.family == socket.AF_UNIX:
        assert 34 < age_s < 40
    else:
        assert age_s == 0.0


@pytest.mark.parametrize("value", ["t=soon", "t=", "40", f"t={2**70}", -5000, 41, 3600, "t=1.5"])
def test_a_start_time_that_cannot_be_right_is_ignored(value: str | int) -> None:
    """A start time that is malformed, in the future, or older than nginx waits for an answer counts as none.

    A clock that is set forward by an hour must not make every request an hour late.
    """
    value = stamp(value) if isinstance(value, int) else value
    with connected("unix") as (connection, _client):
        assert deadlines.age_s({"HTTP_X_REQUEST_START": value, "gunicorn.socket": connection}, Server()) == 0.0
        assert deadlines.age_s({"HTTP_X_REQUEST_START": stamp(30)}, Server()) == 0.0


def test_a_request_whose_client_has_left_is_not_predicted(client: FlaskClient, runtime: GatedRuntime) -> None:
    """It is dropped before predict, answered with 499 for the log, and counted; nothing stays in the queue."""
    runtime.gate.set()
    with connected("unix") as (connection, their_end):
        their_end.close()
        response = client.post(V1, json=ROWS, environ_overrides={"gunicorn.socket": connection})
    assert response.status_code == 499
    assert error_of(response)["title"] == "Client Closed Request"
    assert runtime.seen == []
    text = client.get("/metrics", environ_overrides=CONTROL).get_data(as_text=True)
    assert 'tableside_requests_in_flight{model="sums"} 0.0' in text
    assert 'tableside_requests_total{code="499",model="sums",protocol="v1",version="1"} 1.0' in text
