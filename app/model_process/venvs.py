"""Makes and checks virtual environments for model processes: locked files, hashes checked, wheels only."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from tableside.errors import ContractBroken, EnvironmentFailed
from tableside.model_process import known_environments
from tableside.model_process.known_environments import LOCKED, child_environ
from tableside.model_process.process_pool import PrivateProcess
from tableside.setting_texts import ENVIRONMENT_NAME, ENVIRONMENT_PATTERN, PATTERN_MESSAGES
from tableside.settings import Settings

START_TIMEOUT_S = 60.0
_PINNED = re.compile(r"^([A-Za-z0-9][\w.-]*)(?:\[[^\]]*\])?==([^\s;\\]+)", re.MULTILINE)

Progress = Callable[[str], None]


def create(settings: Settings, name: str, requirements: Path, python: str, progress: Progress) -> Path:
    """Make the environment NAME in the operator's folder and return the path of its interpreter.

    requirements: a file for pip. If it has hashes, exactly its packages are installed. If not, pip resolves it once,
    and what that gave is written beside it with hashes, as `*.locked.txt`. python: the interpreter to make it from.
    Raises EnvironmentFailed, and leaves nothing, if any step fails.
    """
    if not ENVIRONMENT_NAME.match(name):
        raise EnvironmentFailed(f"{name!r}: {PATTERN_MESSAGES[ENVIRONMENT_PATTERN]}")
    folder = settings.environments_path / name
    if folder.exists():
        raise EnvironmentFailed(f"{folder} exists. Choose another name, or remove the folder first")
    try:
        text = requirements.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise EnvironmentFailed(f"{requirements} cannot be read: {problem}") from problem
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        progress(f"making {folder} with {python}")
        _run([python, "-m", "venv", str(folder)], f"{python} cannot make an environment")
        made = folder / "bin" / "python"
        locked = text if "--hash=" in text else _lock(made, requirements, text, progress)
        _install(made, locked, progress)
        _require(name, str(made), "Add a line for each to the requirements")
        (folder / LOCKED).write_text(locked, encoding="utf-8")
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return made


def _lock(python: Path, requirements: Path, text: str, progress: Progress) -> str:
    """Resolve a file without hashes, and write the result beside it."""
    progress(f"resolving {requirements}")
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        _pip(
            python, ["--dry-run", "--ignore-installed", "--report", str(report), "-r", str(requirements)],
            f"pip cannot resolve {requirements}",
        )  # fmt: skip
        found = json.loads(report.read_bytes())["install"]
    lines = sorted(
        f"{item['metadata']['name']}=={item['metadata']['version']} --hash=sha256:{_sha256(item)}" for item in found
    )
    locked = f"# Resolved from {requirements.name} by tableside env create.\n" + "\n".join(lines) + "\n"
    beside = requirements.with_suffix(".locked.txt")
    try:
        beside.write_text(locked, encoding="utf-8")
        progress(f"wrote {beside}")
    except OSError as problem:  # the environment's own folder has it too
        progress(f"{beside} cannot be written ({problem.strerror})")
    return locked


def _sha256(item: Mapping[str, Mapping[str, object]]) -> str:
    """The sha256 of the file that pip would install. Raises EnvironmentFailed for what has none, such as a folder."""
    download: Mapping[str, object] = item["download_info"]
    archive = download.get("archive_info")
    if isinstance(archive, dict):
        found = archive.get("hashes", {}).get("sha256") or str(archive.get("hash", "")).partition("sha256=")[2]
        if found:
            return str(found)
        url = urlsplit(str(download["url"]))
        if url.scheme == "file":
            return hashlib.sha256(Path(url2pathname(url.path)).read_bytes()).hexdigest()
    raise EnvironmentFailed(
        f"{item['metadata']['name']} is not a file with a sha256 ({download.get('url')}), so it cannot be locked. "
        "Name a release of the package, or give a file with hashes"
    )


def _install(python: Path, locked: str, progress: Progress) -> None:
    progress("installing")
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as file:
        file.write(locked)
        file.flush()
        _pip(python, ["--require-hashes", "--no-deps", "-r", file.name], "pip cannot install the packages")


def _pip(python: Path, words: Sequence[str], problem: str) -> None:
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:"]
    _run([*command, *words], problem)


def _run(command: Sequence[str], problem: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=child_environ(os.environ))
    except OSError as error:
        raise EnvironmentFailed(f"{problem}: {error.strerror}: {command[0]}") from error
    if done.returncode:
        lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        shown = "; ".join(line.strip() for line in lines if "ERROR" in line)[:1000] or (lines or ["no output"])[-1]
        raise EnvironmentFailed(f"{problem}: {shown}")


def _require(name: str, python: str, advice: str = "") -> dict[str, str]:
    """Return the versions in the environment. Raises EnvironmentFailed if a package is missing that is needed.

    advice: what to do then; by default, how to install it.
    """
    try:
        found = known_environments.installed(python)
    except ContractBroken as problem:
        raise EnvironmentFailed(f"environment {name!r}: {problem}") from problem
    missing = known_environments.lacking(found)
    if missing:
        advice = advice or known_environments.how_to_install(python, missing)
        raise EnvironmentFailed(
            f"environment {name!r} lacks {', '.join(missing)}, which a model process imports. {advice}"
        )
    return found


def check(settings: Settings, name: str) -> dict[str, str]:
    """Start a model process in the environment and return the versions in it.

    Raises EnvironmentFailed if the environment does not exist or does not work, or if its packages are no longer those
    of its locked file.
    """
    known = known_environments.known(settings)
    if name not in known:
        raise EnvironmentFailed(f"there is no environment {name!r}; there is {', '.join(sorted(known)) or 'none'}")
    python = known[name].python
    found = _require(name, python)
    changed = _changed(settings.environments_path / name / LOCKED, found)
    if changed:
        raise EnvironmentFailed(
            f"environment {name!r} was changed after it was made: {'; '.join(changed)}. Make it again under another "
            "name"
        )
    try:
        process = PrivateProcess(name, python, START_TIMEOUT_S)
        try:
            process.versions_of_libraries(time.monotonic() + START_TIMEOUT_S)
        finally:
            process.close()
    except ContractBroken as problem:
        raise EnvironmentFailed(str(problem)) from problem
    return found


def _changed(locked: Path, found: Mapping[str, str]) -> list[str]:
    """One text for each package of REPORTED whose version is not the one of the locked file."""
    if not locked.is_file():
        return []
    pins = {
        re.sub(r"[-_.]+", "-", name).lower(): version for name, version in _PINNED.findall(locked.read_text("utf-8"))
    }
    return [
        f"{package} was {pins[package]} and is {version}"
        for package, version in found.items()
        if package in pins and pins[package] != version
    ]


def default_python() -> str:
    """Return the interpreter from which environments are made by default: the one that runs this process's own venv."""
    return str(Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}")
