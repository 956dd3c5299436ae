"""`tableside restart` asks the web keeper over a socket in the run folder, and hears what became of it."""

from __future__ import annotations

import select
import socket
import threading
from pathlib import Path

import pytest

from tableside.deployment import keeper_socket
from tableside.deployment.keeper_socket import NAME, Reception, Request, Update
from tableside.deployment.releases import Release
from tableside.errors import StackError
from tests.waiting import wait_until

pytestmark = pytest.mark.processes


def asked(run_dir: Path, request: Request) -> tuple[threading.Thread, list[Update]]:
    """Send a request in a thread. Return the thread and the updates that it gets."""
    updates: list[Update] = []
    thread = threading.Thread(target=lambda: updates.extend(keeper_socket.ask(run_dir, request)))
    thread.start()
    return thread, updates


def received(reception: Reception) -> list[Request]:
    found: list[Request] = []
    assert wait_until(lambda: found.extend(reception.requests()) or found)
    return found


def test_a_request_is_answered_with_lines(tmp_path: Path) -> None:
    """The request arrives as it was sent, and the answer ends with the line that says whether it succeeded."""
    reception = Reception(tmp_path)
    request = Request(Release("/srv/two", "/srv/two/.venv/bin/python"))
    thread, updates = asked(tmp_path, request)
    assert received(reception) == [request]
    reception.tell("1 of 2")
    reception.finish(True, "serves")
    thread.join(10)
    assert updates == [Update("1 of 2"), Update("serves", True, True)]
    assert (tmp_path / NAME).stat().st_mode & 0o777 == 0o600
    reception.close()


def test_a_keeper_may_begin_to_listen_later(tmp_path: Path) -> None:
    """While a keeper executes itself anew, its socket is there but nobody listens."""
    Reception(tmp_path).close()
    thread, updates = asked(tmp_path, Request())
    reception = Reception(tmp_path)
    assert received(reception) == [Request()]
    reception.finish(True, "serves")
    thread.join(10)
    assert updates == [Update("serves", True, True)]
    reception.close()


def test_a_keeper_that_ends_before_it_has_read_is_asked_again(tmp_path: Path) -> None:
    """A request that waits in the socket of a keeper which executes itself anew is not lost."""
    reception = Reception(tmp_path)
    thread, updates = asked(tmp_path, Request())
    assert wait_until(lambda: select.select([reception], [], [], 0)[0])
    reception.close()
    reception = Reception(tmp_path)
    assert received(reception) == [Request()]
    reception.finish(True, "serves")
    thread.join(10)
    assert updates == [Update("serves", True, True)]
    reception.close()


def test_a_later_request_replaces_an_earlier_one(tmp_path: Path) -> None:
    """Who asked before is told so at once."""
    reception = Reception(tmp_path)
    first, updates = asked(tmp_path, Request())
    assert received(reception) == [Request()]
    second, later = asked(tmp_path, Request())
    assert received(reception) == [Request()]
    first.join(10)
    assert updates == [Update("another restart was asked for meanwhile", True, False)]
    reception.finish(False, "no")
    second.join(10)
    assert later == [Update("no", True, False)]
    reception.close()


def test_what_is_no_request_is_ignored(tmp_path: Path) -> None:
    """Neither nonsense, nor a client that says nothing or goes away, ends the keeper or keeps it waiting for long."""
    reception = Reception(tmp_path)
    for sent in (b"nonsense\n", b"", b"x" * 100_000):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / NAME))
            client.sendall(sent)
            client.shutdown(socket.SHUT_WR)
            assert list(reception.requests()) == []
    thread, updates = asked(tmp_path, Request())
    assert received(reception) == [Request()]
    reception.finish(True, "serves")
    thread.join(10)
    assert updates[-1].ok
    reception.close()


def test_a_keeper_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """The error says what to start; so does that of a keeper that ends before it has answered."""
    with pytest.raises(StackError, match="no answer from the web keeper.*tableside run"):
        list(keeper_socket.ask(tmp_path, Request(), patience_s=0))
    reception = Reception(tmp_path)
    problems: list[StackError] = []

    def ask() -> None:
        try:
            list(keeper_socket.ask(tmp_path, Request(), patience_s=0))
        except StackError as problem:
            problems.append(problem)

    thread = threading.Thread(target=ask)
    thread.start()
    received(reception)
    reception.tell("1 of 2")
    reception.close()
    thread.join(10)
    assert "ended before it answered" in str(problems[0])
