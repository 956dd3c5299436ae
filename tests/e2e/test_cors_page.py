"""A page of another origin in a real browser: what it may read is what `server.cors_origins` says."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.e2e.browser import Window
from tests.nginx_fronts import PREDICT, Front, front, run_folder, serving, sums_app

pytestmark = pytest.mark.e2e
ASK = """async ([url, body]) => {
    const headers = {"Content-Type": "application/json", "Authorization": "Bearer x", "X-Request-ID": "page-1"};
    try {
        const answer = await fetch(url, {method: "POST", headers, body});
        return [answer.status, (await answer.json()).predictions, answer.headers.get("X-Request-ID")];
    } catch (problem) {
        return problem.name;
    }
}"""


class Page(BaseHTTPRequestHandler):
    """The site of the page."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>A page</title>")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def site() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def test_an_allowed_page_reads_answers_and_errors(site: int, window: Window) -> None:
    """With a key and an id of its own; the same page under another name reads nothing, and nobody the control plane."""
    with run_folder() as run_dir:
        origin = f"http://127.0.0.1:{site}"
        settings, app = sums_app(run_dir, cors_origins=origin, max_body_bytes="1000")
        with front(settings, serving(app), ("data", "admin")) as (data, control):

            def ask(plane: Front, body: str) -> Any:
                return window.page.evaluate(ASK, [f"http://127.0.0.1:{plane.port}{PREDICT}", body])

            window.page.goto(origin)
            assert ask(data, '{"instances": [[1, 2]]}') == [200, [3.0], "page-1"]
            assert ask(data, '{"instances": [["x", 2]]}')[:1] == [400]
            assert ask(data, " " * 2000)[:1] == [413], "an error of nginx"
            assert ask(control, '{"instances": [[1, 2]]}') == "TypeError"
            window.page.goto(f"http://localhost:{site}")
            assert ask(data, '{"instances": [[1, 2]]}') == "TypeError"
