"""`tableside doctor`: a table of mistakes in real files, each found, and nothing found where there is none."""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from benchmarks.free_ports import free_port
from tableside import machine
from tableside import settings as app_settings
from tableside.access_keys import KeysFile, Scope
from tableside.cli import main
from tableside.deployment import launch, layout, nginx
from tableside.deployment.doctor import diagnosis, nginx_conf, programs, set_up
from tableside.deployment.doctor.finding import Finding, Level
from tableside.deployment.doctor.set_up import SetUp
from tableside.errors import FailureKind
from tableside.process import drained, operations
from tableside.process.generation_words import GenerationWords
from tableside.repository import integrity
from tableside.serving.generations import Generations
from tableside.serving.statement import ModelStatement, Refusal, Statement
from tableside.settings import Environment
from tests.certificates import Authority

pytestmark = pytest.mark.no_greenlets

NOW = datetime.now(UTC)
OLD_S = time.time() - 3 * 86400


@pytest.fixture(scope="module")
def shipped(repository: Path) -> Iterator[SetUp]:
    """A prepared stack with the settings as they are shipped, and the example models; everything is read for real."""
    with tempfile.TemporaryDirectory(prefix="ts-") as folder, pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        settings = app_settings.load(
            {
                "TABLESIDE__SERVER__LISTEN": f"127.0.0.1:{free_port()}",
                "TABLESIDE__SERVER__ADMIN_LISTEN": f"127.0.0.1:{free_port()}",
                "TABLESIDE__SERVER__RUN_DIR": f"{folder}/run",
                "TABLESIDE__REPOSITORY__PATH": str(repository),
            }
        )
        launch.prepare(settings)
        yield set_up.gather(settings)


@pytest.fixture
def sound(shipped: SetUp, repository: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SetUp]:
    """The same in a folder of the test's own, with one model, on a machine with room for it, beside a running stack."""
    with tempfile.TemporaryDirectory(prefix="ts-") as name:
        folder = Path(name)
        (folder / "root/proc").mkdir(parents=True)
        (folder / "root/proc/meminfo").write_text("MemTotal: 16000000 kB\nMemAvailable: 16000000 kB\n")
        monkeypatch.setenv(machine.CGROUP_ROOT, str(folder / "root"))
        monkeypatch.chdir(folder)
        shutil.copytree(repository / "iris", folder / "models/iris")
        (folder / "run").mkdir(mode=0o700)
        (folder / "run/log").mkdir()
        launch.make_key(folder / "run")
        server = msgspec.structs.replace(
            shipped.settings.server, run_dir=str(folder / "run"), keys_file=str(folder / "keys.json"), workers=2,
            max_requests_in_flight=100,
        )  # fmt: skip
        settings = msgspec.structs.replace(
            shipped.settings,
            server=server,
            repository=msgspec.structs.replace(shipped.settings.repository, path=str(folder / "models")),
            log=msgspec.structs.replace(shipped.settings.log, max_bytes=1_000_000),
        )
        yield replace(
            shipped, settings=settings, nginx={plane: nginx.render(settings, plane) for plane in nginx.CONF},
            processors=2, somaxconn=4096, clock_is_kept=True, now=NOW,
            gunicorn={**shipped.gunicorn, "worker_connections": 100},
        )  # fmt: skip


def section(found: SetUp, name: str, **changes: object) -> SetUp:
    """The set-up with other settings of a section."""
    changed = msgspec.structs.replace(getattr(found.settings, name), **changes)
    return replace(found, settings=msgspec.structs.replace(found.settings, **{name: changed}))


def server(**changes: object) -> Callable[[SetUp], SetUp]:
    return lambda found: section(found, "server", **changes)


def rendered(**changes: object) -> Callable[[SetUp], SetUp]:
    """Other settings, which nginx has too."""

    def seed(found: SetUp) -> SetUp:
        changed = section(found, "server", **changes)
        return replace(changed, nginx={plane: nginx.render(changed.settings, plane) for plane in nginx.CONF})

    return seed


