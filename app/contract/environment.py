"""The versions of Python and of the libraries that influence predictions, and file checksums."""

from __future__ import annotations

import hashlib
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("scikit-learn", "numpy", "scipy", "pandas", "skops", "joblib", "onnxruntime", "treelite")


def environment() -> dict[str, str]:
    """Return the versions of Python and of the installed PACKAGES, and the machine type such as `x86_64`."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal. Raises OSError if it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
