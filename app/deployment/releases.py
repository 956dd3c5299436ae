"""Releases of Tableside: a folder with its code and, in `.venv`, its interpreter. A stack may go on in another one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

from tableside.deployment.layout import PROJECT, PROJECT_VARIABLE, PYTHON_VARIABLE, moved
from tableside.errors import StackError

RECORD = "release.json"
"""The file in the run folder that names the release in which `web` runs, if it is not the one of `tableside run`."""
CHECK_TIMEOUT_S = 120.0


class Release(msgspec.Struct, frozen=True):
    """A release. project: its folder, as the operator wrote it, so that a link stays one. python: its interpreter.

    variables: settings that the stack needs in this release, as environment variables.
    """

    project: str
    python: str
    variables: dict[str, str] = {}

    def is_in_force(self, environ: Mapping[str, str]) -> bool:
        """Return whether a process with this environment is one of this release, with its variables."""
        place = running(environ)
        is_here = (place.project, place.python) == (self.project, self.python)
        return is_here and all(environ.get(name) == value for name, value in self.variables.items())


def running(environ: Mapping[str, str]) -> Release:
    """Return the release of a process of the stack. environ: its environment."""
    return Release(environ.get(PROJECT_VARIABLE) or str(PROJECT), environ.get(PYTHON_VARIABLE) or sys.executable)


def in_folder(folder: Path) -> Release:
    """Return the release in a folder: a checkout with its environment, or an environment with Tableside installed.

    Raises StackError if the folder has no code of Tableside or no interpreter.
    """
    project = folder.absolute()
    for installed in sorted(project.glob("lib/python3*/site-packages/tableside/stack")):
        return Release(str(installed), str(project / "bin" / "python"))
    for needed, why in (("supervisord.conf", "it is no release of Tableside"), (".venv/bin/python", "it has no .venv")):
        if not (project / needed).exists():
            raise StackError(
                f"{project}: {why} ({project / needed} does not exist). Name a folder where `make run` works, or an "
                "environment with Tableside installed"
            )
    return Release(str(project), str(project / ".venv" / "bin" / "python"))


def environment(release: Release, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for a process of another release. environ: that of a process of the running one.

    Paths in the folder of the running release become the same paths in the folder of the other one.
    """
    old = running(environ)
    folders = (Path(old.project), Path(os.path.realpath(old.project)))
    searched = {}
    for name in ("PATH", "PYTHONPATH"):
        if name in environ and old.project != release.project:
            value = environ[name]
            for folder in folders:
                value = moved(value, folder, Path(release.project))
            searched[name] = value
    return {
        **environ,
        **searched,
        PROJECT_VARIABLE: release.project,
        PYTHON_VARIABLE: release.python,
        "PWD": release.project,
        **release.variables,
    }


def record(run_dir: Path, release: Release) -> None:
    """Write down in which release `web` runs from now on. Raises OSError."""
    temporary = (run_dir / RECORD).with_suffix(".tmp")
    temporary.write_bytes(msgspec.json.format(msgspec.json.encode(release)) + b"\n")
    temporary.replace(run_dir / RECORD)


def recorded(run_dir: Path) -> Release | None:
    """Return the release that was recorded; None if there is no record, or its folder is gone."""
    try:
        found = msgspec.json.decode((run_dir / RECORD).read_bytes(), type=Release)
    except (OSError, msgspec.DecodeError):
        return None
    return found if Path(found.python).exists() else None


def run(release: Release, words: list[str], environ: Mapping[str, str]) -> str:
    """Run the release's interpreter with these words, in the release's folder, and return what it prints.

    Raises StackError with the last line of its errors if it fails or takes longer than CHECK_TIMEOUT_S.
    """
    try:
        done = subprocess.run(
            [release.python, *words], cwd=release.project, env=environment(release, environ), capture_output=True,
            text=True, timeout=CHECK_TIMEOUT_S, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise StackError(f"{release.python} in {release.project} cannot be run: {problem}") from problem
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["it printed no reason"]
        raise StackError(f"the code in {release.project} does not run: {lines[-1]}")
    return done.stdout
