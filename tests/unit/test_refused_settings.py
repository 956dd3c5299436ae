"""Unsupported gunicorn settings stop the server at start, with a line that says what to set instead."""

from __future__ import annotations

from typing import Any

import pytest
from gunicorn.config import Config

from tableside.server.refused_settings import REFUSED, check, find_refused

BAD = [
    ("http_protocols", {"http_protocols": "h2,h1"}),
    ("proxy_protocol", {"proxy_protocol": "auto"}),
    ("protocol", {"protocol": "uwsgi"}),
    ("certfile", {"certfile": "a", "keyfile": "b"}),
    ("keepalive", {"keepalive": 0}),
    ("statsd_host", {"statsd_host": "localhost:8125"}),
]


class Lines(list[str]):
    """A log that keeps its errors."""

    def error(self, msg: str, *args: object) -> None:
        self.append(msg % args)


def settings(given: dict[str, Any]) -> Config:
    cfg = Config()
    for name, value in given.items():
        cfg.set(name, value)
    return cfg


def test_supported_settings_are_accepted() -> None:
    """gunicorn's defaults, those of gunicorn.conf.py and settings that do not change HTTP are not refused."""
    log = Lines()
    check(settings({"sendfile": False, "keepalive": 5, "forwarded_allow_ips": "*", "max_requests": 10}), log)
    assert log == []


@pytest.mark.parametrize(("name", "given"), BAD, ids=[name for name, _ in BAD])
def test_a_setting_is_refused_by_name(name: str, given: dict[str, Any]) -> None:
    """The log gets one line, which names the setting and what to set instead, and the exit status is 1."""
    log = Lines()
    with pytest.raises(SystemExit) as ended:
        check(settings(given), log)
    assert ended.value.code == 1
    (line,) = log
    assert line.startswith(f"setting '{name}' is refused: ")
    assert ". Set it to " in line or ". Remove " in line
    assert line.endswith(".")


def test_all_refused_settings_are_listed_at_once() -> None:
    """Two bad settings give two lines, and the table above has every setting that can be refused."""
    assert len(find_refused(settings(dict(BAD[0][1]) | BAD[1][1]))) == 2
    assert [refused.setting for refused in REFUSED] == [name for name, _ in BAD]
