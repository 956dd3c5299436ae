"""The front of the stack: nginx, the socket holders and supervisord may die, and new ones take over without a gap."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from benchmarks.free_ports import free_port
from tableside.deployment.socket_holder import close, fetch
from tableside.deployment.stack_processes import Role, StackProcess, find, runs
from tests.e2e.conftest import BIN, PROJECT, Stack, until
from tests.e2e.traffic import Traffic

pytestmark = pytest.mark.e2e

KEPT = 4
"""Clients of the stream that keep their connection. Each process of an nginx that ends closes it once: a client that
connects again may meet the next one, which does not know yet that it ends."""
PLANES = 2
"""Each plane has an nginx of its own."""
NGINX = (Role.NGINX_MASTER, Role.NGINX_WORKER)
LOG_BYTES = 1_000_000
SILENCE_S = 1.0
"""The longest time in which the stack may answer nothing at all."""


@pytest.fixture(scope="module")
def front(make_stack: Callable[..., Stack], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One stack for the tests of this module, with a settings file that a test can change."""
    config = tmp_path_factory.mktemp("config") / "tableside.toml"
    config.write_text("")
    started = make_stack(TABLESIDE_CONFIG=str(config), TABLESIDE__LOG__MAX_BYTES=str(LOG_BYTES))
    yield started
    started.stop()


def found(stack: Stack, *roles: Role) -> list[StackProcess]:
    return find(stack.run_dir, *roles)


def inodes(stack: Stack) -> dict[str, int]:
    """Return the listening sockets that a process of the stack offers, by name: the inode names one socket."""
    descriptors = fetch(stack.run_dir)
    try:
        return {name: os.fstat(descriptor).st_ino for name, descriptor in descriptors.items()}
    finally:
        close(descriptors.values())


def data_workers(stack: Stack) -> list[StackProcess]:
    """The workers of the data plane's nginx."""
    (master,) = (each for each in found(stack, Role.NGINX_MASTER) if b"nginx-control.conf" not in each.words[0])
    return [each for each in found(stack, Role.NGINX_WORKER) if each.parent == master.pid]


def survive(
    stack: Stack, trained: dict[str, Any], event: Callable[[], object], is_over: Callable[[], bool], ends: int = 1
) -> Traffic:
    """Run `event` during a stream of requests until it is over. Only kept connections that nginx closed may fail.

    ends: how many times an nginx that serves is ended.
    """
    estimator, sample = trained["iris"]
    rows = sample.iloc[:3]
    body, expected = {"instances": rows.values.tolist()}, {"predictions": estimator.predict(rows).tolist()}
    sockets, processes = inodes(stack), len(data_workers(stack))
    with Traffic(stack.data, "/v1/models/iris:predict", body, expected, clients=2 * KEPT) as traffic:
        traffic.wait_for_more(50)
        event()
        assert until(is_over, 240), stack.logs()
        traffic.wait_for_more(100)
    assert traffic.failures == traffic.cut, traffic.outcomes
    assert len(traffic.cut) <= ends * processes * KEPT
    assert inodes(stack) == sockets, "the stack listens on the same sockets"
    return traffic


def replaced(stack: Stack, old: list[StackProcess]) -> Callable[[], bool]:
    """Return a function that tells whether these processes have ended, and a new nginx serves alone."""

    def is_over() -> bool:
        return not any(map(runs, old)) and len(found(stack, Role.NGINX_MASTER)) == PLANES

    return is_over


def test_a_restart_of_nginx_leaves_no_gap(front: Stack, trained: dict[str, Any]) -> None:
    """`supervisorctl restart nginx` starts the new nginx before the old one ends; one keeper and one nginx are left."""
    old = found(front, *NGINX)
    survive(front, trained, lambda: front.ctl("restart", "nginx"), replaced(front, old))
    assert until(lambda: len(found(front, Role.NGINX_KEEPER)) == 1), "the guardian has ended with its nginx"
    assert len(list((front.run_dir / "tmp").glob("*-*.pid"))) == PLANES


