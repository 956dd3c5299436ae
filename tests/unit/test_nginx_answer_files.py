"""The real nginx sends answer files: with the headers of the response that named them, and not without them."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler

import pytest

from tableside.access_keys import digest
from tableside.blueprints.admin import page_cookies
from tableside.deployment import layout
from tableside.process.answer_files import FOLDER
from tableside.web import large_answers, sessions
from tableside.web.large_answers import HEADER, LOCATION
from tests.conftest import KEY
from tests.nginx_fronts import PREDICT, Answer, Front, front, make_settings, run_folder, serving, sums_app

pytestmark = [pytest.mark.no_greenlets, pytest.mark.processes]
CONTENT = json.dumps({"predictions": ["setosa"] * 1000}).encode()


class Worker(BaseHTTPRequestHandler):
    """Names the file that a path ends with, as a worker does, and answers other paths with 404."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        name = self.path.rpartition("/")[2]
        is_named = self.path.startswith("/v1/")
        self.send_response(200 if is_named else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("X-Request-ID", self.headers["X-Request-ID"])
        self.send_header("X-Started", self.headers["X-Request-Start"].partition(";")[2])
        if is_named:
            self.send_header(HEADER, LOCATION + name)
            self.send_header("ETag", '"tag"')
            self.send_header("Warning", '299 - "unused"')
            self.send_header("X-Correlation-ID", "c-1")
            self.send_header("X-Amzn-SageMaker-Custom-Attributes", "trace=7")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_POST

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def data() -> Iterator[Front]:
    with run_folder() as run_dir:
        (run_dir / FOLDER).mkdir(parents=True)
        (run_dir / FOLDER / "file").write_bytes(CONTENT)
        with front(make_settings(run_dir), Worker) as (found,):
            yield found


def ask(data: Front, path: str, method: str = "POST", **headers: str) -> Answer:
    return data.ask(path, method, b"{}" if method == "POST" else None, **{"X_Request_ID": "one", **headers})


def test_a_file_is_sent_whole_with_the_headers_of_its_response(data: Front) -> None:
    """Whatever the client asks for: a range or a condition on a prediction must not change it."""
    wishes = {"Range": "bytes=0-9", "If_Modified_Since": "Fri, 01 Jan 2100 00:00:00 GMT", "If_None_Match": '"other"'}
    for headers in ({}, wishes):
        answer = ask(data, "/v1/file", **headers)
        said = answer.said
        assert (answer.status, answer.content) == (200, CONTENT)
        assert (said["content-type"], said["x-request-id"], said["etag"]) == ("application/json", "one", '"tag"')
        assert said["warning"] == '299 - "unused"'
        assert (said["x-correlation-id"], said["x-amzn-sagemaker-custom-attributes"]) == ("c-1", "trace=7")
        assert said["vary"] == "Accept-Encoding", "it is compressed for clients that accept that"
        assert {"last-modified", "accept-ranges", HEADER.lower()} & set(said) == set()
    zipped = ask(data, "/v1/file", Accept_Encoding="gzip")
    assert (zipped.said["content-encoding"], zipped.said["vary"]) == ("gzip", "Accept-Encoding")
    assert gzip.decompress(zipped.content) == CONTENT


def test_a_file_that_is_gone_is_an_error_to_repeat(data: Front) -> None:
    """An error object with Retry-After, and no page of nginx."""
    answer = ask(data, "/v1/gone")
    assert (answer.status, answer.said["retry-after"], answer.said["x-request-id"]) == (503, "1", "one")
    assert "try again later" in answer.json["error"]


def test_clients_cannot_ask_for_files(data: Front) -> None:
    """The path is passed on as any other, and the application does not know it. nginx says that it sends files."""
    for method in ("GET", "POST"):
        answer = ask(data, f"{LOCATION}file", method)
        assert (answer.status, answer.content, answer.said["x-started"]) == (404, b"", "files")


IDS = {"X_Correlation_ID": "c-1", "X_Amzn_SageMaker_Custom_Attributes": "trace=7"}
BROWSER = {"Accept": "text/html", **IDS}
INFER = {
    "inputs": [{"name": name, "shape": [1], "datatype": "FP64", "data": [1]} for name in "ab"],
    "parameters": {"binary_data_output": True},
}
PREDICTIONS = {PREDICT: {"instances": [{"a": 1, "b": 2}]}, "/v2/models/sums/infer": INFER}
OFTEN_DIFFERENT = {"date", "x-request-id", "content-length", "set-cookie", "connection", "server", "accept-ranges"}
"""Headers of each answer, or of each connection. Accept-Ranges is the documentation's own."""
DATA_ROADS = ("/v2/models/sums", "/v2", "/", "/docs", "/docs/static/init.js", "/openapi.json")
CONTROL_ROADS = (
    "/", "/?refresh=60", "/docs", "/docs/static/init.js", "/openapi.json", "/metrics", "/admin/static/status.css",
    "/admin/api/models", "/admin/api/workers", "/admin/api/settings", "/admin/api/audit",
    "/v2/models/sums",
)  # fmt: skip


def test_a_large_answer_has_the_headers_of_a_small_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each kind of view of both planes: policies of pages, Refresh, Vary, tags and the caller's ids."""
    with run_folder() as run_dir:
        settings, app = sums_app(run_dir, docs="true")
        (run_dir / "admin.key").write_text(KEY)
        token = sessions.begin(run_dir, "admin.key", digest(KEY), time.time())
        cookie = page_cookies.name(page_cookies.SESSION, settings)
        known = {"Authorization": f"Bearer {KEY}", "Cookie": f"{cookie}={token}", **BROWSER}
        with front(settings, serving(app), (layout.DATA, layout.ADMIN)) as (data, control):

            def said(limit: int) -> dict[str, dict[str, str]]:
                monkeypatch.setattr(large_answers, "MAX_BUFFERED_BYTES", limit)
                answers = {
                    path: data.ask(path, "POST", json.dumps(body).encode(), Content_Type="application/json", **IDS)
                    for path, body in PREDICTIONS.items()
                }
                answers |= {f"data {road}": data.ask(road, **known) for road in DATA_ROADS}
                answers |= {f"control {road}": control.ask(road, **known) for road in CONTROL_ROADS}
                assert {road: one.status for road, one in answers.items() if one.status != 200} == {}
                return {
                    road: {name: value for name, value in one.said.items() if name not in OFTEN_DIFFERENT}
                    for road, one in answers.items()
                }

            small, large = said(1 << 40), said(0)
        assert large == small
        assert small["control /?refresh=60"]["refresh"] == "60"
        assert "content-security-policy" in small["control /"]
        assert "inference-header-content-length" in small["/v2/models/sums/infer"]
        assert list((run_dir / FOLDER).iterdir()), "the answers were passed on in files"
