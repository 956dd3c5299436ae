"""What `/metrics` says of the stack as a whole: the figures of the kernel and of the files of the run folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tableside.deployment import nginx_answers, stack_metrics, tls
from tableside.deployment.layout import ADMIN
from tableside.errors import StackError
from tableside.process import drained, worker_lives, worker_slots
from tableside.process.instance_names import RUN_DIR
from tableside.settings import Settings
from tests.certificates import Authority
from tests.nginx_fronts import make_settings

pytestmark = [pytest.mark.processes, pytest.mark.no_greenlets]
WAIT = "import sys; print(flush=True); sys.stdin.read()"


@pytest.fixture
def run_dir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ts-") as folder:
        yield Path(folder)


def samples(settings: Settings) -> dict[str, float]:
    """Return the values by the names and labels that a scrape shows."""
    lines = stack_metrics.render(settings).decode().splitlines()
    parts = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    return {name.removeprefix("tableside_"): float(value) for name, _, value in parts}


def test_processes_are_counted_by_program(run_dir: Path) -> None:
    """Those of this run folder only; a worker is a process that holds a slot."""
    command = [sys.executable, "-c", WAIT, "-m", "tableside.deployment.socket_holder", "1"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with (
        subprocess.Popen(command, env={**os.environ, RUN_DIR: str(run_dir)}, **pipes) as holder,  # type: ignore[call-overload]
        subprocess.Popen(command, env={**os.environ, RUN_DIR: "/elsewhere"}, **pipes) as stranger,  # type: ignore[call-overload]
    ):
        for process in (holder, stranger):
            process.stdout.readline()
        found = samples(make_settings(run_dir))
        for process in (holder, stranger):
            process.communicate()
    assert found['processes{program="sockets"}'] == 1
    assert found['processes{program="worker"}'] == 1, "this one"
    assert found['processes{program="gunicorn"}'] == 0
    assert found['processes{program="supervisord"}'] == 0, "an alert asks for it"
    assert found['process_memory_bytes{program="sockets"}'] > 1e6
    assert 3 <= found['process_open_files{program="sockets"}'] < 100
    ended = samples(make_settings(run_dir))
    assert (ended['processes{program="sockets"}'], ended['process_memory_bytes{program="sockets"}']) == (0, 0)


def test_ready_workers_are_those_of_held_slots(run_dir: Path) -> None:
    """A status file counts while its slot is held, and while it says that all models are loaded."""
    slots = [worker_slots.acquire(run_dir / "worker_slots") for _ in range(3)]
    for slot, ready in zip(slots, (True, False, True), strict=True):
        slot.write_status({"pid": os.getpid(), "ready": ready})
    settings = make_settings(run_dir, workers="5")
    assert (samples(settings)["workers_ready"], samples(settings)["workers_wanted"]) == (2, 5)
    slots[0].release()
    assert samples(settings)["workers_ready"] == 1


def test_counts_of_the_run_folder_are_shown(run_dir: Path) -> None:
    """Starts, ends by cause, and nginx's answers by plane and code; what did not happen is 0."""
    worker_lives.began(run_dir, 100, 0.0)
    worker_lives.began(run_dir, 101, 0.0)
    worker_lives.ended(run_dir, 100, "SIGSEGV")
    found = samples(make_settings(run_dir))
    assert (found["worker_starts_total"], found['worker_ends_total{cause="crashed"}']) == (2, 1)
    assert found['worker_ends_total{cause="memory"}'] == 0
    assert not [name for name in found if name.startswith("nginx_answers")], "there was no nginx"
    (run_dir / nginx_answers.FILES[ADMIN]).write_text("504\n")
    nginx_answers.collect(run_dir)
    found = samples(make_settings(run_dir))
    assert found['nginx_answers_total{code="504",plane="control"}'] == 1
    assert found['nginx_answers_total{code="504",plane="data"}'] == 0


def test_disks_are_those_of_the_folders(run_dir: Path) -> None:
    """A folder that is missing has no sample, and stops no other metric."""
    settings = make_settings(run_dir)
    found = samples(settings)
    assert found['disk_size_bytes{folder="run"}'] == shutil.disk_usage(run_dir).total
    assert 0 < found['disk_free_bytes{folder="models"}'] < found['disk_size_bytes{folder="models"}']
    shutil.rmtree(run_dir)
    found = samples(settings)
    run_dir.mkdir()
    assert 'disk_size_bytes{folder="run"}' not in found
    assert found["workers_ready"] == 0


def test_the_certificate_that_expires_first_is_shown(run_dir: Path) -> None:
    """Of the leaf and the intermediates in the file. Without TLS, or without any file, there is no sample."""
    pair = Authority(run_dir / "authority").pair("server")
    settings = make_settings(run_dir, tls_certificate=str(pair.certificate), tls_key=str(pair.key))
    shown_s = samples(settings)["certificate_expiry_timestamp_seconds"]
    assert abs(shown_s - time.time() - 2 * 86400) < 600, "the test's certificates are valid for two days"
    pair.certificate.unlink()
    assert "certificate_expiry_timestamp_seconds" not in samples(settings)
    assert "certificate_expiry_timestamp_seconds" not in samples(make_settings(run_dir))


def test_the_certificate_is_the_one_that_nginx_uses(run_dir: Path) -> None:
    """A renewed certificate that does not fit its key is not taken: the copy that nginx reads stays, and is shown."""
    authority = Authority(run_dir / "authority")
    used, renewed = authority.pair("used", days=1), authority.pair("renewed", days=2)
    settings = make_settings(run_dir, tls_certificate=str(used.certificate), tls_key=str(used.key))
    tls.install(settings)
    shutil.copyfile(renewed.certificate, used.certificate)
    with pytest.raises(StackError, match="does not belong"):
        tls.install(settings)
    assert abs(samples(settings)["certificate_expiry_timestamp_seconds"] - time.time() - 86400) < 600
    shutil.copyfile(renewed.key, used.key)
    tls.install(settings)
    assert abs(samples(settings)["certificate_expiry_timestamp_seconds"] - time.time() - 2 * 86400) < 600


def test_a_drained_host_is_shown(run_dir: Path) -> None:
    """1 from the drain to the resume."""
    settings = make_settings(run_dir)
    assert samples(settings)["drained"] == 0
    drained.drain(run_dir)
    assert samples(settings)["drained"] == 1
    drained.resume(run_dir)
    assert samples(settings)["drained"] == 0