def test_a_killed_nginx_master_is_replaced(front: Stack, trained: dict[str, Any]) -> None:
    """After SIGKILL of nginx's master its workers serve until a new nginx does; then they end. So for both planes."""
    for place in range(PLANES):
        old = found(front, *NGINX)
        master = [process for process in old if process.role is Role.NGINX_MASTER][place]
        traffic = survive(front, trained, lambda: os.kill(master.pid, signal.SIGKILL), replaced(front, old))  # noqa: B023
        assert traffic.longest_silence_s < SILENCE_S


def test_a_killed_keeper_is_replaced_with_its_nginx(front: Stack, trained: dict[str, Any]) -> None:
    """After SIGKILL of nginx's keeper supervisord starts another, which replaces the nginx that nobody watches."""
    old = found(front, *NGINX)
    (keeper,) = found(front, Role.NGINX_KEEPER)
    survive(front, trained, lambda: os.kill(keeper.pid, signal.SIGKILL), replaced(front, old))


def test_a_killed_nginx_worker_loses_only_its_own_connections(front: Stack, trained: dict[str, Any]) -> None:
    """SIGKILL of a worker of nginx closes the connections that it had: at most one request of each client."""
    estimator, sample = trained["iris"]
    body = {"instances": sample.iloc[:1].values.tolist()}
    workers = data_workers(front)
    victim = workers[0]
    with Traffic(
        front.data, "/v1/models/iris:predict", body, {"predictions": estimator.predict(sample.iloc[:1]).tolist()}
    ) as traffic:
        traffic.wait_for_more(50)
        os.kill(victim.pid, signal.SIGKILL)
        assert until(lambda: not runs(victim))
        traffic.wait_for_more(200)
    assert until(lambda: not any(map(runs, workers))), "the guard renews all workers of an nginx that has lost one"
    assert len(traffic.failures) <= traffic.clients, traffic.outcomes
    assert set(traffic.outcomes) <= {"200", "RemoteDisconnected", "ConnectionResetError", "BrokenPipeError"}


def test_dead_holders_come_back(front: Stack, trained: dict[str, Any]) -> None:
    """After SIGKILL of both holders at once the next ones get the sockets from the keepers."""
    old = found(front, Role.HOLDER)

    def event() -> None:
        for process in old:
            os.kill(process.pid, signal.SIGKILL)

    traffic = survive(front, trained, event, lambda: len(set(found(front, Role.HOLDER)) - set(old)) == 2)
    assert traffic.failures == []
    assert traffic.longest_silence_s < SILENCE_S


def test_dead_holders_come_back_while_nginx_restarts(front: Stack, trained: dict[str, Any]) -> None:
    """Both holders are killed and nginx is restarted at once: the guardian of nginx still has the sockets."""
    old, old_nginx = found(front, Role.HOLDER), found(front, *NGINX)

    def event() -> None:
        for process in old:
            os.kill(process.pid, signal.SIGKILL)
        front.ctl("restart", "nginx")

    has_holders = lambda: len(set(found(front, Role.HOLDER)) - set(old)) == 2  # noqa: E731
    survive(front, trained, event, lambda: has_holders() and replaced(front, old_nginx)())


def test_a_restart_of_all_programs_leaves_no_gap(front: Stack, trained: dict[str, Any]) -> None:
    """`supervisorctl restart all` ends every program before it starts one: the guardians serve meanwhile.

    The guardian's nginx takes new connections in between, which end with it.
    """
    old = [process for process in found(front) if process.role is not Role.SUPERVISORD]
    survive(front, trained, lambda: front.ctl("restart", "all"), lambda: not any(map(runs, old)), ends=2)
    assert until(lambda: len(found(front, Role.HOLDER)) == 2)
    assert until(lambda: len(found(front, Role.NGINX_KEEPER)) == len(found(front, Role.WEB_KEEPER)) == 1)