def nginx_has(old: str, new: str) -> Callable[[SetUp], SetUp]:
    """nginx's file with one directive edited."""

    def seed(found: SetUp) -> SetUp:
        assert old in found.nginx["data"], old
        return replace(found, nginx={**found.nginx, "data": found.nginx["data"].replace(old, new, 1)})

    return seed


def gunicorn_has(**changes: object) -> Callable[[SetUp], SetUp]:
    return lambda found: replace(found, gunicorn={**found.gunicorn, **changes})


def set_up_has(**changes: object) -> Callable[[SetUp], SetUp]:
    return lambda found: replace(found, **changes)  # type: ignore[arg-type]


def supervisor_waits(program: str) -> Callable[[SetUp], SetUp]:
    """supervisord.conf as it is, with another stopwaitsecs in one program."""

    def seed(found: SetUp) -> SetUp:
        text = (layout.PROJECT / layout.SUPERVISORD_CONF).read_text()
        before, header, after = text.partition(f"[program:{program}]")
        edited = Path(found.settings.server.run_dir).parent / "supervisord.conf"
        edited.write_text(before + header + after.replace("%(ENV_TABLESIDE_STOP_WAIT_S)s", "20", 1))
        wanted = layout.environment(found.settings, os.environ)
        return replace(found, programs=programs.of_files([edited], wanted))

    return seed


def memory(kilobytes: int) -> Callable[[SetUp], SetUp]:
    def seed(found: SetUp) -> SetUp:
        (machine.root() / "proc/meminfo").write_text(f"MemTotal: {kilobytes} kB\n")
        return found

    return seed


def quota(text: str) -> Callable[[SetUp], SetUp]:
    """Three workers in a control group with this `cpu.max`."""

    def seed(found: SetUp) -> SetUp:
        written(machine.root() / "sys/fs/cgroup/cpu.max", text)
        return section(replace(found, processors=machine.processors()), "server", workers=3)

    return seed


def run(found: SetUp) -> Path:
    return found.settings.run_dir


def models(found: SetUp) -> Path:
    return found.settings.repository_path


def does(act: Callable[[SetUp], object]) -> Callable[[SetUp], SetUp]:
    """Something that is done to the files."""

    def seed(found: SetUp) -> SetUp:
        act(found)
        return found

    return seed


def written(path: Path, text: str = "x", mode: int = 0o600, changed_s: float | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        path.chmod(0o644)  # publish leaves files that nobody writes to
    path.write_text(text)
    path.chmod(mode)
    if changed_s is not None:
        os.utime(path, (changed_s, changed_s))


def old_draft(found: SetUp) -> None:
    folder = models(found) / "iris/.publishing-0123"
    written(folder / "artifact.skops")
    os.utime(folder, (OLD_S, OLD_S))


def contract_says(package: str, version: str) -> Callable[[SetUp], SetUp]:
    def act(found: SetUp) -> None:
        path = models(found) / "iris/1/contract.json"
        content = json.loads(path.read_bytes())
        content["environment"][package] = version
        content.get("trained_with", {}).pop(package, None)
        path.chmod(0o644)
        path.write_bytes(json.dumps(content).encode())

    return does(act)


def key_expires(found: SetUp) -> None:
    KeysFile(found.settings.keys_path, models(found)).add("shop", Scope.PREDICT, NOW, timedelta(days=3))


def with_certificate(later: timedelta, other_key: bool = False) -> Callable[[SetUp], SetUp]:
    """TLS with a real chain whose certificates are valid for two days, looked at some time later."""

    def seed(found: SetUp) -> SetUp:
        authority = Authority(run(found).parent / "tls")
        pair = authority.pair("server")
        key = authority.pair("other").key if other_key else pair.key
        key.chmod(0o600)
        changed = section(found, "server", tls_certificate=str(pair.certificate), tls_key=str(key))
        return replace(changed, now=NOW + later)

    return seed


def open_tls_key(found: SetUp) -> SetUp:
    changed = with_certificate(timedelta(0))(found)
    Path(changed.settings.server.tls_key).chmod(0o644)
    return changed


WORKERS: list[dict[str, Any]] = [
    {"pid": pid, "ready": True, "generation": 1, "started_at": (NOW - timedelta(hours=1)).isoformat()} for pid in (1, 2)
]


def status(state: str, **more: object) -> dict[str, object]:
    """What a worker says of a version whose artifact was damaged."""
    found = {
        "name": "iris",
        "version": 1,
        "state": state,
        "failure_kind": "damaged",
        "reason": "model.skops is damaged",
    }
    return {**found, **more}


def workers_are(*changes: Mapping[str, object], supervisord: int = 1) -> Callable[[SetUp], SetUp]:
    """Workers that have run for an hour under a supervisord, with other members of their status."""

    def seed(found: SetUp) -> SetUp:
        folder = run(found) / "generations"
        folder.mkdir(exist_ok=True)
        statuses = [{**each, **change} for each, change in zip(WORKERS, changes, strict=False)]
        return replace(found, statuses=statuses, supervisord=supervisord)

    return seed


def refused_generation(found: SetUp) -> SetUp:
    refused = {1: Refusal(FailureKind.GOLDEN, "row 3 is answered differently")}
    statement = Statement(models={"iris": ModelStatement(versions=(1,), refused=refused)})
    with_workers = workers_are({}, {}, supervisord=0)(found)
    Generations(run(found) / "generations", GenerationWords.alone()).propose(statement)
    return with_workers


def lost_operation(found: SetUp) -> None:
    running = operations.begin(run(found), "publish", "iris", "ann")
    os.close(running.lock)


def old_socket(found: SetUp) -> SetUp:
    for name in (layout.WEB_SOCKET, layout.CONTROL_SOCKET):
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(run(found) / name))
    return replace(found, supervisord=1)


