"""Requests are traced where `tracing.endpoint` is set, by the fast dispatch and by Flask, errors too."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from tableside.errors import SettingsError
from tableside.settings import load
from tableside.telemetry import logs
from tableside.telemetry.span_exporter import DROP_REASONS
from tableside.web.extensions import EXTENSION_KEY
from tests.conftest import CONTROL, KEY, MakeApp, registry_of
from tests.span_receiver import Received, SpanReceiver, receiving

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED = {"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "congo=t61"}
GOOD = {"instances": [[5.1, 3.5, 1.4, 0.2]]}
IRIS = "/v1/models/iris:predict"
Spans = Callable[[], list[Received]]


@pytest.fixture
def receiver() -> Iterator[SpanReceiver]:
    with receiving() as started:
        yield started


@pytest.fixture
def app(make_app: MakeApp, receiver: SpanReceiver) -> Iterator[Flask]:
    """An application that traces what its callers trace, and nothing by chance."""
    made = make_app(tracing__endpoint=receiver.url, tracing__sample_ratio="0")
    yield made
    made.extensions[EXTENSION_KEY].tracing.stop(10)


@pytest.fixture
def spans(app: Flask, receiver: SpanReceiver) -> Spans:
    """Ends the application's exporter and returns the spans that have arrived, each trace's in its order."""

    def stop() -> list[Received]:
        app.extensions[EXTENSION_KEY].tracing.stop(10)
        return receiver.of_trace(TRACE)

    return stop


def test_a_prediction_has_its_stages(app: Flask, spans: Spans) -> None:
    """The caller's span has one child, the server's, and that one has the stages, one after the other."""
    response = app.test_client().post(IRIS, json=GOOD, headers=SAMPLED)
    assert response.status_code == 200
    server, *stages = spans()
    assert [span.name for span in stages] == ["decode", "queue", "predict", "encode"]
    assert server.parent == SPAN
    assert {span.parent for span in stages} == {server.span}
    assert len({span.span for span in (server, *stages)}) == 5
    edges = [server.start_ns, *(edge for span in stages for edge in (span.start_ns, span.end_ns)), server.end_ns]
    assert edges == sorted(edges)
    assert (server.name, server.state) == ("POST /v1/models/{name}:predict", "congo=t61")
    assert server.attributes["tableside.model"] == "iris"
    assert server.attributes["tableside.rows"] == 1
    assert server.attributes["tableside.request_id"] == response.headers["X-Request-ID"]
    assert response.headers["traceresponse"] == f"00-{TRACE}-{server.span}-01"
    assert (server.resource["service.name"], server.resource["service.version"]) == ("tableside", "0.1.0")


@pytest.mark.parametrize(
    ("path", "body", "status", "name", "is_error"),
    [
        ("/v2/models/iris/infer", {"inputs": 1}, 400, "POST /v2/models/{name}/infer", False),
        ("/v1/models/none:predict", GOOD, 404, "POST /v1/models/{name}:predict", False),
        ("/v2/models/iris", None, 200, "GET /v2/models/{name}", False),
        ("/v9/anything", None, 404, "GET", False),
        ("/v2/health/ready", None, 200, "GET /v2/health/ready", False),
    ],
)
def test_every_request_of_a_caller_is_traced(
    app: Flask, spans: Spans, path: str, body: Any, status: int, name: str, is_error: bool
) -> None:
    """Errors, other routes and probes too; paths give no names. Answers name the span."""
    client = app.test_client()
    response = client.get(path, headers=SAMPLED) if body is None else client.post(path, json=body, headers=SAMPLED)
    assert response.status_code == status
    server, *_ = spans()
    assert (server.name, server.is_error) == (name, is_error)
    assert server.attributes["http.response.status_code"] == status
    assert response.headers.getlist("traceresponse") == [f"00-{TRACE}-{server.span}-01"]


def test_a_failure_of_the_server_is_an_error(app: Flask, spans: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its span has the error's class; stages that did not end have none."""
    servable = registry_of(app).catalog.models["iris"].servables[0]

    class Broken:
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError("broken")

    monkeypatch.setattr(servable, "runtime", Broken())
    assert app.test_client().post(IRIS, json=GOOD, headers=SAMPLED).status_code == 500
    server, *stages = spans()
    assert server.is_error
    assert server.attributes["error.type"] == "InferenceFailed"
    assert [span.name for span in stages] == ["decode"]


