"""Limits of a request's line and headers: what gunicorn is given, and what its errors say."""

from __future__ import annotations

import pytest
from gunicorn.config import Config

from tableside.server import head_limits
from tableside.settings import Server


def given(server: Server, behind_nginx: bool) -> Config:
    """gunicorn's settings, which refuse what it cannot do."""
    limits = Config()
    for name, value in head_limits.of_gunicorn(server, behind_nginx).items():
        limits.set(name, value)
    return limits


@pytest.mark.parametrize("behind_nginx", [False, True])
@pytest.mark.parametrize("most", [16, 100, 1000])
def test_the_number_of_headers_that_is_told_is_that_of_the_setting(most: int, behind_nginx: bool) -> None:
    """nginx adds headers of its own: they are allowed for, and not told to the client."""
    limits = given(Server(max_headers=most), behind_nginx)
    assert limits.limit_request_fields == most + (head_limits.NGINX_HEADERS if behind_nginx else 0)
    told = head_limits.hints(limits, behind_nginx)[431]
    assert f"more than {most} headers, see server.max_headers" in told
    assert "8192 bytes, see server.max_header_bytes" in told


@pytest.mark.parametrize(
    ("most", "behind_nginx", "line"),
    [(256, False, 288), (8000, False, 8032), (8000, True, 8032), (8158, True, 8190), (8159, True, 0), (65536, True, 0),
     (65536, False, 8190)],
)  # fmt: skip
def test_a_line_has_room_for_the_longest_url(most: int, behind_nginx: bool, line: int) -> None:
    """gunicorn has no limit between 8190 bytes and none: behind nginx, which has one, it needs none."""
    limits = given(Server(max_url_bytes=most), behind_nginx)
    assert limits.limit_request_line == line
    if line:
        assert f"more than {line - 32} bytes, see server.max_url_bytes" in head_limits.hints(limits, behind_nginx)[414]


def test_whether_nginx_is_there_is_in_the_environment() -> None:
    """The variable that the stack sets for its programs."""
    assert head_limits.is_behind_nginx({"TABLESIDE_NGINX": "true"})
    assert not head_limits.is_behind_nginx({"TABLESIDE_NGINX": "false"})
    assert not head_limits.is_behind_nginx({})
