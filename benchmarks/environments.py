"""Creates a Python environment for each contestant on demand, in a cache folder."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PEERS = Path(__file__).resolve().parent / "peers"
DEFAULT_ENVS = Path.home() / ".cache" / "tableside-bench"
_STAMP = ".requirements"


class NotInstalled(Exception):
    """An environment could not be created; the message holds the installer's last lines."""


@dataclass(frozen=True)
class Environment:
    """An environment: its folder, and the version of each installed package."""

    folder: Path
    versions: dict[str, str]

    @property
    def bin(self) -> Path:
        return self.folder / "bin"


def constraints(requirements: str, versions_here: Mapping[str, str]) -> str:
    """Return a pip constraints file that pins each requirement without a version to the version installed here."""
    lines = [line.strip() for line in requirements.splitlines()]
    names = sorted(line.partition("[")[0].lower() for line in lines if line and not set("#=<>~ ") & set(line))
    return "".join(f"{name}=={versions_here[name]}\n" for name in names if name in versions_here)


def ensure(name: str, requirements: Path, versions_here: Mapping[str, str], envs: Path) -> Environment:
    """Return the environment `envs`/`name`. It is created again if the requirements or the pinned versions changed.

    versions_here: package versions for the requirements without a version. Raises NotInstalled if installing fails.
    """
    folder, text = envs / name, requirements.read_text()
    bounds = constraints(text, versions_here)
    wanted = hashlib.sha256((text + bounds).encode()).hexdigest()
    stamp = folder / _STAMP
    if not (stamp.exists() and stamp.read_text() == wanted):
        shutil.rmtree(folder, ignore_errors=True)
        envs.mkdir(parents=True, exist_ok=True)
        _run([sys.executable, "-m", "venv", str(folder)])
        (folder / "constraints.txt").write_text(bounds)
        _run([*_installer(folder), "-r", str(requirements), "-c", str(folder / "constraints.txt")])
        stamp.write_text(wanted)
    return Environment(folder, versions(folder / "bin" / "python"))


def versions(python: Path) -> dict[str, str]:
    """Return the version of each package that the interpreter `python` can import."""
    code = (
        "import importlib.metadata as m, json; "
        "print(json.dumps({d.metadata['Name'].lower(): d.version for d in m.distributions()}))"
    )
    return dict(sorted(json.loads(_run([str(python), "-c", code])).items()))


def _installer(folder: Path) -> list[str]:
    uv = shutil.which("uv")
    if uv:
        return [uv, "pip", "install", "--quiet", "--python", str(folder / "bin" / "python")]
    return [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last_lines = " / ".join(done.stderr.strip().splitlines()[-3:])[-600:]
        raise NotInstalled(f"{Path(command[0]).name} failed with exit code {done.returncode}: {last_lines}")
    return done.stdout