def other_nginx(found: SetUp) -> SetUp:
    """A running stack, whose settings were changed afterwards."""
    return section(replace(found, supervisord=1), "server", max_url_bytes=9000)


E, W, N = Level.ERROR, Level.WARNING, Level.NOTE
SEEDED: dict[str, tuple[Callable[[SetUp], SetUp], Level, str, str, str]] = {
    # name: what is wrong; level, area, what the figures and the change must say
    "graceful below deadline": (gunicorn_has(graceful_timeout=20), E, "timeouts", "graceful_timeout 20 s", "above 30"),
    "nginx below graceful": (
        nginx_has("proxy_read_timeout 40s", "proxy_read_timeout 30s"), E, "timeouts",
        "proxy_read_timeout 30 s, graceful_timeout 35 s", "nginx.conf",
    ),
    "nginx ends early": (
        nginx_has("worker_shutdown_timeout 40s;", "worker_shutdown_timeout 10s;"), E, "timeouts",
        "worker_shutdown_timeout 10 s", "40s",
    ),
    "web is killed": (supervisor_waits("web"), E, "timeouts", "stopwaitsecs 20 s", "[program:web]"),
    "nginx is killed": (supervisor_waits("nginx"), E, "timeouts", "stopwaitsecs 20 s", "[program:nginx]"),
    "a hung worker stays": (gunicorn_has(timeout=0), W, "timeouts", "timeout 0 s", "gunicorn.conf.py"),
    "upstream kept longer": (
        nginx_has("keepalive_timeout 4s", "keepalive_timeout 60s"), E, "keep-alive",
        "web 60 s, gunicorn's keepalive 5 s", "below 5s",
    ),
    "gunicorn keeps shorter": (gunicorn_has(keepalive=2), E, "keep-alive", "keepalive 2 s", "above 4"),
    "clients are told longer": (
        nginx_has("keepalive_timeout 70s 65s", "keepalive_timeout 60s 65s"), E, "keep-alive", "held 60 s",
        "longer time first",
    ),
    "nginx takes less": (
        nginx_has("client_max_body_size 67108864", "client_max_body_size 1m"), E, "body limits", "1048576", "67108864"
    ),
    "nginx takes more": (
        nginx_has("client_max_body_size 67108864", "client_max_body_size 0"), W, "body limits", "67108864", "67108864"
    ),
    "nginx's own default": (
        nginx_has("client_max_body_size 67108864;", ""), E, "body limits", "client_max_body_size 1048576", "67108864"
    ),
    "less in hand than a body": (
        server(max_bytes_in_hand=1_000_000), E, "body limits", "1000000", "server.max_bytes_in_hand to 67108864"
    ),
    "table below body": (server(max_inflated_bytes=1000), W, "body limits", "1000", "server.max_body_bytes"),
    "one request is too large": (memory(300_000), E, "body limits", "307200000 bytes", "server.max_body_bytes"),
    "all requests are too large": (memory(900_000), W, "body limits", "2 workers", "server.max_bytes_in_hand to"),
    "nginx wants more files": (
        lambda found: replace(found, open_files=200, gunicorn={**found.gunicorn, "worker_connections": 50}),
        E, "open files", "limit 200", "LimitNOFILE",
    ),
    "more connections than files": (
        nginx_has("worker_connections ", "worker_connections 9"), E, "open files", "worker_rlimit_nofile", "LimitNOFILE"
    ),
    "few places": (server(max_requests_in_flight=5000), W, "open files", "max_conns of all places 100", "to 100"),
    "worker's connections": (
        gunicorn_has(worker_connections=10**6), E, "open files", "worker_connections 1000000", "gunicorn.conf.py"
    ),
    "short queue": (set_up_has(somaxconn=128), W, "listen queues", "somaxconn 128, backlog 4096", "sysctl -w"),
    "too many workers": (server(workers=5), W, "processors", "server.workers 5", "server.workers to 2"),
    "a small quota": (
        quota("100000 100000"), W, "processors", "server.workers 3, processors that this stack may use 1",
        "server.workers to 1",
    ),
    "idle processors": (set_up_has(processors=8), N, "processors", "may use 8", "server.workers to 8"),
    "OpenMP as it likes": (set_up_has(environ={}), W, "processors", "OMP_NUM_THREADS=(not set)", "supervisord.conf"),
    "many threads": (server(predict_threads=8), W, "processors", "2 x server.predict_threads 8 = 16", "to 2"),
    "BLAS threads": (
        lambda found: replace(found, environ={**found.environ, "OPENBLAS_NUM_THREADS": "8"}), W, "processors",
        "OPENBLAS_NUM_THREADS=8, server.workers 2, up to 16", "`environment=`",
    ),
    "many model processes": (
        lambda found: replace(
            found,
            settings=msgspec.structs.replace(found.settings, environments={"old": Environment("/old/python", 9)}),
        ), W, "processors", "9 processes", "[environments.old]",
    ),
    "killed stack": (
        does(lambda found: written(run(found) / "supervisord.pid", "999999")), N, "stale files", "supervisord.pid",
        "tableside run",
    ),
    "sockets of nobody": (old_socket, E, "stale files", "web.sock", "tableside stop"),
    "workers without supervisord": (workers_are({}, {}, supervisord=0), W, "stale files", "2 workers", "tableside run"),
    "old body": (
        does(lambda found: written(run(found) / "tmp/body/0000000001", changed_s=OLD_S)), W, "stale files", "1 files",
        "tmp/body",
    ),
    "requests in hand of another release": (
        does(lambda found: written(run(found) / "in_hand/requests.0", changed_s=OLD_S)), W, "stale files",
        "in_hand/requests.0", "Remove",
    ),
    "old draft of a key": (
        does(lambda found: written(run(found) / "admin.key.77.new", changed_s=OLD_S)), W, "stale files",
        "admin.key.77.new", "Remove",
    ),
    "draft of an upload": (does(old_draft), N, "stale files", ".publishing-0123", "rm -r"),
    "lost operation": (does(lost_operation), N, "stale files", "(publish)", "tableside operations"),
    "open run folder": (does(lambda found: run(found).chmod(0o755)), E, "file modes", "mode 755", "chmod 700"),
    "open admin key": (
        does(lambda found: (run(found) / "admin.key").chmod(0o644)), E, "file modes", "-rw-r--r--", "chmod 600"
    ),
    "open TLS key": (open_tls_key, E, "file modes", "mode 644", "chmod o-rwx"),
    "open keys file": (
        does(lambda found: written(found.settings.keys_path, '{"keys": []}', 0o640)), E, "file modes", "-rw-r-----",
        "chmod 600",
    ),
    "a version that others write": (
        does(lambda found: (models(found) / "iris/1/contract.json").chmod(0o666)), E, "file modes", "mode 666",
        "chmod o-w",
    ),
    "a repository that others write": (
        does(lambda found: models(found).chmod(0o777)), E, "file modes", "mode 777", "chmod o-w"
    ),
    "settings that others write": (
        does(lambda found: written(run(found).parent / "tableside.toml", "", 0o666)), E, "file modes", "tableside.toml",
        "chmod o-w",
    ),
    "exposed": (rendered(listen="0.0.0.0:8080"), E, "access", "0.0.0.0:8080", "server.open"),
    "open": (rendered(listen="0.0.0.0:8080", open=True), W, "access", "server.open = true", "server.require_keys"),
    "no key": (server(require_keys=True), E, "access", "0 valid", "tableside keys add"),
    "a key ends": (does(key_expires), W, "access", "UTC", "tableside keys add"),
    "a certificate ends": (with_certificate(timedelta(0)), W, "TLS", "now", "Renew"),
    "a certificate has ended": (with_certificate(timedelta(days=3)), E, "TLS", "now", "Renew"),
    "a certificate of later": (with_certificate(timedelta(days=-3)), E, "TLS", "now", "Renew"),
    "another key": (with_certificate(timedelta(0), other_key=True), E, "TLS", "MISMATCH", "belongs together"),
    "small disk": (
        lambda found: section(found, "log", max_bytes=2**60), W, "room", "GB", "log.max_bytes"
    ),
    "much too little memory": (
        lambda found: section(memory(1_000_000)(found), "server", max_bytes_in_hand=2**26, workers=40),
        W, "room", "1 GB", "server.workers",
    ),
    "a file of tomorrow": (
        does(lambda found: os.utime(models(found) / "iris/1/contract.json", (time.time() + 86400,) * 2)), W, "clock",
        "contract.json", "chrony",
    ),
    "a free clock": (set_up_has(clock_is_kept=False), N, "clock", "STA_UNSYNC", "chrony"),
    "a free clock and a key": (
        lambda found: replace(does(key_expires)(found), clock_is_kept=False), W, "clock", "STA_UNSYNC", "chrony"
    ),
    "another scikit-learn": (contract_says("scikit-learn", "0.24.2"), E, "libraries", "0.24.2", "tableside reload"),
    "another numpy": (
        contract_says("numpy", "1.19.5"), N, "libraries", "numpy 1.19.5 at publish", "Publish them again"
    ),
    "a wrong key of model.toml": (
        does(lambda found: written(models(found) / "iris/model.toml", "aliaces = 1\n")), E, "models", "aliaces",
        "model.toml",
    ),
    "an alias of nothing": (
        does(lambda found: written(models(found) / "iris/model.toml", "[aliases]\nstable = 7\n")), W, "models",
        "version 7", "model.toml",
    ),
    "a refused version": (refused_generation, E, "models", "row 3 is answered differently", "tableside reload"),
    "no contract": (
        does(lambda found: written(models(found) / "iris/1/contract.json", "{")), E, "models", "iris/1/contract.json",
        "tableside reload",
    ),
    "a changed contract": (
        does(lambda found: written(models(found) / "iris/1/checksums.sha256", "0  columns\n")), E, "models",
        "does not match checksums.sha256", "tableside reload",
    ),
    "no artifact": (
        does(lambda found: (models(found) / "iris/1/model.skops").unlink()), E, "models",
        "iris/1/model.skops is missing", "tableside reload",
    ),
    "served until the next restart": (
        workers_are({}, {"models": [status("READY", current=False)]}), E, "models", "is damaged", "tableside reload"
    ),
    "unavailable in one worker": (
        workers_are({}, {"models": [status("UNAVAILABLE")]}), E, "models", "damaged: model.skops", "tableside reload"
    ),
    "no repository": (does(lambda found: shutil.rmtree(models(found))), E, "models", "models", "repository.path"),
    "Python without checks": (
        lambda found: replace(found, environ={**found.environ, "PYTHONOPTIMIZE": "1"}), W, "Python", "=1",
        "PYTHONOPTIMIZE",
    ),
    "a worker is lost": (workers_are({}), W, "workers", "1 of server.workers 2", "tableside logs"),
    "no worker is ready": (
        workers_are({"ready": False, "missing": ["iris/1"]}, {"ready": False}), E, "workers", "0 of server.workers 2",
        "tableside logs",
    ),
    "two generations": (
        workers_are({}, {"generation": 2}), E, "workers", "generation 2: 1 workers", "tableside restart"
    ),
    "nobody watches": (workers_are({}, {}), W, "workers", "watch.lock is not locked", "tableside reload"),
    "a worker that cannot follow": (
        workers_are({"failure": "disk full"}, {}), E, "workers", "disk full", "Do what the message says"
    ),
    "another release": (workers_are({"version": "0.0.1"}, {}), W, "workers", "0.0.1", "tableside restart"),
    "a program that was stopped": (
        lambda found: replace(found, programs={"nginx": {"statename": "STOPPED", "stopwaitsecs": "45"}}),
        E, "workers", "STOPPED", "start 'nginx:*'",
    ),
    "drained": (
        lambda found: replace(does(lambda each: drained.drain(run(each)))(found), supervisord=1), N, "workers",
        "drained", "tableside resume",
    ),
    "settings changed since": (other_nginx, W, "settings", "9000", "signal HUP nginx"),
    "a setting is refused": (
        gunicorn_has(refused=["setting 'certfile' is refused: no TLS."]), E, "settings", "certfile", "gunicorn.conf.py"
    ),
    "no gunicorn settings": (
        set_up_has(gunicorn={}, gunicorn_problem="SyntaxError"), E, "settings", "SyntaxError", "gunicorn.conf.py"
    ),
    "nginx's file is damaged": (nginx_has("events {", "events"), W, "timeouts", "ValueError", "correct the file"),
}  # fmt: skip


