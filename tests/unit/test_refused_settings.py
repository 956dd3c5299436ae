"""gunicorn settings that the worker class can't honour stop the server at boot, with a line that says what to do."""

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
    """A log: keeps what is logged as an error."""

    def error(self, msg: str, *args: object) -> None:
        self.append(msg % args)


def settings(given: dict[str, Any]) -> Config:
    cfg = Config()
    for name, value in given.items():
        cfg.set(name, value)
    return cfg


def test_gunicorn_s_defaults_are_honoured() -> None:
    """So are ours, and whatever else changes nothing on the wire."""
    log = Lines()
    check(settings({"sendfile": False, "keepalive": 5, "forwarded_allow_ips": "*", "max_requests": 10}), log)
    assert log == []


@pytest.mark.parametrize(("name", "given"), BAD, ids=[name for name, _ in BAD])
def test_each_is_refused_by_name(name: str, given: dict[str, Any]) -> None:
    """One line, which names the setting, and exit status 1."""
    log = Lines()
    with pytest.raises(SystemExit) as ended:
        check(settings(given), log)
    assert ended.value.code == 1
    (line,) = log
    assert line.startswith(f"setting '{name}' is refused: ")


def test_all_are_told_at_once() -> None:
    """Two bad settings are two lines; the table above has each setting."""
    assert len(find_refused(settings(dict(BAD[0][1]) | BAD[1][1]))) == 2
    assert [one.setting for one in REFUSED] == [name for name, _ in BAD]
