"""Reads files of a version into memory and compares the bytes that were read with the contract.

What runs code is run from these bytes. Hashing a file and reading it again would leave time to replace it in between.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from tableside.contracts.consent_digest import FOLDER
from tableside.contracts.schema import Artifact, Contract
from tableside.errors import ContractBroken, FailureKind
from tableside.process import plain_files
from tableside.repository.paths import version_folder

_PART = r"[A-Za-z0-9_][A-Za-z0-9_ .-]*"
_SAFE = re.compile(rf"{_PART}(/{_PART})*\Z")


def is_safe(path: str) -> bool:
    """Return whether a path names something inside a version's folder: relative, without `..` and hidden files."""
    return _SAFE.match(path) is not None


def is_bare(path: str) -> bool:
    """Return whether a path is the name of a file, without any folder."""
    return is_safe(path) and "/" not in path


def read(folder: Path, published: Artifact) -> bytes:
    """Return the content of a file of the version.

    folder: the version's folder. Raises ContractBroken with FailureKind.DAMAGED if it is missing, is not an ordinary
    file inside the folder, or is not what was published.
    """
    if not is_safe(published.file):
        raise ContractBroken(f"the contract names the file {published.file!r}, which is no name of a file of a version")
    try:
        content = _read(folder, published)
    except OSError as problem:
        raise ContractBroken(
            f"{published.file} cannot be read: {problem.strerror or problem}", FailureKind.DAMAGED
        ) from problem
    digest = hashlib.sha256(content).hexdigest()
    if digest != published.sha256:
        raise ContractBroken(
            f"{published.file} is damaged: it is not the file that was published ({published.size_bytes} bytes, sha256 "
            f"{published.sha256[:12]}...). Restore the file from a copy, or publish the model again",
            FailureKind.DAMAGED,
        )
    return content


def _read(folder: Path, published: Artifact) -> bytes:
    path = folder / published.file
    if not path.parent.resolve().is_relative_to(folder.resolve()):
        raise OSError(f"{path.parent} links to another folder")
    with plain_files.open_plain(path, os.O_NOFOLLOW) as file:
        return file.read(published.size_bytes + 1)  # one byte more, so that a longer file has another hash


def read_code(root: Path, contract: Contract) -> dict[str, bytes]:
    """Return the files of the version's own code: path below `code/` to content. Raises ContractBroken, as `read`."""
    folder = version_folder(root, contract.name, contract.version)
    for file in contract.code:
        if not file.file.startswith(f"{FOLDER}/"):
            raise ContractBroken(f"the contract names the file {file.file!r} as code, which is not below {FOLDER}/")
    return {file.file.removeprefix(f"{FOLDER}/"): read(folder, file) for file in contract.code}