@pytest.mark.parametrize("name", SEEDED)
def test_each_seeded_mistake_is_found(sound: SetUp, name: str) -> None:
    """The finding has the level, the area, the figures and what to change."""
    seed, level, about, figures, change = SEEDED[name]
    found = diagnosis.examine(seed(sound))
    assert any(
        each.level is level and each.about == about and figures in each.figures and change in each.change
        for each in found
    ), found
    assert all(each.title and each.consequence for each in found)


def test_nothing_is_found_where_nothing_is_wrong(sound: SetUp) -> None:
    """The set-up in which the mistakes are seeded has none, with and without nginx."""
    assert diagnosis.examine(sound) == []
    assert diagnosis.examine(replace(sound, nginx={})) == []
    written(run(sound) / layout.WEB_SOCKET)
    assert diagnosis.examine(sound) == []  # a stack that ends in order leaves it


def test_another_shell_changes_no_setting(sound: SetUp, monkeypatch: pytest.MonkeyPatch) -> None:
    """The doctor of a shell with other limits and another user does not say that nginx has other settings."""
    running = replace(sound, supervisord=1)
    for name, value in (("open_files", 4096), ("processors", 1)):
        monkeypatch.setattr(machine, name, lambda *_, value=value: value)
    monkeypatch.setattr(os, "geteuid", lambda: 1 if os.getuid() == 0 else 0)
    assert nginx.render(sound.settings) != sound.nginx[layout.DATA]
    assert [each for each in diagnosis.examine(running) if each.about == "settings"] == []


