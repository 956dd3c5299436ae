"""What an earlier stack has left in the run folder is taken over by the next start, or ended."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks.free_ports import free_port
from tableside import settings as app_settings
from tableside.deployment import launch, socket_holder, stopping, takeover
from tableside.deployment.end_of_service import EndOfService, end_without_nginx
from tableside.deployment.layout import DATA
from tableside.deployment.socket_rescue import rescue
from tableside.deployment.stack_processes import Role, find, runs
from tableside.process import lame_duck
from tableside.process.instance_names import RUN_DIR
from tableside.settings import Settings
from tests.waiting import wait_until

pytestmark = [pytest.mark.processes, pytest.mark.no_greenlets]

WAIT = "import signal, sys; print(flush=True); sys.stdin.readline(); print(flush=True); sys.stdin.read()"
CLOSES = "import os, sys; print(flush=True); sys.stdin.readline(); os.close(int(sys.argv[1])); sys.stdin.read()"
STUBBORN = "import signal, sys; signal.signal(15, signal.SIG_IGN); print(flush=True); sys.stdin.read()"

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def run_dir() -> Iterator[Path]:
    """A run folder with a short path: the path of a Unix socket has a limit."""
    with tempfile.TemporaryDirectory(prefix="ts-") as folder:
        path = Path(folder) / "run"
        path.mkdir()
        yield path


def free_address() -> str:
    return f"127.0.0.1:{free_port()}"


@pytest.fixture
def settings(run_dir: Path, tmp_path: Path) -> Settings:
    return app_settings.load(
        {
            "TABLESIDE__SERVER__LISTEN": free_address(),
            "TABLESIDE__SERVER__ADMIN_LISTEN": free_address(),
            "TABLESIDE__SERVER__RUN_DIR": str(run_dir),
            "TABLESIDE__REPOSITORY__PATH": str(tmp_path),
            "TABLESIDE__SERVER__REQUEST_TIMEOUT_S": "0.5",
        }
    )


@pytest.fixture
def start(run_dir: Path) -> Iterator[Start]:
    """Return a function that starts a process which looks like one of the stack's. words: the end of its command."""
    started: list[subprocess.Popen[bytes]] = []

    def make(*words: str, code: str = WAIT, descriptors: tuple[int, ...] = ()) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", code, *words]
        process = subprocess.Popen(
            command, env={**os.environ, RUN_DIR: str(run_dir)}, pass_fds=descriptors,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        started.append(process)
        assert process.stdout is not None
        process.stdout.readline()
        return process

    yield make
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def listeners(settings: Settings, run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, int]]:
    """The descriptors of the stack's listening sockets, bound in this process."""
    monkeypatch.chdir(run_dir)
    bound = socket_holder.bind(settings)
    yield {name: listener.fileno() for name, listener in bound.items()}
    for listener in bound.values():
        listener.close()


def refuses(settings: Settings, listeners: dict[str, int]) -> bool:
    host, port = socket_holder.tcp_addresses(listeners)[DATA]
    try:
        socket.create_connection((host, port), timeout=10).close()
    except ConnectionRefusedError:
        return True
    return False


