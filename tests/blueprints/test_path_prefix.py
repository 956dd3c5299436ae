"""A path prefix in front of the application, without nginx: which proxies may name one, and where it goes."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from flask import Flask

from tableside.blueprints.docs import views
from tableside.setting_front import OWN_SEGMENTS
from tableside.settings import Server
from tableside.web import path_prefix
from tests.conftest import MakeApp, error_of

ROWS = {"instances": [[5.1, 3.5, 1.4, 0.2]]}


def test_no_prefix_may_be_a_path_of_this_server(app: Flask) -> None:
    """Every first segment of a route is refused as a prefix, so that a path has one meaning."""
    assert {rule.rule.split("/")[1] for rule in app.url_map.iter_rules()} - {""} <= OWN_SEGMENTS


@pytest.fixture
def prefixed(make_app: MakeApp) -> Flask:
    return make_app(server__path_prefix="/ml", server__trusted_proxies="10.0.0.0/8")


def test_paths_below_the_prefix_are_those_without_it(prefixed: Flask) -> None:
    """By both ways of dispatch, from the first request on; the prefix alone is the root."""
    client = prefixed.test_client()
    for prefix in ("/ml", ""):
        assert client.post(f"{prefix}/v1/models/iris:predict", json=ROWS).get_json() == {"predictions": ["setosa"]}
        assert client.get(f"{prefix}/v2/models/iris/ready").status_code == 200
        assert client.get(f"{prefix}/docs").status_code == 200
    assert client.get("/ml").get_json() == {"status": "alive"}
    for path in ("/ml/ml/v2", "/mlv2", "/m/v2"):
        assert client.get(path).status_code == 404
    assert "/v2" in error_of(client.get("/ml/v2/nope"))["error"]


@pytest.mark.parametrize(
    ("peer", "family", "base"),
    [
        ("10.1.2.3", socket.AF_INET, "/stated"),
        ("::ffff:10.1.2.3", socket.AF_INET6, "/stated"),
        ("192.0.2.1", socket.AF_INET, "/ml"),
        ("2001:db8::1", socket.AF_INET6, "/ml"),
        ("", socket.AF_INET, "/ml"),
        ("", socket.AF_UNIX, "/stated"),
    ],
)
def test_only_a_trusted_proxy_names_another_prefix(prefixed: Flask, peer: str, family: int, base: str) -> None:
    """By the address of its connection; nginx, over a Unix socket, has looked at that before."""

    class Connection:
        def __init__(self) -> None:
            self.family = family

        def getsockname(self) -> Any:
            return "/run/web.sock" if family == socket.AF_UNIX else ("127.0.0.1", 8080)

    request: dict[str, dict[str, Any]] = {
        "headers": {"X-Forwarded-Prefix": "/stated", "X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https"},
        "environ_overrides": {"REMOTE_ADDR": peer, "gunicorn.socket": Connection()},
    }
    client = prefixed.test_client()
    assert client.get("/openapi.json", **request).get_json()["servers"] == [{"url": base}]
    for path, place in (("//v2//models", "/v2/models"), ("/ml//v2//models", "/v2/models")):
        request["environ_overrides"]["PATH_INFO"] = path
        moved = client.get("/", query_string="a=b", **request)
        assert (moved.status_code, moved.headers["Location"], moved.data) == (308, f"{base}{place}?a=b", b"")


def test_without_prefix_and_proxies_nothing_is_read_from_headers(app: Flask) -> None:
    """The document's address is the root, and a redirect has a path only."""
    client, headers = app.test_client(), {"X-Forwarded-Prefix": "/stated", "Host": "localhost:1"}
    assert client.get("/openapi.json", headers=headers).get_json()["servers"] == [{"url": "/"}]
    moved = client.get("/", headers=headers, environ_overrides={"PATH_INFO": "//v2//models"})
    assert moved.headers["Location"] == "/v2/models"
    assert client.get("/docs/", headers=headers).headers["Location"] == "../docs"


@pytest.mark.parametrize("url", ["http://h//evil.example/x", "http://h/ml//evil.example/x"])
def test_a_redirect_never_leaves_this_server(url: str) -> None:
    """A Location that begins with two slashes would name another host."""
    assert path_prefix.location(url, {"SCRIPT_NAME": "/ml"}, Server()) == "/evil.example/x"


def test_prefixes_do_not_fill_the_memory(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """Documents are kept for so many prefixes, and made again after that."""
    monkeypatch.setattr(views, "MAX_CACHED_DOCUMENTS", 3)
    client = make_app(server__trusted_proxies="10.0.0.0/8").test_client()
    for number in range(8):
        headers = {"X-Forwarded-Prefix": f"/p{number}"}
        document = client.get("/openapi.json", headers=headers, environ_overrides={"REMOTE_ADDR": "10.0.0.1"})
        assert document.get_json()["servers"] == [{"url": f"/p{number}"}]
        assert len(views._cache.documents) <= 3


@pytest.mark.parametrize("path", ["/v2", "/nowhere", "/v1/models/iris:predict"])
def test_a_url_that_is_too_long_is_414(make_app: MakeApp, path: str) -> None:
    """Path and query count together, before anything else is looked at; the error names limit and setting."""
    client = make_app(server__max_url_bytes="256").test_client()
    client.get("/ping")
    method = "POST" if path.endswith("predict") else "GET"
    assert client.open(f"{path}?{'a' * (255 - len(path))}", method=method, json=ROWS).status_code in (200, 400, 404)
    answer = client.open(f"{path}?{'a' * (256 - len(path))}", method=method, json=ROWS)
    assert answer.status_code == 414
    assert error_of(answer)["error"] == "the URL is longer than server.max_url_bytes (256 bytes)"
