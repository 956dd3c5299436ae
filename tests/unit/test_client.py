"""The Python client: what it sends, what it raises and what it retries, against a server with scripted answers."""

from __future__ import annotations

import json
import math
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pandas as pd
import pytest

import tableside_client
from benchmarks.free_ports import free_port
from tableside_client import BadPlace, Client, RequestFailed, ServerFailed, Unavailable, Unreachable, nan_for_null


@dataclass
class Script:
    """A server's answers in order, the last one repeated; it remembers the requests and the waits of the client."""

    url: str
    answers: list[tuple[int, dict[str, str], bytes]] = field(default_factory=list)
    requests: list[tuple[str, str, Any]] = field(default_factory=list)
    slept_s: list[float] = field(default_factory=list)

    def answer(self, status: int, content: Any, **headers: str) -> None:
        text = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.answers.append((status, {name.replace("_", "-"): value for name, value in headers.items()}, text))

    def client(self, **more: Any) -> Client:
        return Client(self.url, timeout_s=5, sleep=self.slept_s.append, **more)


@pytest.fixture
def script() -> Iterator[Script]:
    class Handler(BaseHTTPRequestHandler):
        def reply(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            script.requests.append((self.command, self.path, json.loads(body) if body else None))
            status, headers, text = script.answers.pop(0) if len(script.answers) > 1 else script.answers[0]
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(text))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = reply

        def log_message(self, format: str, *args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        script = Script(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield script
        server.shutdown()
        thread.join()


ERROR = {
    "error": "bad", "type": "about:blank", "title": "Bad Request", "status": 400, "detail": "does not fit",
    "instance": "abc", "errors": [{"path": "instances[0].age", "message": "expected a number"}],
}  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "body"),
    [
        ([[1, 2.5], [3, None]], {"instances": [[1, 2.5], [3, None]]}),
        ([{"a": 1, "b": math.nan}], {"instances": [{"a": 1, "b": None}]}),
        (({"a": np.float64(1.5), "b": np.int64(2)},), {"instances": [{"a": 1.5, "b": 2}]}),
        (np.array([[1.0, np.nan]]), {"instances": [[1.0, None]]}),
        ([np.array([1.0, 2.0])], {"instances": [[1.0, 2.0]]}),
        ([1, 2], {"instances": [1, 2]}),
        (
            pd.DataFrame({"a": [1, 2], "b": ["x", None], "c": [1.5, np.nan]}),
            {"inputs": {"a": [1, 2], "b": ["x", None], "c": [1.5, None]}},
        ),
        (pd.DataFrame({"a": pd.array([1, None], dtype="Int64")}), {"inputs": {"a": [1, None]}}),
    ],
)
def test_rows_become_json(script: Script, rows: Any, body: Any) -> None:
    """Sequences, mappings, arrays and DataFrames become V1 bodies, and every missing cell becomes null."""
    script.answer(200, {"predictions": [1], "outputs": [1]})
    assert script.client().predict("m", rows) == [1]
    assert script.requests == [("POST", "/v1/models/m:predict", body)]


@pytest.mark.parametrize("rows", ["text", {"a": 1}, 5, b"x"])
def test_rows_that_are_no_table_raise_a_type_error(script: Script, rows: Any) -> None:
    """A single row without a list, or another object, is a TypeError before anything is sent."""
    with pytest.raises(TypeError, match="rows: expected a list of rows"):
        script.client().predict("m", rows)
    assert script.requests == []


def test_outputs_and_versions_are_part_of_the_request(script: Script) -> None:
    """An output is sent as V1's signature_name; a version or an alias is part of the path."""
    script.answer(200, {"predictions": []})
    client = script.client()
    client.predict("m", [[1]], "predict_proba", version=3)
    client.predict("a b", [[1]], version="champion")
    assert script.requests[0] == (
        "POST", "/v1/models/m/versions/3:predict", {"instances": [[1]], "signature_name": "predict_proba"},
    )  # fmt: skip
    assert script.requests[1][1] == "/v1/models/a%20b/versions/champion:predict"


def test_several_outputs_are_a_dict_for_each_row(script: Script) -> None:
    """A sequence of names is sent in the query; each prediction is a dict, also when the rows are a DataFrame."""
    rows = [{"predict": "a", "predict_proba": [0.75, 0.25]}, {"predict": "b", "predict_proba": [0.5, 0.5]}]
    script.answer(200, {"predictions": rows})
    client, names = script.client(), ["predict", "predict_proba"]
    assert client.predict("m", [[1], [2]], names) == rows
    assert script.requests[0] == (
        "POST",
        "/v1/models/m:predict?output=predict,predict_proba",
        {"instances": [[1], [2]]},
    )
    script.answers.clear()
    script.answer(200, {"outputs": {name: [row[name] for row in rows] for name in names}})
    assert client.predict("m", pd.DataFrame({"x": [1, 2]}), names) == rows
    script.answers.clear()
    script.answer(200, {"predictions": ["a", "b"]})
    assert client.predict("m", [[1], [2]], ["predict"]) == [{"predict": "a"}, {"predict": "b"}]
    with pytest.raises(ValueError, match="at least one name"):
        client.predict("m", [[1]], [])


