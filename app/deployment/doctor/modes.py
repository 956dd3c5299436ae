"""Who else may read the keys, or write what the server trusts."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from tableside import private_files
from tableside.deployment.doctor.finding import Finding, Level
from tableside.deployment.doctor.set_up import SetUp
from tableside.deployment.tls import PEM
from tableside.repository import paths
from tableside.settings import CONFIG_VARIABLE

ABOUT = "file modes"
_READ_BY_OTHERS = "every user of this host can read it and act with it"
_WRITTEN_BY_OTHERS = "every user of this host can change what the server does"


def check(set_up: SetUp) -> Iterator[Finding]:
    """Yield the files whose modes are too wide."""
    settings = set_up.settings
    run_dir = settings.run_dir
    if run_dir.is_dir() and (mode := run_dir.stat().st_mode) & 0o077:
        yield _finding(run_dir, mode, "the run folder is open to other users", _READ_BY_OTHERS, "chmod 700")
    for path in (run_dir / "admin.key", run_dir / PEM, settings.keys_path):
        if path.is_file() and (why := private_files.problem(path.stat(), path)):
            what, _, change = why.partition(". ")
            yield Finding(
                Level.ERROR, ABOUT, f"{path} {what}", stat.filemode(path.stat().st_mode), _READ_BY_OTHERS, change
            )
    key = Path(settings.server.tls_key)
    if settings.server.tls_key and key.is_file() and (mode := key.stat().st_mode) & 0o007:
        yield _finding(key, mode, "the private key of TLS is open to other users", _READ_BY_OTHERS, "chmod o-rwx")
    for path in _trusted(set_up):
        if path.exists() and (mode := path.stat().st_mode) & stat.S_IWOTH and not mode & stat.S_ISVTX:
            yield _finding(path, mode, "other users may change it", _WRITTEN_BY_OTHERS, "chmod o-w")


def _trusted(set_up: SetUp) -> Iterator[Path]:
    """What the server believes: settings, consents, the repository with each model and version."""
    settings, root = set_up.settings, set_up.settings.repository_path
    yield Path(set_up.environ.get(CONFIG_VARIABLE) or "tableside.toml").absolute()
    yield Path(settings.repository.consent_file).absolute()
    yield root
    for name in paths.models(root) if root.is_dir() else ():
        yield root / name
        yield root / name / paths.MODEL_TOML
        for number in paths.versions(root, name):
            folder = paths.version_folder(root, name, number)
            yield folder
            yield from (Path(entry.path) for entry in os.scandir(folder) if not entry.is_symlink())


def _finding(path: Path, mode: int, title: str, consequence: str, command: str) -> Finding:
    figures = f"{path} has mode {stat.S_IMODE(mode):o}"
    return Finding(Level.ERROR, ABOUT, title, figures, consequence, f"Run: {command} {path}")
