"""Versions of the libraries that decide an answer, and hashes of files."""

from __future__ import annotations

import hashlib
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("scikit-learn", "numpy", "scipy", "pandas", "skops", "joblib", "onnxruntime", "treelite")


def environment() -> dict[str, str]:
    """Versions of what decides an answer."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def sha256(path: Path) -> str:
    """The file's SHA-256 in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