def test_nginx_reads_new_limits_at_a_hup_and_keeps_the_old_ones_if_they_are_wrong(front: Stack) -> None:
    """SIGHUP makes nginx use the settings on disk. Settings that cannot be used change nothing, and are reported.

    `tableside restart` does not make nginx read them, because that can close a connection under a request. It says so.
    """
    config = Path(front.environ["TABLESIDE_CONFIG"])
    body = b"[" + b" " * 3000 + b"]"

    def status() -> int:
        return front.call("/v1/models/iris:predict", body)[0]

    assert status() == 400
    master = found(front, Role.NGINX_MASTER)
    try:
        config.write_text("[server]\nmax_body_bytes = 1000\n")
        said = front.cli("restart").stderr
        assert re.search(r"note: nginx still runs with earlier settings \(.*client_max_body_size 1000.*HUP nginx", said)
        front.ctl("signal", "HUP", "nginx")
        assert until(lambda: status() == 413), front.logs()
        config.write_text("[server]\nmax_body_bytes = 'much'\n")
        (keeper,) = found(front, Role.NGINX_KEEPER)  # supervisorctl reads the settings too, and refuses them
        os.kill(keeper.pid, signal.SIGHUP)
        log = front.run_dir / "log" / "nginx.log"
        assert until(lambda: "nginx keeps its configuration: server.max_body_bytes" in log.read_text()), log.read_text()
        assert status() == 413
    finally:
        config.write_text("")
    front.ctl("signal", "HUP", "nginx")
    assert "note" not in front.cli("restart").stderr
    assert until(lambda: status() == 400), front.logs()
    assert found(front, Role.NGINX_MASTER) == master


