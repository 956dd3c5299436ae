"""Fixtures that start the real stack as `make run` does, on free ports and in a temporary folder."""

from __future__ import annotations

import json
import os
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from benchmarks.free_ports import free_port

if TYPE_CHECKING:
    from tests.e2e.browser import Window

PROJECT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
START_TIMEOUT_S = 400
LONGEST_FILES = ("test_docs_commands.py", "test_restarts.py", "test_environment_skew.py", "test_estimators.py")
SHARING = (
    "test_stack.py", "test_docs_page.py", "test_clients.py", "test_triton_client.py", "test_publish_to_stack.py",
    "test_openapi_stack.py", "test_status_page.py", "test_top.py",
)  # fmt: skip
"""The files that use `shared_stack`. They come last, so that it does not run beside the tests of other stacks."""
T = TypeVar("T")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest: one process runs all tests of a file, because they share a stack."""

    def place(item: pytest.Item) -> int:
        name = item.path.name
        if name in LONGEST_FILES:
            return LONGEST_FILES.index(name)
        return len(LONGEST_FILES) + (1 + SHARING.index(name) if name in SHARING else 0)

    items.sort(key=place)


def until(look: Callable[[], T], timeout_s: float = 120) -> T:
    """Call `look` until it returns something true, at most `timeout_s`. Return its last result, for an assertion."""
    give_up_at = time.monotonic() + timeout_s
    while not (found := look()) and time.monotonic() < give_up_at:
        time.sleep(0.05)
    return found


@dataclass
class Stack:
    """One running stack and its settings, as environment variables.

    project: the folder of the code that it runs. python: its interpreter; by default one whose path has a space.
    around: makes the command that starts it out of the plain one, for instance with other limits.
    tls: what the client trusts, for a stack that speaks TLS.
    """

    folder: Path
    environ: dict[str, str]
    process: subprocess.Popen[bytes] | None = None
    data: int = 0
    admin: int = 0
    output: list[str] = field(default_factory=list)
    project: Path = PROJECT
    python: Path | None = None
    around: Callable[[list[str]], list[str]] = list
    tls: ssl.SSLContext | None = None

    @property
    def run_dir(self) -> Path:
        return Path(self.environ["TABLESIDE__SERVER__RUN_DIR"])

    @property
    def key(self) -> str:
        return (self.run_dir / "admin.key").read_text().strip()

    def call(
        self, path: str, body: Any = None, *, admin: bool = False, method: str | None = None, headers: Any = None
    ) -> tuple[int, Any, Any]:
        """Send one request. Return its status, its body as JSON or text, and its headers."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        url = f"{'https' if self.tls else 'http'}://127.0.0.1:{self.admin if admin else self.data}{path}"
        request = urllib.request.Request(url, data=data, method=method, headers=headers or {})
        try:
            with urllib.request.urlopen(request, timeout=60, context=self.tls) as answer:
                return answer.status, _content(answer), answer.headers
        except urllib.error.HTTPError as error:
            return error.code, _content(error), error.headers

    def raw(self, url: str, data: bytes, headers: dict[str, str]) -> tuple[int, bytes, Any]:
        """POST these bytes. Return status, body and headers."""
        request = urllib.request.Request(url, data=data, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read(), answer.headers
        except urllib.error.HTTPError as error:
            return error.code, error.read(), error.headers

    def admin_call(self, path: str, method: str = "GET") -> Any:
        status, content, _ = self.call(path, method=method, admin=True, headers={"Authorization": f"Bearer {self.key}"})
        assert status == 200, content
        return content

    def ctl(self, *words: str) -> str:
        command = [str(BIN / "supervisorctl"), "-c", str(self.run_dir / "supervisorctl.conf"), *words]
        done = subprocess.run(command, cwd=PROJECT, env=self.environ, capture_output=True, text=True, timeout=600)
        return done.stdout + done.stderr

    def cli(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [str(BIN / "tableside"), *words]
        return subprocess.run(command, cwd=PROJECT, env=self.environ, capture_output=True, text=True, timeout=600)

    def call_elsewhere(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in another folder, in a shell that knows the run folder of the stack and no other setting."""
        environ = {name: value for name, value in self.environ.items() if not name.startswith("TABLESIDE")}
        environ["TABLESIDE__SERVER__RUN_DIR"] = str(self.run_dir)
        return subprocess.run(command, cwd=self.run_dir, env=environ, capture_output=True, text=True, timeout=600)

    def restart(self) -> None:
        """Replace the workers, and wait until the new ones serve."""
        done = self.cli("restart")
        assert done.returncode == 0, done.stderr + self.logs()

    def start(self) -> None:
        """Start the stack and wait until it is ready."""
        environment = self.folder / "environment"
        if not environment.exists():
            environment.symlink_to(BIN.parent)
        command = [str(self.python or environment / "bin" / "python"), "-m", "tableside.cli", "run"]
        with (self.folder / "run.out").open("wb") as log:
            self.process = subprocess.Popen(
                self.around(command), cwd=self.project, env=self.environ, stdout=log, stderr=log
            )
        self.wait_ready()

    def wait_ready(self) -> None:
        give_up_at = time.monotonic() + START_TIMEOUT_S
        while True:
            assert self.process is not None
            assert self.process.poll() is None, (self.folder / "run.out").read_text()
            try:
                if self.call("/v2/health/ready")[0] == 200:
                    return
            except OSError:
                pass
            assert time.monotonic() < give_up_at, self.logs()
            time.sleep(0.1)

    def wait_loaded(self) -> None:
        """Wait until no version is in the state LOADING."""
        give_up_at = time.monotonic() + START_TIMEOUT_S
        while any(
            v["state"] == "LOADING" for m in self.admin_call("/admin/api/models")["models"] for v in m["versions"]
        ):
            assert time.monotonic() < give_up_at, self.logs()
            time.sleep(0.2)

    def logs(self, run_dir: Path | None = None) -> str:
        """Return the end of each log file. run_dir: where this process sees the run folder, if it is elsewhere."""
        logs = sorted(((run_dir or self.run_dir) / "log").glob("*.log"))
        return "\n".join(f"== {p}\n{p.read_text()[-4000:]}" for p in logs)

    def stop(self) -> None:
        done = self.cli("stop")
        assert done.returncode == 0, done.stderr
        if self.process is not None:
            self.process.wait(timeout=200)


def _content(answer: Any) -> Any:
    text = answer.read().decode()
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


@pytest.fixture(scope="session")
def published(repository: Path) -> Path:
    """The repository that each stack gets a copy of: the example models."""
    return repository


@pytest.fixture(scope="session")
def make_stack(published: Path) -> Iterator[Callable[..., Stack]]:
    """Return a function that starts a stack on a copy of the example models. Keywords are settings of the stack.

    Every stack is stopped at the end of the session.
    """
    stacks: list[Stack] = []

    def make(*, start: bool = True, **more: str) -> Stack:
        folder = Path(tempfile.mkdtemp(prefix="t s-"))  # a path with a space
        shutil.copytree(published, folder / "models")
        stack = Stack(folder, {**os.environ}, data=free_port(), admin=free_port())
        stack.environ |= {
            "TABLESIDE__SERVER__LISTEN": f"127.0.0.1:{stack.data}",
            "TABLESIDE__SERVER__ADMIN_LISTEN": f"127.0.0.1:{stack.admin}",
            "TABLESIDE__SERVER__RUN_DIR": str(folder / "run"),
            "TABLESIDE__REPOSITORY__PATH": str(folder / "models"),
            "TABLESIDE__REPOSITORY__CONSENT_FILE": str(folder / "consent.jsonl"),
            "TABLESIDE__SERVER__WORKERS": "2",
            **more,
        }
        stacks.append(stack)
        if start:
            stack.start()
        return stack

    yield make
    for stack in stacks:
        if stack.process is not None and stack.process.poll() is None:
            stack.stop()
        shutil.rmtree(stack.folder, ignore_errors=True)


@pytest.fixture(scope="module")
def stack(make_stack: Callable[..., Stack]) -> Iterator[Stack]:
    """A stack for the tests of one module; it is stopped after them."""
    started = make_stack()
    yield started
    started.stop()


@pytest.fixture(scope="session")
def shared_stack(make_stack: Callable[..., Stack]) -> Stack:
    """A stack with the default settings for the modules in SHARING, which leave the example models as they were.

    A module may publish models of its own, under names that no other one uses, and none that stays unavailable.
    """
    return make_stack()


@pytest.fixture
def window() -> Iterator[Window]:
    """A fresh browser."""
    from tests.e2e.browser import open_window

    yield from open_window()
