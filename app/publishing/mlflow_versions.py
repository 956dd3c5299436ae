"""Reads from the files of an MLflow directory which versions wrote the model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

REQUIREMENTS, CONDA, PYTHON_ENV = "requirements.txt", "conda.yaml", "python_env.yaml"
_PINNED = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^]]*\])?={1,2}\s*([0-9][0-9A-Za-z.+!-]*)")
_MAX_BYTES = 1 << 20


def read(folder: Path, sklearn_version: str | None) -> dict[str, str]:
    """Return the versions by package, with `python` among them; the MLmodel file's own first.

    A file that is missing, too large or not in MLflow's form says nothing. Links are not followed.
    """
    found = {"scikit-learn": sklearn_version} if sklearn_version else {}
    for package, version in (*_requirements(folder), *_conda(folder), *_python_env(folder)):
        found.setdefault(package, version)
    return found


def _text(path: Path) -> str:
    try:
        if path.is_symlink() or path.stat().st_size > _MAX_BYTES:
            return ""
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _requirements(folder: Path) -> Iterator[tuple[str, str]]:
    yield from _pinned(_text(folder / REQUIREMENTS).splitlines())


def _conda(folder: Path) -> Iterator[tuple[str, str]]:
    for entry in _dependencies(folder / CONDA):
        yield from _pinned(entry.get("pip") or () if isinstance(entry, dict) else [entry])


def _python_env(folder: Path) -> Iterator[tuple[str, str]]:
    content = _yaml(folder / PYTHON_ENV)
    if isinstance(content, dict) and isinstance(content.get("python"), str):
        yield "python", content["python"]


def _dependencies(path: Path) -> list[Any]:
    content = _yaml(path)
    found = content.get("dependencies") if isinstance(content, dict) else None
    return found if isinstance(found, list) else []


def _yaml(path: Path) -> Any:
    try:
        return yaml.safe_load(_text(path))
    except (yaml.YAMLError, RecursionError):
        return None


def _pinned(lines: Iterable[object]) -> Iterator[tuple[str, str]]:
    for line in lines if not isinstance(lines, str) else ():
        match = _PINNED.match(line) if isinstance(line, str) else None
        if match:
            yield match[1].lower().replace("_", "-"), match[2]
