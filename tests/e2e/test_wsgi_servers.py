"""`wsgi:application` answers the same under any WSGI server, each as its own documentation starts it."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient

from benchmarks.free_ports import free_port
from tests.e2e.conftest import PROJECT, until

pytestmark = pytest.mark.e2e
WSGIREF = """
from wsgiref.simple_server import make_server
from wsgi import application
make_server("127.0.0.1", {port}, application).serve_forever()
"""
TORNADO = """
import asyncio
from tornado.httpserver import HTTPServer
from tornado.wsgi import WSGIContainer
from wsgi import application
async def serve():
    HTTPServer(WSGIContainer(application)).listen({port}, "127.0.0.1")
    await asyncio.Event().wait()
asyncio.run(serve())
"""
GUNICORN = ("-m", "gunicorn", "-b", "127.0.0.1:{port}", "wsgi:application", "-k")
SERVERS: dict[str, tuple[str, ...]] = {
    "wsgiref": ("-c", WSGIREF),
    "waitress": ("-m", "waitress", "--listen=127.0.0.1:{port}", "wsgi:application"),
    "tornado": ("-c", TORNADO),
    "gunicorn sync, before the fork": (*GUNICORN, "sync", "-w", "2", "--preload"),
    "gunicorn gthread": (*GUNICORN, "gthread", "--threads", "4"),
    "gunicorn gevent": (*GUNICORN, "gevent"),
    "gunicorn gevent_pywsgi": (*GUNICORN, "gevent_pywsgi"),
    "uWSGI": (
        "-c", "import pyuwsgi; pyuwsgi.run(['--http-socket', '127.0.0.1:{port}', '--module', 'wsgi:application', "
        "'--enable-threads', '--master', '--processes', '2', '--die-on-term', '--pyhome', '{home}'])",
    ),
}  # fmt: skip
JSON, CSV, NPY = ({"Content-Type": kind} for kind in ("application/json", "text/csv", "application/x-npy"))
ROW = [5.9, 3.0, 5.1, 1.8]
TENSOR = {"name": "input", "datatype": "FP64", "shape": [1, 10]}


def npy(cells: Any) -> bytes:
    """The array as `numpy.save` writes it."""
    file = io.BytesIO()
    np.save(file, np.asarray(cells))
    return file.getvalue()


def binary() -> tuple[bytes, dict[str, str]]:
    """A V2 request with a raw tensor."""
    data = np.full((1, 10), 0.02).tobytes()
    head = json.dumps({"inputs": [{**TENSOR, "parameters": {"binary_data_size": len(data)}}]}).encode()
    return head + data, {"Inference-Header-Content-Length": str(len(head))}


IRIS, DIABETES = "/v1/models/iris:predict", "/v2/models/diabetes/infer"
REQUESTS: dict[str, tuple[str, bytes | None, dict[str, str]]] = {
    "rows": (IRIS, json.dumps({"instances": [ROW, ROW]}).encode(), JSON),
    "two outputs": (f"{IRIS}?output=predict,predict_proba", json.dumps({"instances": [ROW]}).encode(), JSON),
    "gzip": (IRIS, gzip.compress(json.dumps({"instances": [ROW] * 50}).encode()), {**JSON, "Content-Encoding": "gzip"}),
    "a tensor": (DIABETES, json.dumps({"inputs": [{**TENSOR, "data": [0.01] * 10}]}).encode(), JSON),
    "a raw tensor": (DIABETES, *binary()),
    "CSV in and out": ("/models/iris/invocations", b"5.9,3,5.1,1.8\n5.1,3.5,1.4,0.2\n", {**CSV, "Accept": "text/csv"}),
    "npy in and out": ("/models/diabetes/invocations", npy([[0.02] * 10] * 3), {**NPY, "Accept": "application/x-npy"}),
    "a large answer": ("/models/diabetes/invocations", npy([[0.02] * 10] * 30_000), NPY),
    "a bad cell": (IRIS, json.dumps({"instances": [[1, "x", 3, 4]]}).encode(), JSON),
    "no model": ("/v1/models/nobody:predict", b"{}", JSON),
    "a path in UTF-8": ("/v2/models/caf%C3%A9", None, {}),
    "no body": (IRIS, b"", JSON),
    "metadata": ("/v2/models/iris", None, {}),
    "alive": ("/v2/health/live", None, {}),
    "ready": ("/v2/health/ready", None, {}),
    "closed routes": ("/admin/api/models", None, {}),
    "a wrong method": ("/v2/models/iris/infer", None, {}),
    "a browser at the root": ("/", None, {"Accept": "text/html"}),
}  # fmt: skip
HEADERS = ("Content-Type", "Allow", "Inference-Header-Content-Length")


@pytest.fixture(scope="module")
def server_settings(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The settings of all servers, as environment variables. They share what a host keeps of its checks."""
    return {
        "TABLESIDE__REPOSITORY__PATH": str(repository),
        "TABLESIDE__SERVER__RUN_DIR": str(tmp_path_factory.mktemp("run")),
    }