def test_what_cannot_be_taken_over_is_ended(
    settings: Settings, start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    """A gunicorn that nobody watches, and whose sockets are not the stack's, is ended before the start, and named."""
    orphan = start("-m", "gunicorn")
    assert launch.prepare(settings) == []
    assert orphan.wait(10) == -signal.SIGTERM
    assert f"ending what an earlier stack has left in {settings.run_dir}: gunicorn (pid {orphan.pid})" in (
        capsys.readouterr().err
    )


def test_servers_with_the_sockets_are_taken_over(
    settings: Settings, start: Start, listeners: dict[str, int], capsys: pytest.CaptureFixture[str]
) -> None:
    """If a server has the sockets with the addresses of the settings, the start leaves it alone, and its files too."""
    orphan = start("-m", "gunicorn", descriptors=tuple(listeners.values()))
    (settings.run_dir / "metrics").mkdir()
    (settings.run_dir / "metrics" / "counter_0.db").touch()
    left = launch.prepare(settings)
    assert [process.pid for process in left] == [orphan.pid]
    assert runs(left[0])
    assert (settings.run_dir / "metrics" / "counter_0.db").exists()
    assert "taking over the stack that runs without supervisord" in capsys.readouterr().err


def test_sockets_are_copied_out_of_a_server(settings: Settings, start: Start, listeners: dict[str, int]) -> None:
    """`rescue` returns each socket that a server of the run folder has, as the very same socket; others are missing."""
    start("-m", "gunicorn", descriptors=(listeners[DATA], listeners["web.sock"]))
    copied = rescue(settings)
    try:
        assert set(copied) == {DATA, "web.sock"}
        assert all(os.fstat(copied[name]).st_ino == os.fstat(listeners[name]).st_ino for name in copied)
    finally:
        socket_holder.close(copied.values())


@pytest.mark.slow
def test_an_offer_gives_the_sockets_to_whoever_asks(
    settings: Settings, run_dir: Path, listeners: dict[str, int]
) -> None:
    """Any process gets copies from any offer. Sockets that do not listen any more are not taken."""
    offer = socket_holder.Offer(run_dir, "web", listeners)
    server = threading.Thread(target=lambda: [offer.answer() or wait_until(lambda: False, 0.01) for _ in range(400)])
    server.start()
    copied = socket_holder.fetch(run_dir, timeout_s=5)
    assert os.fstat(copied[DATA]).st_ino == os.fstat(listeners[DATA]).st_ino
    socket_holder.close(copied.values())
    with socket.socket(fileno=os.dup(listeners[DATA])) as listener:
        listener.shutdown(socket.SHUT_RDWR)
    with pytest.raises(TimeoutError):
        socket_holder.fetch(run_dir, timeout_s=0)
    server.join()
    offer.close()
    assert list(run_dir.glob("sockets-*")) == []


def test_an_offer_survives_a_folder_that_cannot_be_written(
    run_dir: Path, listeners: dict[str, int], capsys: pytest.CaptureFixture[str]
) -> None:
    """On a full disk the process goes on and keeps the sockets open; it says that it cannot offer them."""
    offer = socket_holder.Offer(run_dir / "missing", "web", listeners)
    offer.answer()
    offer.close()
    assert "cannot offer the sockets there: No such file or directory" in capsys.readouterr().err


def test_the_ports_close_when_the_servers_have_closed_them(
    settings: Settings, start: Start, listeners: dict[str, int]
) -> None:
    """Readiness is 503 from the first step to the last; the ports refuse as soon as no server has the sockets."""
    server = start(str(listeners[DATA]), "-m", "gunicorn", code=CLOSES, descriptors=(listeners[DATA],))
    assert server.stdin is not None
    with EndOfService(settings, listeners) as end:
        assert lame_duck.is_announced(settings.run_dir)
        end.serve_on()
        assert not refuses(settings, listeners)
        with socket.socket(fileno=os.dup(listeners[DATA])) as listener:
            listener.setblocking(True)
            listener.accept()[0].close()
        end.settle()
        closing = threading.Thread(target=end.stop_listening, args=(Role.GUNICORN,))
        closing.start()
        closing.join(0.3)
        assert closing.is_alive(), "the server still has the socket"
        server.stdin.write(b"\n")
        server.stdin.flush()
        closing.join(10)
        assert refuses(settings, listeners)
        assert lame_duck.is_announced(settings.run_dir)
    assert not lame_duck.is_announced(settings.run_dir)


def test_without_nginx_the_keeper_ends_the_service(
    settings: Settings, run_dir: Path, listeners: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """gunicorn is told to end after the queue is empty, and before the ports close. Behind nginx nothing is done."""
    offer, told = socket_holder.Offer(run_dir, "0", listeners), []
    monkeypatch.setenv("TABLESIDE_NGINX", "true")
    end_without_nginx(settings, lambda: told.append("nginx"))
    assert told == []
    monkeypatch.setenv("TABLESIDE_NGINX", "false")
    server = threading.Thread(target=lambda: [offer.answer() or wait_until(lambda: False, 0.01) for _ in range(100)])
    server.start()
    end_without_nginx(settings, lambda: told.append(lame_duck.is_announced(run_dir)))
    server.join()
    offer.close()
    assert told == [True]
    assert refuses(settings, listeners)


@pytest.mark.slow
def test_what_does_not_end_is_killed_and_named(
    settings: Settings, start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    """`stop` waits for the time that a stack has to end; then it kills what is left, and says what that was."""
    stubborn = start("-m", "gunicorn", code=STUBBORN)
    assert stopping.stop(settings) == 0
    assert stubborn.wait(10) == -signal.SIGKILL
    text = capsys.readouterr().err
    assert f"killed what did not end: gunicorn (pid {stubborn.pid})" in text
    assert text.endswith("tableside: stopped\n")
    assert find(settings.run_dir) == []


def test_nothing_is_left_to_finish_after_an_ordinary_start(settings: Settings) -> None:
    """Without processes of an earlier stack `finish` returns at once."""
    takeover.finish(settings, [])
