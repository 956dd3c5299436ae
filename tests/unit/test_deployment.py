"""Starting and stopping a stack: what is checked first, which files are written, how sockets are passed on."""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks.free_ports import free_port
from tableside import machine
from tableside import settings as app_settings
from tableside.deployment import banner, launch, layout, nginx, running_stack, socket_holder, stopping
from tableside.errors import StackError
from tableside.process.instance_names import RUN_DIR
from tableside.settings import Settings
from tests.fakes import numbers, sum_contract

pytestmark = pytest.mark.no_greenlets

Load = Callable[..., Settings]


def free_address() -> str:
    return f"127.0.0.1:{free_port()}"


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder with a short path. pytest's own are too long for a run folder: the path of a Unix socket has a limit."""
    with tempfile.TemporaryDirectory(prefix="ts-") as folder:
        yield Path(folder)


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Return settings for a stack in the test's folder, on free ports and with an empty repository; more by keyword."""
    (tmp_path / "models").mkdir()

    def make(**more: str) -> Settings:
        return app_settings.load(
            {
                "TABLESIDE__SERVER__LISTEN": free_address(),
                "TABLESIDE__SERVER__ADMIN_LISTEN": free_address(),
                "TABLESIDE__SERVER__RUN_DIR": str(tmp_path / "run"),
                "TABLESIDE__REPOSITORY__PATH": str(tmp_path / "models"),
                **more,
            }
        )

    return make


