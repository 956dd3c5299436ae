"""Answers that do not fit into nginx's buffers leave through files, if nginx is there and says that it sends them."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from tableside.process.answer_files import FOLDER
from tableside.web.extensions import EXTENSION_KEY
from tableside.web.large_answers import HEADER, LOCATION, MAX_BUFFERED_BYTES
from tests.conftest import MakeApp

PREDICT = "/v1/models/iris:predict"
MANY = {"instances": [[5.1, 3.5, 1.4, 0.2]] * 30_000}


class Listener:
    """What gunicorn puts into the environ: the listener's socket."""

    def __init__(self, family: int) -> None:
        self.family = family

    def getsockname(self) -> str | tuple[str, int]:
        return "/run/web.sock" if self.family == socket.AF_UNIX else ("127.0.0.1", 8080)


@pytest.fixture(scope="module")
def app(app: Flask) -> Flask:
    app.test_client().get("/ping")
    return app


def through_nginx(start: str = "files", family: int = socket.AF_UNIX) -> dict[str, Any]:
    headers = {"X-Request-Start": f"t={time.time():.3f};{start}".rstrip(";"), "X-Request-ID": "large"}
    return {"headers": headers, "environ_overrides": {"gunicorn.socket": Listener(family)}}


def body_in_file(app: Flask, answer: Any) -> bytes:
    name = answer.headers[HEADER].removeprefix(LOCATION)
    return Path(app.extensions[EXTENSION_KEY].settings.run_dir, FOLDER, name).read_bytes()


def test_a_large_answer_is_in_a_file(app: Flask) -> None:
    """The response names it, and has its own headers; the file has what the answer would have had."""
    client = app.test_client()
    direct = client.post(PREDICT, json=MANY)
    assert len(direct.data) > MAX_BUFFERED_BYTES
    answer = client.post(PREDICT, json=MANY, **through_nginx())
    assert (answer.status_code, answer.data, answer.headers["Content-Length"]) == (200, b"", "0")
    assert (answer.headers["Content-Type"], answer.headers["X-Request-ID"]) == ("application/json", "large")
    assert body_in_file(app, answer) == direct.data


def test_views_that_flask_dispatches_too(app: Flask) -> None:
    """The documentation's script, a file, is passed on whole, whatever range of it is asked for. HEAD has no body."""
    path = "/docs/static/swagger-ui-5.35.0/swagger-ui-bundle.js"
    client = app.test_client()
    with client.get(path) as plain:
        tag, content = plain.headers["ETag"], plain.data
    nginx = through_nginx()
    nginx["headers"]["Range"] = "bytes=0-299999"
    answer = client.get(path, **nginx)
    assert (answer.status_code, answer.data, answer.headers["ETag"]) == (200, b"", tag)
    assert body_in_file(app, answer) == content
    with client.head(path, **through_nginx()) as head:
        assert HEADER not in head.headers


@pytest.mark.parametrize(
    ("start", "family"), [("", socket.AF_UNIX), ("files", socket.AF_INET), ("filesystem", socket.AF_UNIX)]
)
def test_nobody_else_gets_the_name_of_a_file(app: Flask, start: str, family: int) -> None:
    """An nginx with an older configuration, a client of gunicorn that sends the header, and one that sends another."""
    answer = app.test_client().post(PREDICT, json=MANY, **through_nginx(start, family))
    assert HEADER not in answer.headers
    assert len(answer.data) > MAX_BUFFERED_BYTES


def test_small_answers_and_errors_are_sent_as_they_are(app: Flask) -> None:
    """Only a 200 can be cut off."""
    client = app.test_client()
    assert client.post(PREDICT, json={"instances": [[1, 2, 3, 4]]}, **through_nginx()).data
    refused = client.post(PREDICT, json={"instances": [["x"]] * 30_000}, **through_nginx())
    assert (refused.status_code, HEADER in refused.headers) == (400, False)


def test_without_room_the_answer_is_507(make_app: MakeApp, tmp_path: Path) -> None:
    """Both dispatches say so in the error object, with Retry-After, before anything was sent."""
    (tmp_path / "run" / "tmp").mkdir(parents=True)
    (tmp_path / "run" / "tmp" / "answers").write_bytes(b"a file in place of the folder")
    app = make_app(server__run_dir=str(tmp_path / "run"))
    client = app.test_client()
    client.get("/ping")
    static = "/docs/static/swagger-ui-5.35.0/swagger-ui-bundle.js"
    for answer in (client.post(PREDICT, json=MANY, **through_nginx()), client.get(static, **through_nginx())):
        assert (answer.status_code, answer.json["status"], answer.headers["Retry-After"]) == (507, 507, "10")
        assert answer.json["error"].startswith("the disk of the run folder (server.run_dir) is full or cannot be writ")
        assert answer.headers["X-Request-ID"] == "large"
        assert str(tmp_path) not in answer.text