HOST = ("room", "open files", "listen queues", "processors", "clock")
"""Areas in which the machine that runs the tests may lack something; what is found there would be true."""


def test_the_shipped_set_up_has_no_mistake(shipped: SetUp) -> None:
    """Nothing is wrong with the settings, files and models as they are shipped, read for real."""
    found = diagnosis.examine(shipped)
    assert [each for each in found if each.about not in HOST] == []
    assert [each for each in found if each.level is Level.ERROR] == []
    assert shipped.gunicorn_problem == ""
    assert shipped.gunicorn["worker_class_str"] == "tableside.server.worker.TablesideWorker"
    assert set(shipped.programs) == {"sockets", "web", "nginx"}


def test_models_that_lack_the_same_library_are_one_finding(shipped: SetUp, monkeypatch: pytest.MonkeyPatch) -> None:
    """One note: nothing is wrong, so that the first start without the optional libraries prints no warning."""
    monkeypatch.setattr(integrity, "find_spec", lambda library: None)
    (found,) = (each for each in diagnosis.examine(shipped) if each.about == "libraries")
    assert found.level is Level.NOTE
    assert found.title == "slower backends compute some versions: breast-cancer/1, diabetes/1"
    assert found.figures == "treelite is not installed"
    assert "requirements/onnx.txt" in found.change


