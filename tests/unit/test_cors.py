"""Pages of other origins: which may call the data plane, what their browsers are told, and that no others are."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tableside import settings as app_settings
from tableside.deployment import exposure, layout
from tableside.errors import StackError
from tests.nginx_fronts import PREDICT, Answer, Front, front, run_folder, serving, sums_app
from tests.waiting import wait_until

pytestmark = [pytest.mark.no_greenlets, pytest.mark.processes]
PAGE, OTHER = "https://app.example.com", "https://evil.example"
LONG = f"https://{'a' * 60}.{'b' * 60}.example:8443"
ASKED = {"Access_Control_Request_Method": "POST", "Access_Control_Request_Headers": "authorization,content-type"}


@pytest.fixture(scope="module")
def fronts() -> Iterator[list[Front]]:
    """Both planes, with keys, for pages of PAGE. A request to /dies ends its connection."""
    with run_folder() as run_dir:
        keys = {"require_keys": "true", "keys_file": str(run_dir / "keys.json")}
        settings, app = sums_app(run_dir, cors_origins=f"{PAGE},{LONG}", max_connections_per_client="3", **keys)

        def application(environ: Any, start_response: Any) -> Any:
            if environ["PATH_INFO"] == "/dies":
                environ["gunicorn.socket"].shutdown(socket.SHUT_RDWR)
            return app(environ, start_response)

        with front(settings, serving(application), (layout.DATA, layout.ADMIN)) as found:
            yield found


def cors_headers(answer: Answer) -> set[str]:
    return {name for name in answer.said if name.startswith("access-control-")}


@pytest.mark.parametrize("origin", [PAGE, LONG])
@pytest.mark.parametrize("path", [PREDICT, "/v2", "/ping", "/nowhere"])
def test_a_browser_s_question_is_answered_without_a_key(fronts: list[Front], path: str, origin: str) -> None:
    """An allowed page may send the methods of the data plane and the headers that it has asked for."""
    answer = fronts[0].ask(path, "OPTIONS", Origin=origin, **ASKED)
    assert (answer.status, answer.content) == (204, b"")
    assert answer.said["access-control-allow-origin"] == origin
    assert answer.said["access-control-allow-methods"] == "GET, HEAD, POST, OPTIONS"
    assert answer.said["access-control-allow-headers"] == "authorization,content-type"
    assert answer.said["access-control-max-age"] == "600"
    assert "Origin" in answer.said["vary"]
    assert "access-control-allow-credentials" not in answer.said, "keys are sent by the page itself, never by cookies"


@pytest.mark.parametrize(
    "headers",
    [{"Origin": OTHER, **ASKED}, {"Origin": "null", **ASKED}, {"Origin": f"{PAGE}.evil.example", **ASKED},
     {"Origin": f"x{PAGE}", **ASKED}, {"Origin": PAGE.upper().replace("HTTPS", "ftp"), **ASKED}, ASKED, {}],
)  # fmt: skip
def test_no_other_origin_is_told_anything(fronts: list[Front], headers: dict[str, str]) -> None:
    """A question of another page is answered as any OPTIONS request, and no answer names an origin."""
    asked = fronts[0].ask(PREDICT, "OPTIONS", **headers)
    assert asked.status == 401, "the route needs a key"
    for answer in (asked, fronts[0].ask("/ping", **headers), fronts[0].ask("/nowhere", **headers)):
        assert cors_headers(answer) == set()
        assert "Origin" in answer.said["vary"], "a cache must not give this answer to an allowed page"


def test_a_page_reads_every_answer_and_every_error(fronts: list[Front]) -> None:
    """Those of the application, of nginx before it has asked a worker, and of nginx without a worker's answer.

    Not those of the request line, because nginx has not read the headers then.
    """
    data = fronts[0]

    def ask(path: str, method: str = "GET", body: bytes | None = None, **more: str) -> Answer:
        return data.ask(path, method, body, Origin=PAGE, **more)

    found = [
        ask("/ping"),
        ask(PREDICT, "POST", b"{}"),
        ask("/nowhere"),
        ask("/docs", "POST", b""),
        ask("/v2", "POST", b"", Content_Length="x"),
        ask(PREDICT, "POST", b"", Content_Length="99999999999"),
        ask("/v2?" + "a" * 8100),
        ask("/v2", X_Long="a" * 9000),
        ask("/v2", "POST", b"", Transfer_Encoding="zip"),
        ask("/dies", "POST", b"{}"),
    ]
    with ExitStack() as open_requests:
        for _ in range(3):
            client = open_requests.enter_context(data.connect())
            client.sendall(f"POST {PREDICT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n".encode())
        assert wait_until(lambda: ask("/v2").status == 429)
        found.append(ask("/v2"))
    assert [answer.status for answer in found] == [200, 401, 404, 405, 400, 413, 414, 431, 501, 502, 429]
    for answer in found:
        assert answer.said["access-control-allow-origin"] == PAGE, answer
        assert answer.said["access-control-expose-headers"] == "*"
        assert "Origin" in answer.said["vary"]
        assert cors_headers(answer) == {"access-control-allow-origin", "access-control-expose-headers"}


def test_the_control_plane_says_nothing_to_pages(fronts: list[Front]) -> None:
    """Neither to their questions nor in answers and errors, on the same routes either."""
    control = fronts[1]
    for path, method in (("/ping", "GET"), (PREDICT, "POST"), ("/admin/api/reload", "POST"), ("/%00", "GET")):
        for answer in (
            control.ask(path, method, b"" if method == "POST" else None, Origin=PAGE),
            control.ask(path, "OPTIONS", Origin=PAGE, **ASKED),
        ):
            assert cors_headers(answer) == set(), (path, method)
            assert "Origin" not in answer.said.get("vary", "")
            assert answer.status != 204


def test_all_origins_only_if_the_setting_says_so() -> None:
    """`*` is answered to everyone, also without Origin, so that a cache may give one answer to all."""
    with run_folder() as run_dir:
        settings, app = sums_app(run_dir, cors_origins="*")
        with front(settings, serving(app)) as (data,):
            for headers in ({"Origin": OTHER}, {"Origin": "null"}, {}):
                answer = data.ask("/v2", **headers)
                assert (answer.said["access-control-allow-origin"], answer.said["vary"]) == ("*", "Accept-Encoding")
            assert data.ask(PREDICT, "OPTIONS", Origin=OTHER, **ASKED).status == 204
            assert data.ask(PREDICT, "OPTIONS", **ASKED).status == 200, "no question of a page"


def test_off_by_default() -> None:
    """Without the setting nobody is told anything."""
    with run_folder() as run_dir:
        settings, app = sums_app(run_dir)
        with front(settings, serving(app)) as (data,):
            for answer in (data.ask("/v2", Origin=PAGE), data.ask(PREDICT, "OPTIONS", Origin=PAGE, **ASKED)):
                assert cors_headers(answer) == set()
                assert "Origin" not in answer.said.get("vary", "")


def test_nginx_is_needed() -> None:
    """Only nginx sees every answer, so that a start without it is refused in one line."""
    settings = app_settings.load({"TABLESIDE__SERVER__CORS_ORIGINS": PAGE})
    exposure.check(settings, behind_nginx=True)
    with pytest.raises(StackError, match=r"server.cors_origins needs nginx.*remove server.cors_origins"):
        exposure.check(settings, behind_nginx=False)