def test_other_requests_are_not_traced(app: Flask, receiver: SpanReceiver, spans: Spans) -> None:
    """Without a header, with the flag not set, and with an invalid header there is no span and no header."""
    client = app.test_client()
    for header in ("", f"00-{TRACE}-{SPAN}-00", f"00-{TRACE}-{'0' * 16}-01"):
        response = client.post(IRIS, json=GOOD, headers={"traceparent": header})
        assert response.status_code == 200
        assert "traceresponse" not in response.headers
    assert spans() == receiver.spans == []


def test_the_access_line_has_the_ids(app: Flask, spans: Spans, capfd: pytest.CaptureFixture[str]) -> None:
    """A line leads to its trace; the line of a request that is not traced has no ids."""
    logs.configure("json", "info")
    for headers in (SAMPLED, {}):
        app.test_client().post(IRIS, json=GOOD, headers=headers)
    server = spans()[0]
    logs.flush()
    traced, other = [json.loads(line) for line in capfd.readouterr().out.splitlines() if '"access"' in line]
    assert (traced["trace_id"], traced["span_id"]) == (TRACE, server.span)
    assert not {"trace_id", "span_id"} & set(other)


def test_a_failure_to_make_spans_costs_no_answer(app: Flask, spans: Spans) -> None:
    """The request is answered and counted all the same."""

    def broken(method: str, path: str) -> str:
        raise KeyError(path)

    app.extensions[EXTENSION_KEY].tracing.route_of = broken
    assert app.test_client().post(IRIS, json=GOOD, headers=SAMPLED).status_code == 200
    assert spans() == []
    text = app.test_client().get("/metrics", environ_overrides=CONTROL, headers={"Authorization": f"Bearer {KEY}"}).text
    assert 'tableside_spans_dropped_total{reason="failed"} 1.0' in text


def test_counts_of_dropped_spans_begin_at_0(app: Flask) -> None:
    """An alert asks for their increase, by reason."""
    text = app.test_client().get("/metrics", environ_overrides=CONTROL, headers={"Authorization": f"Bearer {KEY}"}).text
    for reason in DROP_REASONS:
        assert f'tableside_spans_dropped_total{{reason="{reason}"}} 0.0' in text


def test_spans_are_counted(app: Flask, spans: Spans) -> None:
    """Metrics say how many spans arrived."""
    app.test_client().post(IRIS, json=GOOD, headers=SAMPLED)
    assert len(spans()) == 5
    answer = app.test_client().get("/metrics", environ_overrides=CONTROL, headers={"Authorization": f"Bearer {KEY}"})
    assert "tableside_spans_sent_total 5.0" in answer.text


def test_without_an_endpoint_nothing_is_imported(tmp_path: Path) -> None:
    """Traces cost nothing when they are off: no module of theirs is there, and no header comes back."""
    code = (
        "import sys, os; os.chdir(sys.argv[1])\n"
        "from tableside.factory import create_app\n"
        "app = create_app()\n"
        f"answer = app.test_client().get('/v2', headers={SAMPLED!r})\n"
        "assert answer.status_code == 200 and 'traceresponse' not in answer.headers\n"
        "print([m for m in sys.modules if m.startswith(('opentelemetry', 'google', 'tableside.telemetry.t'))])\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=300)
    assert done.stdout.splitlines()[-1:] == ["[]"], done.stderr


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"endpoint": "localhost:4318"}, "begins with http:// or https://"),
        ({"endpoint": "http://"}, "begins with http:// or https://"),
        ({"endpoint": "http://:4318"}, "expected http://HOST:PORT"),
        ({"endpoint": "http://a:b@c"}, "tracing.headers_file"),
        ({"endpoint": "http://a:x"}, "expected http://HOST:PORT"),
        ({"sample_ratio": "1.5"}, "TABLESIDE__TRACING__SAMPLE_RATIO"),
        ({"resource_attributes": "a"}, "expected NAME=VALUE"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, str], said: str) -> None:
    """The start ends with one line that names the setting."""
    with pytest.raises(SettingsError) as raised:
        load({f"TABLESIDE__TRACING__{name.upper()}": value for name, value in settings.items()})
    assert said in str(raised.value)
    assert "TRACING" in str(raised.value).upper()


def test_the_packages_are_named_where_they_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """An endpoint without the packages ends the start with the line to type."""
    monkeypatch.setattr("tableside.tracing_settings.find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=r"\.whl\[tracing\]', or .* -r requirements/tracing.txt"):
        load({"TABLESIDE__TRACING__ENDPOINT": "http://127.0.0.1:4318"})
    assert load({}).tracing.endpoint == ""