@pytest.fixture(params=SERVERS)
def url(request: pytest.FixtureRequest, server_settings: dict[str, str], tmp_path: Path) -> Iterator[str]:
    """The address of a server that runs, and is ready."""
    port = free_port()
    words = [word.replace("{port}", str(port)).replace("{home}", sys.prefix) for word in SERVERS[request.param]]
    searched = os.pathsep.join((str(PROJECT), str(PROJECT / "src")))
    environ = {**os.environ, **server_settings, "PYTHONPATH": searched, "PYTHONWARNINGS": "default"}
    address = f"http://127.0.0.1:{port}"
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen([sys.executable, *words], cwd=tmp_path, env=environ, stdout=log, stderr=log)
        try:
            ready = until(lambda: server.poll() is not None or _is_ready(address), 120)
            assert ready, (tmp_path / "log").read_text()
            assert server.poll() is None, (tmp_path / "log").read_text()
            yield address
        finally:
            server.terminate()
            server.wait(60)


def _is_ready(address: str) -> bool:
    """Several times, because each process of a server loads for itself."""
    try:
        return all(ask(address, "/v2/health/ready", None, {})[0] == 200 for _ in range(20))
    except OSError:
        return False


def ask(address: str, path: str, body: bytes | None, headers: dict[str, str]) -> tuple[int, Any, dict[str, str | None]]:
    """Send one request. Return the status, the body without the request's id, and the headers that are compared."""
    try:
        with urllib.request.urlopen(urllib.request.Request(address + path, body, headers), timeout=60) as answer:
            return answer.status, content(answer.read()), {name: answer.headers[name] for name in HEADERS}
    except urllib.error.HTTPError as error:
        return error.code, content(error.read()), {name: error.headers[name] for name in HEADERS}


def content(body: bytes) -> Any:
    """JSON without `instance`, or the bytes."""
    try:
        found = json.loads(body)
    except ValueError:
        return body
    return {name: found[name] for name in found if name != "instance"} if isinstance(found, dict) else found


def by_itself(client: FlaskClient, path: str, body: bytes | None, headers: dict[str, str]) -> Any:
    """What the application answers without a server, as `ask`."""
    got = client.open(path, method="GET" if body is None else "POST", data=body, headers=headers)
    return got.status_code, content(got.data), {name: got.headers.get(name) for name in HEADERS}


def test_every_request_has_the_same_answer(url: str, client: FlaskClient) -> None:
    """Bodies of each spelling, refusals, probes and closed routes: status, body and headers."""
    found = {name: (ask(url, *request), by_itself(client, *request)) for name, request in REQUESTS.items()}
    assert {name: pair for name, pair in found.items() if pair[0] != pair[1]} == {}
