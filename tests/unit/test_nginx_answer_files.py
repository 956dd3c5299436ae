"""The real nginx sends answer files: with the headers of the response that named them, and not without them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler

import pytest

from tableside.process.answer_files import FOLDER
from tableside.web.large_answers import HEADER, LOCATION
from tests.nginx_fronts import Answer, Front, front, make_settings, run_folder

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
