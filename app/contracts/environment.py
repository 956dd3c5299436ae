"""The versions of Python and of the libraries that influence predictions, and file checksums."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from tableside.process import plain_files
from tableside_contract import environment as training_environment

PACKAGES = (*training_environment.PACKAGES, "onnxruntime", "treelite")


def environment(libraries: Iterable[str] = ()) -> dict[str, str]:
    """Return the versions of Python and of the installed PACKAGES, and the machine type such as `x86_64`.

    libraries: more top-level modules whose versions count, such as `xgboost`. What is installed is read once in a
    process, which goes on with the modules that it has imported.
    """
    return dict(_installed(tuple(libraries)))


@cache
def _installed(libraries: tuple[str, ...]) -> dict[str, str]:
    return training_environment.environment(libraries, PACKAGES)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal. Raises OSError if it cannot be read, or is no ordinary file."""
    with plain_files.open_plain(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