@pytest.mark.parametrize(("rows", "member"), [([[1]], "predictions"), (pd.DataFrame({"x": [1]}), "outputs")])
def test_probabilities_by_class(script: Script, rows: Any, member: str) -> None:
    """`probabilities` asks for the class names and returns a dict from class to number for each row."""
    script.answer(200, {member: [[0.75, 0.25]], "classes": {"predict_proba": [0, "b"]}})
    assert script.client().probabilities("m", rows, version=2) == [{0: 0.75, "b": 0.25}]
    assert script.requests[0][1] == "/v1/models/m/versions/2:predict?output=predict_proba&classes=true"


def test_an_error_carries_the_error_object(script: Script) -> None:
    """A 400 raises RequestFailed with status, detail, invalid places and request id, and is not sent again."""
    script.answer(400, ERROR, X_Request_ID="abc")
    with pytest.raises(RequestFailed) as caught:
        script.client().predict("m", [[1]])
    found = caught.value
    assert (found.status, found.detail, found.request_id, found.retry_after_s) == (400, "does not fit", "abc", None)
    assert [(each.path, each.message) for each in found.errors] == [("instances[0].age", "expected a number")]
    assert found.body == ERROR
    assert "abc" in str(found)
    assert len(script.requests) == 1


@pytest.mark.parametrize(
    ("status", "kind", "tries"),
    [(404, RequestFailed, 1), (500, ServerFailed, 1), (502, Unavailable, 1), (504, Unavailable, 1),
     (429, Unavailable, 4), (503, Unavailable, 4)],
)  # fmt: skip
def test_only_requests_that_were_not_begun_are_sent_again(
    script: Script, status: int, kind: type[Exception], tries: int
) -> None:
    """After 429 and 503 a request is sent up to four times; another error is not retried."""
    script.answer(status, b"<html>no JSON</html>")
    with pytest.raises(kind, match="no JSON"):
        script.client().predict("m", [[1]])
    assert len(script.requests) == tries
    assert script.slept_s == [0.1, 0.2, 0.4][: tries - 1]


def test_a_retry_waits_as_the_server_asks(script: Script) -> None:
    """The wait before a retry is the server's Retry-After, at most longest_wait_s."""
    script.answer(503, ERROR, Retry_After="2")
    script.answer(429, ERROR, Retry_After="3600")
    script.answer(503, ERROR, Retry_After="soon")
    script.answer(200, {"models": ["m"]})
    assert script.client(longest_wait_s=7).models() == ["m"]
    assert script.slept_s == [2.0, 7, 0.4]
    script.answers.insert(0, (503, {"Retry-After": "2"}, b"{}"))
    with pytest.raises(Unavailable) as caught:
        script.client(retries=0).models()
    assert caught.value.retry_after_s == 2.0


def test_a_refused_connection_is_tried_again() -> None:
    """A refused connection is retried and then raises Unreachable; `ready` returns False without a retry."""
    port = free_port()
    slept_s: list[float] = []
    client = Client(f"http://127.0.0.1:{port}", retries=2, sleep=slept_s.append)
    with pytest.raises(Unreachable, match="no answer"):
        client.models()
    assert slept_s == [0.1, 0.2]
    assert client.ready() is False
    assert len(slept_s) == 2


