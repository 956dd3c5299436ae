"""The stack of a soak: starts it as an operator does, and finds its processes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from benchmarks.free_ports import free_port
from benchmarks.processes import clean_environ

PROJECT = Path(__file__).resolve().parents[2]
COPIED = (
    "app",
    "blueprints",
    "client",
    "deploy",
    "src",
    "training",
    "gunicorn.conf.py",
    "supervisord.conf",
    "wsgi.py",
    "pyproject.toml",
)
"""What a release folder holds; its `.venv` is a link to the interpreter's environment."""
START_LIMIT_S = 300.0


class SoakFailed(Exception):
    """The stack did not do what an event waits for. The message says what."""


class Stack:
    """A stack in `folder` that serves `models`. Its code is a release folder behind the link `current`."""

    def __init__(self, folder: Path, models: Path, workers: int = 2, **settings: str) -> None:
        self.folder, self.workers = folder, workers
        self.port, self.admin_port = free_port(), free_port()
        self.run_dir = folder / "run"
        self.current = folder / "current"
        self._releases = 0
        self._process: subprocess.Popen[bytes] | None = None
        self.environ = clean_environ(
            TABLESIDE__SERVER__LISTEN=f"127.0.0.1:{self.port}",
            TABLESIDE__SERVER__ADMIN_LISTEN=f"127.0.0.1:{self.admin_port}",
            TABLESIDE__SERVER__RUN_DIR=str(self.run_dir),
            TABLESIDE__SERVER__WORKERS=str(workers),
            TABLESIDE__REPOSITORY__PATH=str(models),
            **settings,
        )
        self.flip(self.new_release())

    def new_release(self) -> Path:
        """Copy the code into a new release folder and return it."""
        self._releases += 1
        release = self.folder / f"release-{self._releases}"
        release.mkdir(parents=True)
        for name in COPIED:
            source, skip = PROJECT / name, shutil.ignore_patterns("__pycache__", "*.egg-info")
            if source.is_dir():
                shutil.copytree(source, release / name, symlinks=True, ignore=skip)
            else:
                shutil.copy(source, release / name)
        (release / ".venv").symlink_to(Path(sys.executable).parents[1])
        return release

    def flip(self, release: Path) -> None:
        """Let `current` point to the release, in one step."""
        link = self.folder / "current.new"
        link.symlink_to(release)
        link.replace(self.current)

    def start(self, limit_s: float = START_LIMIT_S) -> float:
        """Run `tableside run` and wait until the stack is ready. Returns the seconds that took.

        Raises SoakFailed after `limit_s`, and at once with what was printed if `tableside run` ends.
        """
        began_s, output = time.monotonic(), self.folder / "run.out"
        with output.open("ab") as log:
            process = self._process = subprocess.Popen(
                self._command("run"), cwd=self.current, env=self._environ(), stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip

        def is_up() -> bool:
            if process.poll() is not None:
                raise SoakFailed(f"tableside run has ended with status {process.returncode}:\n{output.read_text()}")
            return self.is_ready()

        self.wait(is_up, "is ready", limit_s)
        return time.monotonic() - began_s

    def stop(self) -> None:
        """Run `tableside stop` and wait for the end. Raises SoakFailed if it fails."""
        done = self.tableside("stop")
        if done.returncode:
            raise SoakFailed(f"tableside stop: {done.stderr}")
        if self._process is not None:
            self._process.wait(60)

    def tableside(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the CLI."""
        return subprocess.run(
            self._command(*words), cwd=self.current, env=self._environ(), capture_output=True, text=True, timeout=600
        )

    def supervisorctl(self, *words: str) -> str:
        """Run `supervisorctl` and return what it prints. Raises SoakFailed if it fails."""
        command = [
            str(self.current / ".venv" / "bin" / "supervisorctl"),
            "-c",
            str(self.run_dir / "supervisorctl.conf"),
            *words,
        ]
        done = subprocess.run(
            command, cwd=self.current, env=self._environ(), capture_output=True, text=True, timeout=600
        )
        if done.returncode:
            raise SoakFailed(f"supervisorctl {' '.join(words)}: {done.stdout}{done.stderr}")
        return done.stdout

    def wait(self, look: Callable[[], object], what: str, limit_s: float = 120.0) -> None:
        """Wait until `look` returns something true. Raises SoakFailed after `limit_s`."""
        give_up_at_s = time.monotonic() + limit_s
        while not look():
            if time.monotonic() > give_up_at_s:
                raise SoakFailed(f"after {limit_s:g} s the stack still does not do this: {what}")
            time.sleep(0.2)

    def is_ready(self) -> bool:
        """Return whether readiness answers 200."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/v2/health/ready", timeout=30) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def ready_workers(self) -> set[int]:
        """Return the pids of the workers that have loaded every model; an empty set if the stack does not answer."""
        try:
            key = (self.run_dir / "admin.key").read_text().strip()
            request = urllib.request.Request(
                f"http://127.0.0.1:{self.admin_port}/admin/api/workers", headers={"Authorization": f"Bearer {key}"}
            )
            with urllib.request.urlopen(request, timeout=30) as answer:
                workers = json.load(answer)["workers"]
        except (OSError, urllib.error.URLError, ValueError):
            return set()
        return {worker["pid"] for worker in workers if worker.get("ready")}

    def master(self) -> int:
        """Return the pid of the gunicorn master: the parent of the workers. Raises SoakFailed if none serves."""
        for worker in self.ready_workers():
            return int(Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[1])
        raise SoakFailed("no worker of the stack is ready")

    def pid_of(self, program: str) -> int:
        """Return the pid of a program of supervisor, 0 if it does not run."""
        text = self.supervisorctl("pid", program).strip()
        return int(text) if text.isdigit() else 0

    def pid_in(self, file: str) -> int:
        """Return the pid in a file of the run folder."""
        return int((self.run_dir / file).read_text())

    def _python(self) -> str:
        return str(self.current / ".venv" / "bin" / "python")

    def _command(self, *words: str) -> list[str]:
        return [self._python(), "-m", "tableside.cli", *words]

    def _environ(self) -> dict[str, str]:
        return {**self.environ, "PYTHONPATH": str(self.current / "src"), "PWD": str(self.current)}
