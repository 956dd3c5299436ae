"""Each contestant's own Python environment, made on demand below a cache folder."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

PEERS = Path(__file__).resolve().parent / "peers"
DEFAULT_ENVS = Path.home() / ".cache" / "tableside-bench"
_STAMP = ".requirements"


class NotInstalled(Exception):
    """An environment could not be made; the text says why."""


@dataclass(frozen=True)
class Environment:
    """A made environment: its folder and what is installed in it."""

    folder: Path
    versions: dict[str, str]

    @property
    def bin(self) -> Path:
        return self.folder / "bin"


def ensure(name: str, requirements: Path, envs: Path) -> Environment:
    """The environment `envs`/`name`, made anew when the requirements file changed since. Raises NotInstalled."""
    folder, wanted = envs / name, hashlib.sha256(requirements.read_bytes()).hexdigest()
    stamp = folder / _STAMP
    if not (stamp.exists() and stamp.read_text() == wanted):
        shutil.rmtree(folder, ignore_errors=True)
        envs.mkdir(parents=True, exist_ok=True)
        _run([sys.executable, "-m", "venv", str(folder)])
        _run([*_installer(folder), "-r", str(requirements)])
        stamp.write_text(wanted)
    return Environment(folder, versions(folder / "bin" / "python"))


def versions(python: Path) -> dict[str, str]:
    """Package to version of everything that interpreter can import."""
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
        words = " / ".join(done.stderr.strip().splitlines()[-3:])[-600:]
        raise NotInstalled(f"{Path(command[0]).name} ended with {done.returncode}: {words}")
    return done.stdout
