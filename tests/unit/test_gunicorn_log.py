"""gunicorn's log: what a request that it cannot read leaves in it."""

from __future__ import annotations

import logging
import socket

import pytest
from gunicorn.config import Config

from tableside.server.gunicorn_log import GunicornLog, without_quoted_text
from tableside.server.worker import TablesideWorker

SECRET = "s3cret-key"


@pytest.mark.parametrize(
    "sent, reason",
    [
        (f"GET / HTTP/1.1\r\nAuthorization Bearer {SECRET}\r\n\r\n", "Invalid HTTP Header"),
        (f"GET / HTTP/1.1\r\nAuthorization : Bearer {SECRET}\r\n\r\n", "Invalid HTTP header name"),
        (f"GET / HTTP/1.1\r\nAuthorization: Bearer\r\n {SECRET}\r\n\r\n", "Obsolete line folding is unacceptable"),
        (f"GET / HTTP/1.1\r\nTransfer-Encoding: {SECRET}\r\n\r\n", "Unsupported transfer coding"),
        (f"GET /?key={SECRET}\r\n\r\n", "Invalid HTTP request line"),
        (f"{{{SECRET}}} / HTTP/1.1\r\n\r\n", "Invalid HTTP method"),
        (f"GET /?key={SECRET} HTTP/7.x\r\n\r\n", "Invalid HTTP"),
    ],
)
def test_the_text_of_a_request_is_not_logged(
    sent: str, reason: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line names the address and what is wrong, without the header, the request line or the body."""
    config = Config()
    log = GunicornLog(config)
    monkeypatch.setattr(log.error_log, "propagate", True)
    worker = TablesideWorker(1, 1, [], None, 30, config, log)
    worker.wsgi, worker.alive, worker.nr, worker.max_requests = None, True, 0, 10
    here, there = socket.socketpair()
    with here, there, caplog.at_level(logging.WARNING, "gunicorn.error"):
        here.sendall(sent.encode())
        here.shutdown(socket.SHUT_WR)
        worker.handle(there, there, ("192.0.2.1", 1234))
    worker.tmp.close()
    assert "Invalid request from ip=192.0.2.1: " + reason in caplog.text
    assert SECRET not in caplog.text


def test_other_warnings_are_kept() -> None:
    """Only the warnings about requests quote what a client sent."""
    assert without_quoted_text("Worker exited: code 3: done") == "Worker exited: code 3: done"
    assert without_quoted_text("Invalid request from ip=::1: Request Line is too large (9000 > 8190)") == (
        "Invalid request from ip=::1: Request Line is too large (9000 > 8190)"
    )