def test_gunicorns_own_variable_counts(shipped: SetUp, tmp_path: Path) -> None:
    """gunicorn.conf.py is read as gunicorn reads it, with GUNICORN_CMD_ARGS; a damaged file is told, not raised."""
    environ = {**shipped.environ, "GUNICORN_CMD_ARGS": "--graceful-timeout 7"}
    read, problem = set_up.read_gunicorn(environ)
    assert (read["graceful_timeout"], problem) == (7, "")
    broken = tmp_path / "gunicorn.conf.py"
    broken.write_text("workers = ((\n")
    read, problem = set_up.read_gunicorn(shipped.environ, broken)
    assert read == {}
    assert "SyntaxError" in problem


def test_the_command_says_what_to_change(sound: SetUp, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit status 1 with an error and 0 without; text and JSON have the same findings."""
    monkeypatch.setattr(diagnosis, "gather", lambda settings: replace(sound, settings=settings))
    monkeypatch.setattr("tableside.cli.doctor.load", lambda: sound.settings)
    clean = CliRunner().invoke(main, ["doctor"])
    assert (clean.exit_code, clean.stdout) == (0, "0 errors, 0 warnings, 0 notes\n")
    run(sound).chmod(0o755)
    told = CliRunner().invoke(main, ["doctor"])
    assert told.exit_code == 1
    assert "ERROR   file modes: the run folder is open to other users\n" in told.stdout
    assert f"        change  Run: chmod 700 {run(sound)}\n" in told.stdout
    machine_read = CliRunner().invoke(main, ["doctor", "--json"])
    content = json.loads(machine_read.stdout)
    assert (machine_read.exit_code, content["errors"], content["warnings"], content["notes"]) == (1, 1, 0, 0)
    assert msgspec.convert(content["findings"][0], Finding).about == "file modes"


def test_a_start_prints_lines_and_is_never_stopped(sound: SetUp, monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors and warnings are a line each, notes are none; a mistake of the doctor itself is a line too."""
    monkeypatch.setattr(diagnosis, "gather", lambda settings: replace(sound, clock_is_kept=False))
    assert diagnosis.start_lines(sound.settings) == ""
    run(sound).chmod(0o755)
    (line,) = diagnosis.start_lines(sound.settings).splitlines()
    assert line == (
        f"tableside: error: the run folder is open to other users ({run(sound)} has mode 755): every user of this host "
        f"can read it and act with it. Run: chmod 700 {run(sound)}"
    )
    monkeypatch.setattr(diagnosis, "gather", lambda settings: 1 / 0)
    assert "`tableside doctor` has failed: ZeroDivisionError" in diagnosis.start_lines(sound.settings)


def test_nginx_files_are_read_as_nginx_reads_them() -> None:
    """Quotes, comments and blocks; what is no configuration names its line."""
    text = "a \"x;{\" 'y'; # b c;\nd e~^f[.]$ {\n  g 1m30s;\n  h {} }\n"
    assert nginx_conf.parse(text.replace("h {}", "h;")) == (
        ("a", ("x;{", "y"), ()), ("d", ("e~^f[.]$",), (("g", ("1m30s",), ()), ("h", (), ()))),
    )  # fmt: skip
    assert (nginx_conf.seconds("1m30s"), nginx_conf.seconds("500ms"), nginx_conf.size_bytes("2M")) == (90, 0.5, 2 << 20)
    for wrong, line in (("a {\n b }", "line 2"), ("a;\n}", "line 2"), (";", "line 1"), ("a {", "ends within")):
        with pytest.raises(ValueError, match=line):
            nginx_conf.parse(wrong)
    for wrong in ("", "5 s", "x"):
        with pytest.raises(ValueError, match="is no"):
            nginx_conf.seconds(wrong)