@pytest.mark.parametrize("what", ["cut", "late"])
def test_a_cut_or_late_answer_is_not_retried(what: str) -> None:
    """A request that was sent is not sent again, because the server may have begun it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        met: list[socket.socket] = []

        def accept() -> None:
            while len(met) < 2:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                met.append(connection)
                connection.recv(65536)
                if what == "cut":
                    connection.close()

        thread = threading.Thread(target=accept)
        thread.start()
        client = Client(f"http://127.0.0.1:{server.getsockname()[1]}", timeout_s=0.3, sleep=lambda seconds: None)
        with pytest.raises(Unreachable):
            client.predict("m", [[1]])
        assert len(met) == 1
        server.shutdown(socket.SHUT_RDWR)
        thread.join(5)
        for connection in met:
            connection.close()


def test_ready_sends_one_request(script: Script) -> None:
    """`ready` sends one request: 200 is True, 503 is False, and an unknown model raises RequestFailed."""
    script.answer(200, {"ready": True})
    script.answer(503, ERROR)
    script.answer(404, ERROR)
    client = script.client()
    assert client.ready() is True
    assert client.ready("m") is False
    with pytest.raises(RequestFailed):
        client.ready("nope")
    assert [path for _, path, _ in script.requests] == [
        "/v2/health/ready", "/v2/models/m/ready", "/v2/models/nope/ready",
    ]  # fmt: skip


def test_a_path_of_a_proxy_is_kept(script: Script) -> None:
    """The path of the URL is kept; a URL without http or a host raises ValueError."""
    script.answer(200, {"models": []})
    Client(f"{script.url}/ml/").models()
    assert script.requests[0][1] == "/ml/v2/models"
    for url in ("127.0.0.1:8080", "ftp://x", "http://"):
        with pytest.raises(ValueError, match="url: expected http"):
            Client(url)


def test_infinity_is_not_sent(script: Script) -> None:
    """Infinity, which JSON does not have, raises ValueError before anything is sent."""
    with pytest.raises(ValueError, match="not JSON compliant"):
        script.client().predict("m", [[math.inf]])
    assert script.requests == []


def test_null_answers_as_nan() -> None:
    """`nan_for_null` replaces None by NaN at any depth."""
    found = nan_for_null([1.0, None, [None, 2.0]])
    assert math.isnan(found[1])
    assert math.isnan(found[2][0])
    assert (found[0], found[2][1]) == (1.0, 2.0)


def test_the_package_needs_nothing_else() -> None:
    """The package imports only the standard library."""
    import ast
    import sys
    from pathlib import Path

    folder = Path(tableside_client.__file__).parent
    names = set()
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add((node.module or "").partition(".")[0])
    assert names <= sys.stdlib_module_names | {"tableside_client"}


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, RequestFailed), (413, RequestFailed), (499, RequestFailed), (429, Unavailable), (502, Unavailable),
     (503, Unavailable), (504, Unavailable), (500, ServerFailed), (501, ServerFailed), (302, ServerFailed)],
)  # fmt: skip
def test_each_status_has_its_exception(script: Script, status: int, kind: type[Exception]) -> None:
    """429, 502, 503 and 504 raise Unavailable, other 4xx statuses RequestFailed, and the rest ServerFailed."""
    script.answer(status, {"error": "e"})
    with pytest.raises(tableside_client.TablesideError) as caught:
        script.client(retries=0).models()
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({"detail": "d", "error": "e"}, "d"),
        ({"error": "e"}, "e"),
        ({}, "the answer has no explanation"),
        (b"[1]", "the answer is not a JSON object"),
        (b"\xff" * 300, "\ufffd" * 200),
    ],
)
def test_an_error_always_has_a_detail(script: Script, body: Any, detail: str) -> None:
    """The detail is the error object's, or the beginning of an answer that is not JSON."""
    script.answer(404, body)
    with pytest.raises(RequestFailed) as caught:
        script.client().models()
    assert caught.value.detail == detail
    assert str(caught.value) == f"404: {detail}"


@pytest.mark.parametrize("errors", ["text", None, {}, 5])
def test_errors_of_another_form_are_no_places(script: Script, errors: Any) -> None:
    """`errors` is empty if the server's field is not a list; an entry of another form is an empty place."""
    script.answer(400, {"error": "e", "errors": errors})
    script.answer(400, {"error": "e", "errors": ["text", {"path": "a"}]})
    client = script.client()
    with pytest.raises(RequestFailed) as caught:
        client.models()
    assert caught.value.errors == ()
    with pytest.raises(RequestFailed) as caught:
        client.models()
    assert caught.value.errors == (BadPlace("", ""), BadPlace("a", ""))


def test_headers_of_the_caller_are_sent_with_every_request() -> None:
    """The caller's headers are sent and replace the client's own, such as X-Request-ID."""
    received: list[str] = []

    def serve(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            received.append(connection.recv(65536).decode())
            connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n{"models": []}')

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, args=(server,))
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        assert Client(url, headers={"X-Request-ID": "mine", "Authorization": "Bearer k"}).models() == []
        thread.join(5)
    assert "X-Request-ID: mine\r\n" in received[0]
    assert "Authorization: Bearer k\r\n" in received[0]


def test_a_negative_retry_after_is_no_wait(script: Script) -> None:
    """A Retry-After below zero counts as zero, so `sleep` never gets a negative number."""
    script.answer(503, ERROR, Retry_After="-5")
    script.answer(200, {"models": []})
    assert script.client().models() == []
    assert script.slept_s == [0.0]
