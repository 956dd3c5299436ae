"""The client: what it sends, what it raises, when it tries again. The server here says what the test wrote down."""

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
from tableside_client import Client, RequestFailed, ServerFailed, Unavailable, Unreachable, nan_for_null


@dataclass
class Script:
    """Answers in the order given, the last one for ever; remembers what was asked and how long the client slept."""

    url: str
    answers: list[tuple[int, dict[str, str], bytes]] = field(default_factory=list)
    asked: list[tuple[str, str, Any]] = field(default_factory=list)
    slept_s: list[float] = field(default_factory=list)

    def says(self, status: int, content: Any, **headers: str) -> None:
        text = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.answers.append((status, {name.replace("_", "-"): value for name, value in headers.items()}, text))

    def client(self, **more: Any) -> Client:
        return Client(self.url, timeout_s=5, sleep=self.slept_s.append, **more)


@pytest.fixture
def script() -> Iterator[Script]:
    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            one.asked.append((self.command, self.path, json.loads(body) if body else None))
            status, headers, text = one.answers.pop(0) if len(one.answers) > 1 else one.answers[0]
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(text))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = answer

        def log_message(self, format: str, *args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        one = Script(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield one
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
def test_rows_are_sent_as_json_has_them(script: Script, rows: Any, body: Any) -> None:
    """Sequences, mappings, arrays and DataFrames become V1 bodies; every mark of a missing cell becomes null."""
    script.says(200, {"predictions": [1], "outputs": [1]})
    assert script.client().predict("m", rows) == [1]
    assert script.asked == [("POST", "/v1/models/m:predict", body)]


@pytest.mark.parametrize("rows", ["text", {"a": 1}, 5, b"x"])
def test_what_is_no_table_is_refused_here(script: Script, rows: Any) -> None:
    """One row without its list, or something else, is a TypeError before anything is sent."""
    with pytest.raises(TypeError, match="rows: expected a list of rows"):
        script.client().predict("m", rows)
    assert script.asked == []


def test_outputs_and_versions_are_asked_for(script: Script) -> None:
    """An output is V1's signature_name; a version or alias is part of the path."""
    script.says(200, {"predictions": []})
    client = script.client()
    client.predict("m", [[1]], "predict_proba", version=3)
    client.predict("a b", [[1]], version="champion")
    assert script.asked[0] == (
        "POST", "/v1/models/m/versions/3:predict", {"instances": [[1]], "signature_name": "predict_proba"},
    )  # fmt: skip
    assert script.asked[1][1] == "/v1/models/a%20b/versions/champion:predict"


def test_an_error_carries_the_error_object(script: Script) -> None:
    """A 400 is a RequestFailed with status, detail, bad places and request id; it is not sent again."""
    script.says(400, ERROR, X_Request_ID="abc")
    with pytest.raises(RequestFailed) as caught:
        script.client().predict("m", [[1]])
    found = caught.value
    assert (found.status, found.detail, found.request_id, found.retry_after_s) == (400, "does not fit", "abc", None)
    assert [(each.path, each.message) for each in found.errors] == [("instances[0].age", "expected a number")]
    assert found.body == ERROR
    assert "abc" in str(found)
    assert len(script.asked) == 1


@pytest.mark.parametrize(
    ("status", "kind", "tries"),
    [(404, RequestFailed, 1), (500, ServerFailed, 1), (502, Unavailable, 1), (504, Unavailable, 1),
     (429, Unavailable, 4), (503, Unavailable, 4)],
)  # fmt: skip
def test_only_refusals_are_sent_again(script: Script, status: int, kind: type[Exception], tries: int) -> None:
    """429 and 503 are tried four times in all; what may have been worked on is sent once."""
    script.says(status, b"<html>no JSON</html>")
    with pytest.raises(kind, match="no JSON"):
        script.client().predict("m", [[1]])
    assert len(script.asked) == tries
    assert script.slept_s == [0.1, 0.2, 0.4][: tries - 1]


def test_a_later_try_is_answered(script: Script) -> None:
    """The wait is the server's Retry-After, within the client's bound."""
    script.says(503, ERROR, Retry_After="2")
    script.says(429, ERROR, Retry_After="3600")
    script.says(503, ERROR, Retry_After="soon")
    script.says(200, {"models": ["m"]})
    assert script.client(longest_wait_s=7).models() == ["m"]
    assert script.slept_s == [2.0, 7, 0.4]
    script.answers.insert(0, (503, {"Retry-After": "2"}, b"{}"))
    with pytest.raises(Unavailable) as caught:
        script.client(retries=0).models()
    assert caught.value.retry_after_s == 2.0


def test_a_refused_connection_is_tried_again() -> None:
    """Nobody listens: as many tries as allowed, then Unreachable. `ready` is False at once."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    slept_s: list[float] = []
    client = Client(f"http://127.0.0.1:{port}", retries=2, sleep=slept_s.append)
    with pytest.raises(Unreachable, match="no answer"):
        client.models()
    assert slept_s == [0.1, 0.2]
    assert client.ready() is False
    assert len(slept_s) == 2


@pytest.mark.parametrize("what", ["cut", "late"])
def test_a_cut_or_late_answer_is_not_asked_for_again(what: str) -> None:
    """Once the request is sent the server may have worked on it: no second try."""
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


def test_ready_asks_once(script: Script) -> None:
    """`ready` is one question: True, or False for 503; an unknown model is an error."""
    script.says(200, {"ready": True})
    script.says(503, ERROR)
    script.says(404, ERROR)
    client = script.client()
    assert client.ready() is True
    assert client.ready("m") is False
    with pytest.raises(RequestFailed):
        client.ready("nope")
    assert [path for _, path, _ in script.asked] == [
        "/v2/health/ready", "/v2/models/m/ready", "/v2/models/nope/ready",
    ]  # fmt: skip


def test_a_path_of_a_proxy_is_kept(script: Script) -> None:
    """The address may have a path; what is no address is refused at once."""
    script.says(200, {"models": []})
    Client(f"{script.url}/ml/").models()
    assert script.asked[0][1] == "/ml/v2/models"
    for url in ("127.0.0.1:8080", "ftp://x", "http://"):
        with pytest.raises(ValueError, match="expected http"):
            Client(url)


def test_infinity_is_not_sent(script: Script) -> None:
    """JSON has no infinity: the caller hears of it before anything is sent."""
    with pytest.raises(ValueError, match="not JSON compliant"):
        script.client().predict("m", [[math.inf]])
    assert script.asked == []


def test_null_answers_as_nan() -> None:
    """A number that was not finite comes back as nan, at any depth."""
    found = nan_for_null([1.0, None, [None, 2.0]])
    assert math.isnan(found[1])
    assert math.isnan(found[2][0])
    assert (found[0], found[2][1]) == (1.0, 2.0)


def test_the_package_needs_nothing_else() -> None:
    """The package imports the standard library only."""
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