def program(folder: Path, name: str, script: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_a_missing_repository_stops_the_start(load: Load, tmp_path: Path) -> None:
    """Without the repository's folder nothing is started; the message names setting, path and command."""
    with pytest.raises(StackError) as caught:
        launch.prepare(load(TABLESIDE__REPOSITORY__PATH=str(tmp_path / "none")))
    assert str(caught.value).startswith(f"repository.path: no folder {tmp_path / 'none'};")
    assert "tableside publish" in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_long_run_folder_stops_the_start(load: Load, tmp_path: Path) -> None:
    """A run folder too long for the unix sockets in it is rejected with the limit, before it is created."""
    long = tmp_path / ("x" * layout.MAX_RUN_DIR_BYTES)
    with pytest.raises(StackError, match=f"longer than {layout.MAX_RUN_DIR_BYTES} bytes"):
        launch.prepare(load(TABLESIDE__SERVER__RUN_DIR=str(long)))
    assert not long.exists()


def test_a_run_folder_that_cannot_be_created_is_named(load: Load, tmp_path: Path) -> None:
    """If a file is in the way, the message has the setting, the path and the system's reason."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StackError, match="server.run_dir: cannot create .*file/run: Not a directory"):
        launch.prepare(load(TABLESIDE__SERVER__RUN_DIR=str(tmp_path / "file" / "run")))


@pytest.mark.parametrize("setting", ["listen", "admin_listen"])
def test_a_port_in_use_stops_the_start(load: Load, setting: str) -> None:
    """A port that another program listens on is named with its setting and the system's reason."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(StackError) as caught:
            launch.prepare(load(**{f"TABLESIDE__SERVER__{setting.upper()}": address}))
    assert str(caught.value) == f"server.{setting}: cannot listen on {address}: address already in use"


@pytest.mark.processes
def test_a_run_folder_in_use_stops_the_start(load: Load, tmp_path: Path) -> None:
    """While the pid in supervisord.pid belongs to a supervisor, a second stack is rejected with that pid."""
    (tmp_path / "run").mkdir()
    command = [sys.executable, "-c", "import sys; sys.stdin.read()", "supervisord"]
    environ = {**os.environ, RUN_DIR: str(tmp_path / "run")}
    with subprocess.Popen(command, stdin=subprocess.PIPE, env=environ) as process:
        (tmp_path / "run" / "supervisord.pid").write_text(f"{process.pid}\n")
        while running_stack.supervisor_pid(tmp_path / "run") != process.pid:  # its command line is empty for a moment
            assert process.poll() is None
        with pytest.raises(StackError) as caught:
            launch.prepare(load())
        process.communicate()
    assert f"(supervisord pid {process.pid})" in str(caught.value)
    assert "tableside stop" in str(caught.value)


def test_a_prepared_run_folder_is_private_and_has_nothing_stale(load: Load, tmp_path: Path) -> None:
    """`prepare` creates the folders and the admin key, mode 0700, and removes sockets and pids of an earlier stack."""
    run_dir = tmp_path / "run"
    (run_dir / "metrics").mkdir(parents=True)
    for stale in ("web.sock", "nginx.pid", "metrics/old.db"):
        (run_dir / stale).write_text("")
    launch.prepare(load())
    assert stat.S_IMODE(run_dir.stat().st_mode) == 0o700
    assert sorted(path.name for path in run_dir.iterdir()) == [
        "admin.key", "generations", "lame_duck.lock", "log", "metrics", "model_programs.conf", "stack.json",
        "supervisorctl.conf", "tmp", "worker_slots",
    ]  # fmt: skip
    assert list((run_dir / "metrics").iterdir()) == []


@pytest.mark.processes
def test_a_supervisord_of_something_else_is_no_running_stack(load: Load, tmp_path: Path) -> None:
    """A pid file from another container can have the pid of any supervisord. Without this run folder it does not count.

    `stop` therefore never signals it.
    """
    (tmp_path / "run").mkdir()
    command = [sys.executable, "-c", "import sys; print(flush=True); sys.stdin.read()", "supervisord"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        (tmp_path / "run" / "supervisord.pid").write_text(f"{process.pid}\n")
        assert running_stack.supervisor_pid(tmp_path / "run") == 0
        assert stopping.stop(load()) == 0
        assert process.poll() is None
        process.communicate()


@pytest.mark.parametrize("content", ["", "soon", "own"])
def test_a_stale_pid_file_is_no_running_stack(tmp_path: Path, content: str) -> None:
    """A pid file that is empty, unreadable, or names another program (here: this one) does not count."""
    assert running_stack.supervisor_pid(tmp_path) == 0
    (tmp_path / "supervisord.pid").write_text(str(os.getpid()) if content == "own" else content)
    assert running_stack.supervisor_pid(tmp_path) == 0


def test_stop_without_a_stack_is_a_success(load: Load, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`stop` returns 0 at once if nothing runs, and names the run folder."""
    assert stopping.stop(load()) == 0
    assert capsys.readouterr().err == f"tableside: no stack runs in {tmp_path / 'run'}\n"


def test_the_admin_key_is_private_and_kept(tmp_path: Path) -> None:
    """The key has 256 bits, its file is readable by its owner only, and a second start does not change it."""
    path = launch.make_key(tmp_path)
    key = path.read_text()
    assert len(key.strip()) >= 43  # 32 bytes in base64
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert launch.make_key(tmp_path).read_text() == key


def test_nginx_must_exist_only_if_the_setting_says_so(load: Load, tmp_path: Path) -> None:
    """`off` never uses nginx, `on` raises without it, `auto` uses it if it is installed."""
    without = {"PATH": str(tmp_path / "empty")}
    program(tmp_path / "bin", "nginx", "true")
    with_nginx = {"PATH": str(tmp_path / "bin")}
    assert layout.find_nginx(with_nginx) == str(tmp_path / "bin" / "nginx")
    assert layout.uses_nginx(load(), with_nginx)
    assert not layout.uses_nginx(load(TABLESIDE__SERVER__NGINX="off"), with_nginx)
    if layout.find_nginx(without) is None:  # a machine without nginx in /usr/sbin
        assert not layout.uses_nginx(load(), without)
        with pytest.raises(StackError, match="server.nginx is 'on' but nginx is not installed"):
            layout.uses_nginx(load(TABLESIDE__SERVER__NGINX="on"), without)


def test_programs_get_one_thread_per_library(load: Load, tmp_path: Path) -> None:
    """The environment keeps the caller's variables, limits numeric libraries and holds the stack's paths."""
    environ = layout.environment(load(TABLESIDE__SERVER__NGINX="off"), {"HOME": "/home/x", "OMP_NUM_THREADS": "8"})
    assert environ["HOME"] == "/home/x"
    assert {environ[f"{library}_NUM_THREADS"] for library in ("OMP", "OPENBLAS", "MKL", "NUMEXPR")} == {"1"}
    assert environ["TABLESIDE_RUN_DIR"] == str(tmp_path / "run")
    assert environ["TABLESIDE_NGINX"] == "false"


def test_nginx_is_configured_from_the_settings(load: Load) -> None:
    """Addresses (IPv6 in brackets), limits and timeouts of the settings are in the configuration."""
    settings = load(
        TABLESIDE__SERVER__LISTEN="[::1]:9000",
        TABLESIDE__SERVER__MAX_BODY_BYTES="12345",
        TABLESIDE__SERVER__MAX_REQUESTS_IN_FLIGHT="77",
        TABLESIDE__REPOSITORY__LOAD_TIMEOUT_S="30",
    )
    text = nginx.render(settings)
    control = nginx.render(settings, layout.ADMIN)
    assert "listen [::1]:9000 backlog=4096;" in text
    assert f"listen {settings.server.admin_listen} backlog=4096;" in control
    assert settings.server.admin_listen not in text, "each plane has an nginx of its own"
    assert "worker_processes 1;" in control
    assert "client_max_body_size 12345;" in text
    assert sum(map(int, re.findall(r"max_conns=(\d+);", text))) == 77
    assert "proxy_read_timeout 90s;" in control
    assert text.count(f"server unix:{layout.WEB_SOCKET} ") == nginx.IDLE_CONNECTIONS + 3
    assert ("user root;" in text) == (os.geteuid() == 0)
    assert "{{" not in text
    assert "{%" not in text


@pytest.mark.parametrize("one_in", ["0", "1", "7"])
@pytest.mark.parametrize("cpu_max", ["100000 100000", "max 100000"])
def test_the_real_nginx_accepts_the_configuration(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_in: str, cpu_max: str
) -> None:
    """With one process and with several, and with all, some and no lines in the access log."""
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/cpu.max").write_text(cpu_max)
    monkeypatch.setenv(machine.CGROUP_ROOT, str(tmp_path))
    program_path = layout.find_nginx(os.environ)
    assert program_path
    text = nginx.write(load(TABLESIDE__LOG__ACCESS_ONE_IN=one_in), program_path).read_text()
    assert ("if=$is_logged" in text) == (one_in != "1")
    assert ("split_clients" in text) == (one_in == "7")
    assert ("zone web " in text) == (machine.processors() > 1)


@pytest.mark.parametrize("requests", [1, 2, 34, 35, 36, 2048])
def test_the_places_of_requests_are_divided(requests: int) -> None:
    """The lines of the upstream have as many places together as the setting says, and about the same each."""
    shares = nginx.places(requests)
    assert sum(shares) == requests
    assert len(shares) <= nginx.IDLE_CONNECTIONS + 3
    assert max(shares) - min(shares) <= 1
    assert min(shares) >= 1, "0 would mean no limit"


def test_each_error_of_nginx_is_an_error_object(load: Load) -> None:
    """Every error page returns JSON with the status, a title, a detail without quotes, and the request id."""
    text = nginx.render(load(TABLESIDE__SERVER__MAX_BODY_BYTES="12345"))
    answering = text[text.rindex("server {") :]
    returned = [line.strip() for line in answering.splitlines() if line.strip().startswith("return ")]
    assert len(returned) == 15
    for line in returned:
        _, status, content = line.split(" ", 2)
        error = json.loads(content.removesuffix(";").strip("'"))
        assert (error["status"], error["type"], error["instance"]) == (int(status), "about:blank", "$rid")
        assert error["error"] == error["detail"]
        assert error.get("max_bytes") == (12345 if status == "413" else None)


def test_a_configuration_that_nginx_rejects_is_not_used(load: Load, tmp_path: Path) -> None:
    """StackError holds nginx's first line; the configuration in use and its path stay as they were."""
    settings = load()
    good = program(tmp_path / "bin", "nginx", "exit 0")
    path = nginx.write(settings, str(good))
    used = path.read_text()
    assert path == tmp_path / "run" / "nginx.conf"
    bad = program(tmp_path / "bin", "bad-nginx", 'echo "nginx: [emerg] no such directive" >&2; echo more >&2; exit 1')
    with pytest.raises(StackError) as caught:
        nginx.write(load(TABLESIDE__SERVER__MAX_BODY_BYTES="1"), str(bad))
    assert str(caught.value).endswith("nginx.new: nginx: [emerg] no such directive")
    assert path.read_text() == used
    silent = program(tmp_path / "bin", "silent-nginx", "exit 1")
    with pytest.raises(StackError, match="no message"):
        nginx.write(settings, str(silent))


def test_gunicorn_listens_on_unix_sockets_behind_nginx() -> None:
    """The data plane comes first and the control plane second, on unix sockets behind nginx, else on TCP."""
    descriptors = {layout.DATA: 3, layout.ADMIN: 4, layout.WEB_SOCKET: 5, layout.CONTROL_SOCKET: 6}
    assert socket_holder.for_gunicorn(descriptors, behind_nginx=True) == [5, 6]
    assert socket_holder.for_gunicorn(descriptors, behind_nginx=False) == [3, 4]


def test_without_a_socket_holder_fetch_gives_up(tmp_path: Path) -> None:
    """`fetch` raises TimeoutError with the run folder and the log to read."""
    with pytest.raises(TimeoutError, match=r"no socket holder in .* answered within 0 s; see log/sockets.log there"):
        socket_holder.fetch(tmp_path, timeout_s=0)


def test_bound_sockets_listen_and_are_private(load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both addresses and both unix sockets queue connections; a stale socket file is replaced, mode 0600."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / layout.WEB_SOCKET).write_text("stale")
    settings = load()
    sockets = socket_holder.bind(settings)
    try:
        assert set(sockets) == {layout.DATA, layout.ADMIN, layout.WEB_SOCKET, layout.CONTROL_SOCKET}
        for address in layout.addresses(settings).values():
            socket.create_connection(address, timeout=5).close()
        for name in (layout.WEB_SOCKET, layout.CONTROL_SOCKET):
            assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
        assert not any(listener.getblocking() for listener in sockets.values())
        with pytest.raises(OSError, match="in use"):
            socket_holder.bind(settings)
    finally:
        for listener in sockets.values():
            listener.close()


@pytest.mark.processes
def test_holders_pass_the_same_sockets_on(load: Load, tmp_path: Path) -> None:
    """Any process gets the sockets from a holder; a second holder takes them over instead of binding new ones."""
    settings = load()
    (tmp_path / "run").mkdir()
    environ = layout.environment(settings, {**os.environ, "TABLESIDE__SERVER__LISTEN": settings.server.listen})
    environ["TABLESIDE__SERVER__ADMIN_LISTEN"] = settings.server.admin_listen

    def start(number: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tableside.deployment.socket_holder", str(number)]
        return subprocess.Popen(command, env=environ, cwd=tmp_path)

    def inodes() -> dict[str, int]:
        descriptors = socket_holder.fetch(tmp_path / "run")
        found = {name: os.fstat(descriptor).st_ino for name, descriptor in descriptors.items()}
        for descriptor in descriptors.values():
            os.close(descriptor)
        return found

    first = start(0)
    try:
        bound = inodes()
        second = start(1)
        try:
            socket_file = tmp_path / "run" / "sockets-1.sock"
            while not socket_file.exists():
                assert second.poll() is None
            first.kill()
            first.wait(10)
            assert inodes() == bound
        finally:
            second.kill()
            second.wait(10)
    finally:
        first.kill()
        first.wait(10)


@pytest.mark.processes
def test_descriptors_are_renumbered_and_inherited(tmp_path: Path) -> None:
    """`pass_on` puts the descriptors at 3, 4, ... in their order, inheritable, and closes the ones above."""
    code = (
        "import os; from tableside.deployment.socket_holder import pass_on; "
        "files = [os.open(f'{name}', os.O_RDWR | os.O_CREAT) for name in 'abc']; pass_on([files[1], files[0]], 3); "
        "print(*(os.path.basename(os.readlink(f'/proc/self/fd/{fd}')) for fd in (3, 4)), "
        "os.get_inheritable(3), os.path.exists(f'/proc/self/fd/{files[2]}'))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["b", "a", "True", "False"]


def test_the_banner_names_addresses_key_and_models(load: Load, tmp_path: Path) -> None:
    """The banner has both addresses, the key's file, the reason why nginx is missing, and a problem if there is one."""
    settings = load(TABLESIDE__SERVER__NGINX="off")
    text = banner.text(settings, behind_nginx=False)
    assert "Tableside is ready." in text
    assert f"http://{settings.server.listen}/v2   answered by gunicorn without nginx (server.nginx is off)" in text
    assert f"key in {tmp_path / 'run' / 'admin.key'}" in text
    assert "none yet" in text
    assert "curl" not in text, "without a model there is nothing to try"
    assert "answered by nginx," in banner.text(load(), behind_nginx=True)
    assert "nginx is not installed" in banner.text(load(), behind_nginx=False)
    assert "/docs\n" in text
    assert "/docs" not in banner.text(load(TABLESIDE__SERVER__DOCS="false"), behind_nginx=True)
    assert "has started but is not ready: no model" in banner.text(settings, behind_nginx=True, problem="no model")


def test_a_curl_command_survives_the_shell() -> None:
    """The body is one shell word with the first golden row: by name for a frame, by position for a matrix."""
    frame = sum_contract(numbers("it's", "b", form="frame"))
    words = shlex.split(banner.curl_line(frame, "127.0.0.1:8080"))
    assert words[:3] == ["curl", "-s", "http://127.0.0.1:8080/v1/models/sums:predict"]
    assert json.loads(words[-1]) == {"instances": [{"it's": 1.0, "b": 2.0}]}
    assert banner.example_body(sum_contract()) == {"instances": [[1.0, 2.0]]}
