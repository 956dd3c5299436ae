"""Hashes, contracts and library versions: is what lies here what was published, and may it run here?"""

from __future__ import annotations

import hashlib
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

from app.contract import schema
from app.contract.schema import Contract
from app.errors import ContractBroken
from app.repository.paths import CONTRACT, version_folder

PACKAGES = ("scikit-learn", "numpy", "scipy", "pandas", "skops", "joblib")
STRICT = ("scikit-learn",)
"""Packages whose minor version must be the one of publish: their fitted attributes change between minors."""


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


def read_contract(root: Path, name: str, number: int) -> Contract:
    """Read and check a version's contract. Raises ContractBroken."""
    path = version_folder(root, name, number) / CONTRACT
    try:
        contract = schema.decode(path.read_bytes())
    except (OSError, msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as problem:
        raise ContractBroken(f"{name}/{number}/{CONTRACT}: {problem}") from problem
    if (contract.name, contract.version) != (name, number):
        raise ContractBroken(f"{name}/{number}/{CONTRACT} is of {contract.name}/{contract.version}")
    return contract


def check_artifact(root: Path, contract: Contract) -> Path:
    """The artifact's path, if its bytes are those of publish. Raises ContractBroken."""
    path = version_folder(root, contract.name, contract.version) / contract.artifact.file
    try:
        actual = sha256(path)
    except OSError as problem:
        raise ContractBroken(f"{path.name}: {problem.strerror or problem}") from problem
    if actual != contract.artifact.sha256:
        raise ContractBroken(
            f"{path.name} is damaged: its sha256 is {actual[:12]}..., at publish {contract.artifact.sha256[:12]}..."
        )
    return path


def skew(contract: Contract) -> list[str]:
    """What differs between the environment of publish and this one, where it matters. Empty when nothing does."""
    here = environment()
    differences = []
    for package in STRICT:
        then, now = contract.environment.get(package, ""), here.get(package, "none")
        if then.split(".")[:2] != now.split(".")[:2]:
            differences.append(f"{package} {then} at publish, {now} here")
    return differences
