"""Real environments with other releases of scikit-learn, made once and kept in the user's cache folder.

Each is named after its interpreter and the hash of its locked requirements (requirements/environments/), so that a
changed lock makes a new one. An installation that fails fails the test.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tableside import settings as app_settings
from tableside.model_process import known_environments, venvs

PROJECT = Path(__file__).resolve().parents[1]
LOCKS = PROJECT / "requirements" / "environments"
RELEASES = {
    "1.0.2": ((3, 8), (3, 10)), "1.2.2": ((3, 8), (3, 11)), "1.4.2": ((3, 9), (3, 12)), "1.6.1": ((3, 9), (3, 13)),
    "1.7.2": ((3, 10), (3, 14)),
}  # fmt: skip
OWN = "own"
"""Stands for the release that Tableside itself is locked to. Newer Pythons get newer scipy and numpy with it."""
"""Release of scikit-learn: the first and the last Python that it has wheels for."""
ALL = "TABLESIDE_TEST_ALL_ENVIRONMENTS"
"""Environment variable: if set, every interpreter that is found is used, with each release that it has wheels for."""
PYTHONS = "TABLESIDE_TEST_PYTHONS"
"""Environment variable: folders to search for python3.8 to python3.14 besides PATH, separated by colons."""


@dataclass(frozen=True)
class TrainingEnvironment:
    """An interpreter and a release of scikit-learn. `python` makes the environment when it is first asked for."""

    interpreter: str
    python_version: str
    release: str

    @property
    def name(self) -> str:
        return f"scikit-learn-{self.release}-python{self.python_version}"

    def python(self) -> Path:
        """The interpreter of the environment, which is made if it is not there yet."""
        lock = LOCKS / f"scikit-learn-{self.release}.txt" if self.release != OWN else LOCKS.parent / "base.txt"
        digest = hashlib.sha256(lock.read_bytes() + self.interpreter.encode()).hexdigest()[:8]
        return Path(_made(self.interpreter, lock, f"sklearn-{self.release}-py{self.python_version}-{digest}"))

    def run(self, *words: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run this environment's Python with `training/` importable."""
        environ = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "TABLESIDE"))}
        environ |= {"PYTHONPATH": str(PROJECT / "training"), "PYTHONDONTWRITEBYTECODE": "1"}
        command = [str(self.python()), *map(str, words)]
        return subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True, timeout=240)


def cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "tableside" / "test-environments"


def _made(interpreter: str, lock: Path, name: str) -> str:
    """Make an environment from a locked file with `tableside env create`, unless it is there; others wait meanwhile."""
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    settings = app_settings.load({"TABLESIDE__SERVER__ENVIRONMENTS_DIR": str(folder)})
    with (folder / f"{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        known = known_environments.known(settings)
        if name in known:
            return known[name].python
        shutil.rmtree(folder / name, ignore_errors=True)
        return str(venvs.create(settings, name, lock, interpreter, lambda step: None))


@cache
def interpreters() -> dict[str, str]:
    """Version (`3.11`) to the path of each CPython from 3.8 to 3.14 that runs here: on PATH, and in PYTHONS."""
    folders = [*os.environ.get("PATH", "").split(os.pathsep), *os.environ.get(PYTHONS, "").split(os.pathsep)]
    found = {".".join(map(str, sys.version_info[:2])): sys.executable}
    for minor in range(8, 15):
        for folder in filter(None, folders):
            candidate = Path(folder) / f"python3.{minor}"
            if f"3.{minor}" not in found and os.access(candidate, os.X_OK) and _runs(candidate, f"3.{minor}"):
                found[f"3.{minor}"] = str(candidate)
    return found


def _runs(candidate: Path, version: str) -> bool:
    code = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"
    done = subprocess.run([str(candidate), "-c", code], capture_output=True, text=True, timeout=60)
    return done.returncode == 0 and done.stdout.strip() == version


def chosen() -> list[TrainingEnvironment]:
    """The environments to test with: two at most for the Python that runs, or all of them (see ALL)."""
    running = ".".join(map(str, sys.version_info[:2]))
    if os.environ.get(ALL):
        return [_environment(version, release) for version in interpreters() for release in releases_for(version)]
    releases = [release for release in releases_for(running) if release in ("1.2.2", "1.6.1")] or releases_for(running)
    return [_environment(running, release) for release in releases[:2]]


def own_release() -> list[TrainingEnvironment]:
    """With ALL, Tableside's own release of scikit-learn with each other Python that Tableside runs on; else none."""
    running = ".".join(map(str, sys.version_info[:2]))
    others = [version for version in interpreters() if int(version.partition(".")[2]) >= 11 and version != running]
    return [_environment(version, OWN) for version in others] if os.environ.get(ALL) else []


def oldest() -> TrainingEnvironment:
    """The environment with the oldest release that has wheels for the Python that runs."""
    running = ".".join(map(str, sys.version_info[:2]))
    return _environment(running, releases_for(running)[0])


def one_of_each_release() -> list[TrainingEnvironment]:
    """Of the chosen environments one for each release: that with the oldest Python."""
    found: dict[str, TrainingEnvironment] = {}
    for each in sorted(chosen(), key=lambda each: [int(part) for part in each.python_version.split(".")]):
        found.setdefault(each.release, each)
    return [found[release] for release in RELEASES if release in found]


def _environment(version: str, release: str) -> TrainingEnvironment:
    return TrainingEnvironment(interpreters()[version], version, release)


def releases_for(version: str) -> list[str]:
    """The releases that have wheels for a Python such as `3.11`."""
    major, minor = (int(part) for part in re.findall(r"\d+", version))
    return [release for release, (first, last) in RELEASES.items() if first <= (major, minor) <= last]
