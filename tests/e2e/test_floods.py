"""Slow and many clients hold nginx's connections, and never a place among the requests of the workers."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tableside.deployment.nginx_guard import busy_connections, open_files
from tableside.deployment.stack_processes import Role, find
from tests.e2e.conftest import Stack, until

pytestmark = pytest.mark.e2e
BODY = b'{"instances": [[5.1, 3.5, 1.4, 0.2]]}'
PREDICT = "/v1/models/iris:predict"
PER_CLIENT, PLACES = 120, 8


@pytest.fixture(scope="module")
def stack(make_stack: Callable[..., Stack]) -> Iterator[Stack]:
    """A stack with few places for requests, and a larger number of requests for each client."""
    started = make_stack(
        TABLESIDE__SERVER__MAX_REQUESTS_IN_FLIGHT=str(PLACES),
        TABLESIDE__SERVER__MAX_CONNECTIONS_PER_CLIENT=str(PER_CLIENT),
    )
    started.wait_loaded()
    yield started
    started.stop()


def ask(port: int, path: str = PREDICT, body: bytes | None = BODY, client: str = "127.0.0.1") -> tuple[int, str]:
    """Send one request from a loopback address. Return its status, 0 if the connection was closed, and its body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30, source_address=(client, 0))
    try:
        connection.request("POST" if body else "GET", path, body)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except (OSError, http.client.HTTPException) as problem:
        return 0, repr(problem)
    finally:
        connection.close()


def slow_bodies(
    open_sockets: ExitStack, port: int, count: int, client: str, path: str = PREDICT
) -> list[socket.socket]:
    """Open connections that each announce a large body and send its first byte."""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000000\r\n\r\n{{".encode()
    made = []
    for _ in range(count):
        connection = open_sockets.enter_context(socket.socket())
        connection.bind((client, 0))
        connection.settimeout(10)
        connection.connect(("127.0.0.1", port))
        connection.sendall(head)
        made.append(connection)
    return made


def refused(stack: Stack, client: str) -> bool:
    return ask(stack.data, client=client)[0] == 429


def test_slow_bodies_take_no_place(stack: Stack) -> None:
    """Of twelve times as many slow uploads as there are places, none takes one: their own client is answered too."""
    with ExitStack() as opened:
        slow_bodies(opened, stack.data, 12 * PLACES, "127.0.0.2")
        for client in ("127.0.0.1", "127.0.0.2"):
            assert [ask(stack.data, client=client) for _ in range(5)] == [(200, '{"predictions":["setosa"]}')] * 5


def test_a_client_is_limited_apart_from_the_others(stack: Stack) -> None:
    """A client with as many open requests as it may have gets 429. Others, and its own health probes, are answered."""
    assert until(lambda: is_idle(stack)), "nginx has seen the end of the connections of other tests"
    with ExitStack() as opened:
        sent = slow_bodies(opened, stack.data, PER_CLIENT, "127.0.0.2")

        def has_as_many_as_it_may() -> bool:
            """A slow body that nginx has refused, because it still counted those of another test, is sent again."""
            if refused(stack, "127.0.0.2"):
                return True
            sent.extend(slow_bodies(opened, stack.data, 1, "127.0.0.2"))
            return False

        assert until(has_as_many_as_it_may)
        assert len(sent) <= PER_CLIENT + 12 * PLACES, "no more are sent again than the other test had opened"
        status, answer = ask(stack.data, client="127.0.0.2")
        assert (status, "server.max_connections_per_client" in answer) == (429, True)
        assert ask(stack.data, "/v2/health/ready", None, "127.0.0.2")[0] == 200
        assert ask(stack.data, client="127.0.0.1")[0] == 200
        assert ask(stack.admin, client="127.0.0.2")[0] == 200, "the control plane has a limit of its own"
    assert until(lambda: not refused(stack, "127.0.0.2")), "the places of closed connections are free again"


def status_sockets(stack: Stack) -> list[Path]:
    return list((stack.run_dir / "tmp").glob("nginx-*.sock"))


def busy(stack: Stack) -> int:
    """How many connections of nginx have a request, the questions for that included: one for each socket."""
    return sum(busy_connections(path) or 0 for path in status_sockets(stack))


def is_idle(stack: Stack) -> bool:
    """Whether no connection has a request, but for the questions. False if nginx does not answer one of them."""
    found = [busy_connections(path) for path in status_sockets(stack)]
    return all(each is not None and each <= 1 for each in found)


class AllPlaces:
    """Requests that take all places, because the workers are stopped while this context lasts.

    answers: their statuses, complete at its end.
    """

    def __init__(self, stack: Stack) -> None:
        self._stack, self.answers = stack, list[int]()
        self._pids = [worker["pid"] for worker in stack.admin_call("/admin/api/workers")["workers"]]
        self._threads = [threading.Thread(target=self._ask) for _ in range(PLACES)]

    def _ask(self) -> None:
        self.answers.append(ask(self._stack.data)[0])

    def __enter__(self) -> AllPlaces:
        for pid in self._pids:
            os.kill(pid, signal.SIGSTOP)
        for thread in self._threads:
            thread.start()
        until(lambda: busy(self._stack) + len(self.answers) > PLACES, 10)
        return self

    def __exit__(self, *_: object) -> None:
        for pid in self._pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        for thread in self._threads:
            thread.join(60)


def test_the_limit_of_all_clients_is_on_work(stack: Stack) -> None:
    """Complete requests that the workers have not answered are limited; a further one gets 429 and says why."""
    with AllPlaces(stack) as held:
        status, answer = ask(stack.data, client="127.0.0.3")
        assert (status, "server.max_requests_in_flight" in answer) == (429, True)
        assert '"status":429' in answer
    assert held.answers == [200] * PLACES, "refused requests took no place from those before them"
    assert ask(stack.data)[0] == 200


def test_a_killed_nginx_process_leaves_no_place_taken(stack: Stack) -> None:
    """Its requests no longer count as soon as nginx's guard has seen its death."""
    with AllPlaces(stack):
        nginx = find(stack.run_dir, Role.NGINX_WORKER)
        os.kill(max(nginx, key=lambda process: open_files(process.pid)).pid, signal.SIGKILL)

    def is_free() -> bool:
        with AllPlaces(stack) as held:
            pass
        return held.answers == [200] * PLACES

    assert until(is_free, 60)


def test_idle_connections_cost_nobody(stack: Stack, record_property: Callable[[str, object], None]) -> None:
    """Beside thousands of idle kept-alive connections, requests are answered on new connections."""
    count = idle_count()
    with ExitStack() as opened:
        for number in range(count):
            connection = opened.enter_context(socket.socket())
            connection.bind((f"127.0.0.{4 + number % 8}", 0))
            connection.settimeout(30)
            connection.connect(("127.0.0.1", stack.data))
            connection.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert connection.recv(4096).startswith(b"HTTP/1.1 200")
        assert [ask(stack.data)[0] for _ in range(50)] == [200] * 50
        connection.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 200"), "idle connections stay usable"
    record_property("said", f"{count} idle connections")


def idle_count() -> int:
    """Ten thousand, or as many as this process may open files for."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    in_use = len(list(Path("/proc/self/fd").iterdir()))
    return min(10_000, hard - in_use - 200)
