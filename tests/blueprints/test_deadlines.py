"""A request's time: by header, by Triton's parameter, by nginx's stamp; and what becomes of it when it is over."""

from __future__ import annotations

import socket
import time
from typing import Any

import pytest
from flask.testing import FlaskClient
from gevent.monkey import get_original

from tests.conftest import MakeApp, registry_of
from tests.fakes import CarefulRuntime

V1, V2 = "/v1/models/iris:predict", "/v2/models/iris/infer"
ROWS = {"instances": [[5.1, 3.5, 1.4, 0.2]]}
TENSOR = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP64", "data": [5.1, 3.5, 1.4, 0.2]}]}
HEADER = "X-Request-Timeout-Ms"


class Connection:
    """A connection as gunicorn gives it: what it is, and whether its peer has gone."""

    def __init__(self, family: int = socket.AF_UNIX, gone: bool = False) -> None:
        self.family = family
        self._here, self._there = socket.socketpair()
        if gone:
            self._there.close()

    def fileno(self) -> int:
        return self._here.fileno()

    def __del__(self) -> None:
        self._here.close()
        self._there.close()

    def getsockname(self) -> str:
        return "/run/web.sock"


@pytest.fixture
def slow(make_app: MakeApp) -> FlaskClient:
    """iris with an estimator that takes 0.3 s."""
    app = make_app()
    registry_of(app).catalog.servable("iris").runtime = CarefulRuntime(0.3, sleep=get_original("time", "sleep"))
    return app.test_client()


@pytest.mark.parametrize("given", ["0", "-1", "1.5", "soon", "", "9999999999"])
def test_a_header_that_is_no_time_is_400(client: FlaskClient, given: str) -> None:
    """Anything but a whole number of milliseconds from 1."""
    response = client.post(V1, json=ROWS, headers={HEADER: given})
    assert response.status_code == 400
    assert HEADER in response.get_json()["error"]


@pytest.mark.parametrize("given", [-1, 1.5, "1", True, 2**63])
def test_a_parameter_that_is_no_time_is_400(client: FlaskClient, given: Any) -> None:
    """Anything but a whole number of microseconds."""
    response = client.post(V2, json={**TENSOR, "parameters": {"timeout": given}})
    assert response.status_code == 400
    assert response.get_json()["errors"][0]["path"] == "parameters.timeout"


def test_a_client_can_shorten_its_time(slow: FlaskClient) -> None:
    """By the header or the parameter, whichever is earlier; 0 is the server's own; an answer in time is an answer."""
    began_s = time.monotonic()
    assert slow.post(V1, json=ROWS, headers={HEADER: "50"}).status_code == 504
    assert time.monotonic() - began_s < 0.25
    assert slow.post(V2, json={**TENSOR, "parameters": {"timeout": 50_000}}).status_code in (429, 504)
    time.sleep(0.7)
    both = {**TENSOR, "parameters": {"timeout": 60_000_000}}
    assert slow.post(V2, json=both, headers={HEADER: "50"}).status_code in (429, 504)
    time.sleep(0.7)
    assert slow.post(V2, json={**TENSOR, "parameters": {"timeout": 0}}, headers={HEADER: "5000"}).status_code == 200


def test_a_client_cannot_lengthen_its_time(make_app: MakeApp) -> None:
    """The operator's limit stays."""
    client = make_app(server__request_timeout_s="0.000001").test_client()
    assert client.post(V1, json=ROWS, headers={HEADER: "60000"}).status_code == 504


def test_time_in_the_kernel_s_queue_counts(client: FlaskClient) -> None:
    """nginx stamps a request; what it waited before a worker saw it is part of its time, and overload, not lateness.

    By TCP anybody could send the stamp, so there it says nothing; nor does one from the future, or none.
    """
    old, new = f"t={time.time() - 40:.3f}", f"t={time.time() + 5:.3f}"

    def ask(stamp: str, family: int) -> Any:
        environ = {"gunicorn.socket": Connection(family)}
        return client.post(V1, json=ROWS, headers={"X-Request-Start": stamp}, environ_overrides=environ)

    refused = ask(old, socket.AF_UNIX)
    assert refused.status_code == 429
    assert int(refused.headers["Retry-After"]) >= 1
    assert refused.get_json()["status"] == 429
    for stamp, family in ((old, socket.AF_INET), (new, socket.AF_UNIX), ("t=soon", socket.AF_UNIX)):
        assert ask(stamp, family).status_code == 200


def test_a_client_that_has_gone_is_not_predicted_for(slow: FlaskClient) -> None:
    """It is dropped before predict, logged as 499, and counted; in the metrics nothing waits afterwards."""
    environ = {"gunicorn.socket": Connection(gone=True)}
    response = slow.post(V1, json=ROWS, environ_overrides=environ)
    assert response.status_code == 499
    assert response.get_json()["title"] == "Client Closed Request"
    servable = registry_of(slow.application).catalog.servable("iris")
    assert servable.runtime.sizes == []  # type: ignore[union-attr]
    text = slow.get("/metrics", environ_overrides={"tableside.plane": "control"}).get_data(as_text=True)
    assert 'tableside_dropped_total{model="iris",reason="abandoned",version="1"} 1.0' in text
    assert 'tableside_queue_rows{model="iris",version="1"} 0.0' in text
