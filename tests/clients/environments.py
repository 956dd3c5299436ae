"""A locked environment for each real client, made once and kept in the user's cache folder.

The requirements of the clients exclude each other. Each is locked with hashes in requirements/clients/ (Python) or in
tests/clients/node/ (npm). An environment is named after the hash of its lock, so that a changed lock makes a new one.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.training_environments import PROJECT, cache_folder

LOCKS = PROJECT / "requirements" / "clients"
NODE = PROJECT / "tests" / "clients" / "node"
INSTALL_S = 900


class NotInstalled(Exception):
    """A client cannot be installed on this machine; the text says why."""


def python(name: str) -> Path:
    """Return the interpreter of the environment of requirements/clients/NAME.txt. Raises NotInstalled."""
    lock = LOCKS / f"{name}.txt"
    key = hashlib.sha256(lock.read_bytes() + sys.version.encode()).hexdigest()[:8]
    folder = _made(f"client-{name}-{key}", lambda folder: _make_python(folder, lock))
    return folder / "bin" / "python"


def node() -> Path:
    """Return a folder with the packages of tests/clients/node/ in node_modules. Raises NotInstalled."""
    if shutil.which("npm") is None:
        raise NotInstalled("there is no npm on PATH")
    digest = hashlib.sha256((NODE / "package-lock.json").read_bytes()).hexdigest()[:8]
    return _made(f"client-node-{digest}", _make_node)


def _made(name: str, make: Callable[[Path], None]) -> Path:
    folder = cache_folder() / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if not (folder / ".complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            make(folder)
            (folder / ".complete").touch()
    return folder


def _make_python(folder: Path, lock: Path) -> None:
    _run([sys.executable, "-m", "venv", str(folder)])
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _run([*pip, "--require-hashes", "--no-deps", "--only-binary", ":all:", "-r", str(lock)])


def _make_node(folder: Path) -> None:
    folder.mkdir()
    for name in ("package.json", "package-lock.json"):
        shutil.copy(NODE / name, folder)
    _run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], folder)


def _run(command: Sequence[str], cwd: Path | None = None) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=INSTALL_S)
    if done.returncode:
        lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise NotInstalled(f"{Path(command[0]).name}: {(lines or ['no output'])[-1][:300]}")
