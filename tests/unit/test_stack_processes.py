"""The processes of a stack are found by its run folder, and signalled without mistaking one for another."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tableside.deployment.stack_processes import Role, StackProcess, children, find, has_socket, leaders, runs, send
from tableside.process.instance_names import RUN_DIR
from tests.waiting import wait_until

pytestmark = [pytest.mark.processes, pytest.mark.no_greenlets]

Start = Callable[..., subprocess.Popen[bytes]]
WAIT = "import sys; print(flush=True); sys.stdin.read()"


@pytest.fixture
def run_dir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ts-") as folder:
        yield Path(folder)


@pytest.fixture
def start(run_dir: Path) -> Iterator[Start]:
    """Return a function that starts a process which waits. words: what its command line ends with."""
    started: list[subprocess.Popen[bytes]] = []

    def make(*words: str, folder: Path = run_dir, cwd: Path | None = None) -> subprocess.Popen[bytes]:
        environ = {**os.environ, RUN_DIR: str(folder)}
        command = [sys.executable, "-c", WAIT, *words]
        process = subprocess.Popen(command, env=environ, cwd=cwd, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        started.append(process)
        assert process.stdout is not None
        process.stdout.readline()
        return process

    yield make
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("words", "role"),
    [
        (("-m", "supervisor.supervisord", "-c", "x"), Role.SUPERVISORD),
        (("-m", "gunicorn", "-c", "x"), Role.GUNICORN),
        (("-m", "tableside.deployment.socket_holder", "1"), Role.HOLDER),
        (("-m", "tableside.deployment.nginx_keeper"), Role.NGINX_KEEPER),
        (("-m", "tableside.deployment.web_keeper"), Role.WEB_KEEPER),
        (("-I", "/srv/app/model_process/child/main.py", "--socket"), Role.MODEL),
    ],
)
def test_a_process_is_found_by_its_run_folder(
    start: Start, run_dir: Path, tmp_path: Path, words: tuple[str, ...], role: Role
) -> None:
    """Its command says what it is, its environment whose. The same command in another run folder is not found."""
    mine, other = start(*words), start(*words, folder=tmp_path)
    (found,) = find(run_dir)
    assert (found.pid, found.parent, found.role) == (mine.pid, os.getpid(), role)
    assert find(run_dir, role) == [found]
    assert [process.pid for process in find(tmp_path)] == [other.pid]
    assert str(found) == f"{role.value} (pid {mine.pid})"


def test_nginx_is_found_by_its_working_folder(run_dir: Path, tmp_path: Path) -> None:
    """nginx overwrites its environment with its title; the folder that it works in says whose it is."""
    for folder in (run_dir, tmp_path):
        # `read` is the shell's own: a program that the shell started would have this title, too, for a moment.
        command = ["nginx: worker process", "-c", "read word"]
        with subprocess.Popen(command, executable="/bin/sh", cwd=folder, stdin=subprocess.PIPE) as process:
            assert wait_until(lambda: find(folder))  # noqa: B023 - called at once
            assert [(each.pid, each.role) for each in find(run_dir)] == (
                [(process.pid, Role.NGINX_WORKER)] if folder == run_dir else []
            )
            process.kill()


def test_other_programs_are_none_of_a_stack(start: Start, run_dir: Path) -> None:
    """A shell or a script with the variable in its environment is not one of the programs, so nothing ends it."""
    start("gunicorn")
    start("-m", "http.server")
    assert find(run_dir) == []
    assert find(run_dir / "missing") == []


def test_the_folder_counts_and_not_its_path(start: Start, run_dir: Path) -> None:
    """A process is found by any path of its run folder. The same path is not enough if another folder has it now."""
    start("-m", "gunicorn")
    link = run_dir.with_name(run_dir.name + "-link")
    link.symlink_to(run_dir)
    moved = run_dir.rename(run_dir.with_name(run_dir.name + "-moved"))
    try:
        run_dir.mkdir()
        assert len(find(link)) == 1, "that is the folder which the process was told"
        assert find(moved) == []
        run_dir.rmdir()
        moved.rename(run_dir)
        assert len(find(link)) == len(find(run_dir)) == 1
    finally:
        link.unlink()


def test_a_signal_reaches_the_very_process(start: Start, run_dir: Path) -> None:
    """`send` returns True for a process that runs, and False after its end, although its number may be used again."""
    process = start("-m", "gunicorn")
    (found,) = find(run_dir)
    assert runs(found)
    imposter = found._replace(started=found.started + 1)
    assert not send(imposter, signal.SIGKILL)
    assert runs(found)
    assert send(found, signal.SIGTERM)
    assert wait_until(lambda: not runs(found)), "a zombie counts as ended"
    assert not send(found, signal.SIGTERM)
    process.communicate()
    assert not send(found, signal.SIGTERM)
    assert find(run_dir) == []


def test_leaders_are_masters_and_orphans() -> None:
    """A process whose parent is signalled too needs no signal; one whose parent was killed does."""
    master = StackProcess(10, 1, 0, Role.NGINX_MASTER, ())
    worker = StackProcess(11, 10, 0, Role.NGINX_WORKER, ())
    orphan = StackProcess(12, 1, 0, Role.NGINX_WORKER, ())
    assert leaders([master, worker, orphan]) == [master, orphan]
    assert leaders([worker]) == [worker]


def test_the_children_of_a_process_are_known(start: Start) -> None:
    """Their pids are listed; a process that has ended has none."""
    started = start("-m", "gunicorn")
    assert started.pid in children(os.getpid())
    assert children(started.pid) == []


def test_who_has_a_socket_open_is_known(start: Start, run_dir: Path) -> None:
    """A process that has inherited a socket has it; another one does not."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        inode = os.fstat(listener.fileno()).st_ino
        start("-m", "gunicorn")
        (other,) = find(run_dir)
        mine = other._replace(pid=os.getpid())
        assert has_socket(mine, [inode])
        assert not has_socket(other, [inode])
        assert not has_socket(mine, [])
