"""The environments that models may name: those of the settings, and those that `tableside env create` has made."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tableside.errors import ContractBroken, FailureKind
from tableside.setting_texts import ENVIRONMENT_NAME
from tableside.settings import Environment, Settings

CHILD = Path(__file__).resolve().parent / "child" / "main.py"
"""The program of a model process."""
REPORT = Path(__file__).resolve().parent / "child" / "report.py"
REPORT_TIMEOUT_S = 30.0
NEEDED = ("scikit-learn", "numpy", "pandas", "skops")
"""What a model process imports."""
LOCKED = "requirements.locked.txt"
"""The file in an environment's folder that says what it holds. It is written last: without it, nothing counts."""


def known(settings: Settings) -> dict[str, Environment]:
    """Return all environments by name. One in the settings counts before a folder of the same name."""
    found: dict[str, Environment] = {}
    folder = settings.environments_path
    if folder.is_dir():
        for entry in sorted(folder.iterdir()):
            python = entry / "bin" / "python"
            is_complete = (entry / LOCKED).is_file()
            if ENVIRONMENT_NAME.match(entry.name) and is_complete and python.exists():
                found[entry.name] = Environment(str(python))
    own = {
        name: Environment(str(Path(each.python).absolute()), each.processes)
        for name, each in settings.environments.items()
    }
    return found | own


def unknown(name: str, names: Mapping[str, object], named_by: str = "model.toml names") -> ContractBroken:
    """Return the error for a model.toml, or an option, that names an environment which does not exist here."""
    there = f"There is {', '.join(sorted(names))}" if names else "There is none"
    return ContractBroken(
        f"{named_by} the environment {name!r}, which is not defined on this host. {there}. Make it with `tableside env "
        f"create {name} -r requirements.txt`; or, for one that exists, write two lines into tableside.toml, "
        f'`[environments.{name}]` and `python = "/path/to/venv/bin/python"`, and run `tableside restart`, because a '
        "running stack has read that file at its start",
        FailureKind.ENVIRONMENT,
    )


def lacking(found: Mapping[str, str], needed: Sequence[str] = NEEDED) -> list[str]:
    """Return the packages that a model process imports and that are not among the versions that were found."""
    return [package for package in needed if package not in found]


def how_to_install(python: str, packages: Sequence[str]) -> str:
    """Return the sentence for an environment that lacks packages. It exists: nothing is said of requirements."""
    return f"Install what is missing into it: {python} -m pip install {' '.join(packages)}"


def stamp(environment: Environment) -> str:
    """Return a text that changes when another interpreter, or other packages, are installed."""
    python = Path(environment.python)
    parts = [environment.python, os.path.realpath(environment.python)]
    for path in [python.parent.parent / "pyvenv.cfg", *sorted(python.parent.parent.glob("lib/python3*/site-packages"))]:
        try:
            parts.append(str(path.stat().st_mtime_ns))
        except OSError:
            parts.append("-")
    return "|".join(parts)


def installed(python: str) -> dict[str, str]:
    """Return the versions of Python and of the libraries in an environment, without importing them.

    Raises ContractBroken if its interpreter cannot be started, or is older than Python 3.8.
    """
    try:
        done = subprocess.run(
            [python, "-I", str(REPORT)], capture_output=True, text=True, timeout=REPORT_TIMEOUT_S, check=False,
            env=child_environ(os.environ),
        )  # fmt: skip
        found: dict[str, str] = json.loads(done.stdout)
        return found
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise ContractBroken(f"{python} cannot be started: {problem}", FailureKind.ENVIRONMENT) from problem
    except ValueError as problem:
        lines = done.stderr.strip().splitlines() or ["no output"]
        raise ContractBroken(
            f"{python} does not run: {lines[-1]}. A model process needs Python 3.8 or later", FailureKind.ENVIRONMENT
        ) from problem


class LibrariesByName:
    """The versions in each environment, by its name; each environment is asked once."""

    def __init__(self, settings: Settings) -> None:
        self._known = known(settings)
        self._found: dict[str, Mapping[str, str]] = {}

    def find(self, name: str) -> Mapping[str, str] | None:
        """Return the versions of Python and of the libraries; None for an empty name, the server's own environment.

        Raises ContractBroken for an environment that does not exist on this host, or does not run.
        """
        if not name:
            return None
        if name not in self._known:
            raise unknown(name, self._known)
        if name not in self._found:
            self._found[name] = installed(self._known[name].python)
        return self._found[name]


def socket_path(run_dir: Path, name: str, number: int) -> Path:
    """Return the path of the socket of one model process. It is short: such a path has at most 107 bytes (unix(7))."""
    return run_dir / f"m-{digest(name)}-{number}.sock"


def state_path(run_dir: Path, name: str) -> Path:
    """Return the file with the versions that the processes of an environment have loaded."""
    return run_dir / f"model_{name}.json"


def digest(name: str) -> str:
    """Return eight hexadecimal digits for a name."""
    return hashlib.sha256(name.encode()).hexdigest()[:8]


def process_count(settings: Settings, environment: Environment) -> int:
    """Return how many processes an environment has: its own setting, or one for each worker."""
    return environment.processes or settings.server.workers


def child_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of a model process: those of this process without what would change its interpreter."""
    kept = {name: value for name, value in environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    return {**kept, "PYTHONUNBUFFERED": "1"}