@contextmanager
def followed(stack: Stack) -> Iterator[tuple[list[str], list[str]]]:
    """Send requests with ids of their own while `tableside logs -f` follows them. Yield the ids and what it printed."""
    ids: list[str] = []
    lines: list[str] = []
    is_over = threading.Event()
    words = ["logs", "-f", "-n", "0", "--json", "--source", "web,nginx-access", "--request-id", "followed-"]
    with subprocess.Popen(
        [str(BIN / "tableside"), *words], cwd=PROJECT, env={**stack.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        output = process.stdout

        def read() -> None:
            for line in output:
                lines.append(line)

        reader = threading.Thread(target=read)
        reader.start()

        def send() -> None:
            while not is_over.wait(0.01):
                ids.append(f"followed-{len(ids)}")
                stack.call("/v2", headers={"X-Request-ID": ids[-1]})

        def warm() -> bool:
            stack.call("/v2", headers={"X-Request-ID": "followed-first"})
            return bool(lines)

        try:
            assert until(warm)
            sender = threading.Thread(target=send)
            sender.start()
            yield ids, lines
            is_over.set()
            sender.join()
            until(lambda: len([line for line in lines if "followed-first" not in line]) >= 2 * len(ids), 20)
        finally:
            is_over.set()
            process.terminate()
            reader.join()
    lines[:] = [line for line in lines if "followed-first" not in line]


def test_logs_go_on_in_new_files_when_they_are_full(front: Stack, trained: dict[str, Any]) -> None:
    """nginx's keeper and supervisord rename logs above log.max_bytes, and later requests are in new files."""
    logs = [front.run_dir / "log" / name for name in ("nginx-access.log", "web.log")]
    renamed = [log.with_name(f"{log.name}.1") for log in logs]
    for file in renamed:
        file.unlink(missing_ok=True)

    def fill() -> None:
        """Make nginx's log large; web.log gets there by the requests. supervisord writes at an offset of its own."""
        with logs[0].open("ab") as file:
            file.write(b"\n" * LOG_BYTES)

    with followed(front) as ids_and_lines:
        survive(front, trained, fill, lambda: all(file.exists() for file in renamed))
        front.call("/v2", headers={"X-Request-ID": "after-the-rotation"})
        assert until(lambda: all("after-the-rotation" in log.read_text() for log in logs))
    ids, lines = ids_and_lines
    assert Counter(json.loads(line)["request_id"] for line in lines) == dict.fromkeys(ids, 2), "nginx's line and web's"
    assert all(LOG_BYTES < file.stat().st_size < 3 * LOG_BYTES for file in renamed)


def test_a_new_supervisord_takes_the_stack_over(front: Stack, trained: dict[str, Any]) -> None:
    """After SIGKILL of supervisord the stack serves, and `tableside run` replaces it without a failed request."""
    old = found(front)
    assert front.process is not None
    front.process.kill()
    front.process.wait(10)
    assert until(lambda: not found(front, Role.SUPERVISORD))
    assert found(front, Role.HOLDER), "the holders outlive supervisord"
    survive(front, trained, front.start, lambda: not any(map(runs, old)))
    assert "taking over the stack" in (front.folder / "run.out").read_text()
    assert until(lambda: len(found(front, Role.HOLDER)) == 2)
    assert (len(found(front, Role.SUPERVISORD)), len(found(front, Role.NGINX_MASTER))) == (1, PLANES)


def kill_all_but_servers(stack: Stack) -> list[StackProcess]:
    """Kill supervisord and everything that offers the sockets. Return what is left: nginx and gunicorn, which serve."""
    doomed = found(stack, Role.SUPERVISORD, Role.HOLDER, Role.NGINX_KEEPER, Role.WEB_KEEPER)
    for process in sorted(doomed, key=lambda process: process.role is not Role.SUPERVISORD):
        os.kill(process.pid, signal.SIGKILL)
    assert stack.process is not None
    stack.process.wait(10)
    assert until(lambda: not any(map(runs, doomed)))
    left = found(stack)
    assert {process.role for process in left} >= {*NGINX, Role.GUNICORN}
    assert stack.call("/v2/health/live")[0] == 200
    return left


def test_holders_copy_the_sockets_of_servers_that_nobody_watches(front: Stack, trained: dict[str, Any]) -> None:
    """If every process that offers the sockets is killed, the next start copies them out of nginx and gunicorn."""
    left: list[StackProcess] = []

    def event() -> None:
        left.extend(kill_all_but_servers(front))
        front.start()

    survive(front, trained, event, lambda: not any(map(runs, left)))
    assert "taking over the stack" in (front.folder / "run.out").read_text()


def test_orphans_are_ended_at_a_stop_and_before_a_start_at_another_address(front: Stack) -> None:
    """`stop` ends servers that nobody watches. So does a `run` that cannot take them over; both say so."""
    kill_all_but_servers(front)
    assert front.cli("stop").stderr.endswith("tableside: stopped\n")
    assert found(front) == []
    with pytest.raises(OSError, match="refused"):
        front.call("/v2/health/live")
    front.start()
    left = kill_all_but_servers(front)
    front.data = free_port()
    front.environ["TABLESIDE__SERVER__LISTEN"] = f"127.0.0.1:{front.data}"
    front.start()
    assert not any(map(runs, left))
    assert "ending what an earlier stack has left" in (front.folder / "run.out").read_text()


def test_a_port_of_another_program_is_no_orphan(front: Stack, make_stack: Callable[..., Stack]) -> None:
    """A stack in another run folder is left alone: the port is in use, and the other stack serves on."""
    other = make_stack(start=False, TABLESIDE__SERVER__LISTEN=f"127.0.0.1:{front.data}")
    done = other.cli("run")
    assert done.returncode == 2
    assert "address already in use" in done.stderr
    assert other.cli("stop").returncode == 0
    assert front.call("/v2/health/live")[0] == 200


def test_every_process_belongs_to_its_run_folder(front: Stack) -> None:
    """What `stop` would end is exactly what supervisord has started: the tree of its processes."""
    listed = subprocess.run(["ps", "-eo", "pid,ppid"], capture_output=True, text=True, check=True).stdout
    parents = {int(pid): int(parent) for pid, parent in (line.split() for line in listed.splitlines()[1:])}
    (supervisord,) = found(front, Role.SUPERVISORD)

    def is_inside(pid: int) -> bool:
        while pid not in (0, 1, supervisord.pid):
            pid = parents.get(pid, 0)
        return pid == supervisord.pid

    assert all(is_inside(process.pid) for process in found(front))
