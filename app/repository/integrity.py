"""Hashes, contracts and library versions: is what lies here what was published, and may it run here?"""

from __future__ import annotations

import hashlib
import platform
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from itertools import zip_longest
from pathlib import Path
from typing import Literal

import msgspec

from app.contract import schema
from app.contract.schema import Artifact, Contract
from app.errors import ContractBroken, Trouble
from app.repository.paths import CONTRACT, SEAL, version_folder

PACKAGES = ("scikit-learn", "numpy", "scipy", "pandas", "skops", "joblib", "onnxruntime", "treelite")
STRICT = ("scikit-learn",)
"""Packages whose minor version must be the one of publish: their fitted attributes change between minors."""
LIBRARIES = {"onnx": "onnxruntime", "treelite": "treelite"}
"""What a faster way needs beyond what is always installed."""


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
    """The artifact's path, if its bytes and those of its graph are those of publish. Raises ContractBroken."""
    folder = version_folder(root, contract.name, contract.version)
    if contract.graph is not None:
        _check_file(folder, contract.graph)
    return _check_file(folder, contract.artifact)


def _check_file(folder: Path, published: Artifact) -> Path:
    path = folder / published.file
    try:
        actual = sha256(path)
    except OSError as problem:
        raise ContractBroken(f"{path.name}: {problem.strerror or problem}", Trouble.DAMAGED) from problem
    if actual != published.sha256:
        raise ContractBroken(
            f"{path.name} is damaged: its sha256 is {actual[:12]}..., at publish {published.sha256[:12]}...",
            Trouble.DAMAGED,
        )
    return path


def seal(contract: Contract) -> str:
    """What publish writes beside the contract: hashes of the artifact, the columns and outputs in order, and the graph.

    Golden rows are a sample. They cannot tell that a threshold moved where none of them passes, nor, where an
    estimator knows no names, that two columns of the contract were swapped.
    """
    words = [(column.name, column.datatype, column.dtype) for column in contract.input.columns]
    columns = hashlib.sha256(msgspec.json.encode((contract.input.form, words))).hexdigest()
    outputs = hashlib.sha256(msgspec.json.encode(contract.outputs)).hexdigest()
    graph = f"{contract.graph.sha256}  {contract.graph.file}\n" if contract.graph is not None else ""
    return f"{contract.artifact.sha256}  {contract.artifact.file}\n{columns}  columns\n{outputs}  outputs\n{graph}"


def check_seal(root: Path, contract: Contract) -> None:
    """Hold the contract to its seal; versions of older releases have none. Raises ContractBroken."""
    path = version_folder(root, contract.name, contract.version) / SEAL
    try:
        written = path.read_text(encoding="ascii")
    except FileNotFoundError:
        return
    except (OSError, UnicodeDecodeError) as problem:
        raise ContractBroken(f"{SEAL}: {problem}", Trouble.DAMAGED) from problem
    now = seal(contract)
    if written != now:
        pairs = zip_longest(written.splitlines(), now.splitlines())
        parts = ("its artifact", "its columns or their order", "its outputs", "its graph")
        what = next((part for part, (was, is_) in zip(parts, pairs, strict=False) if was != is_), "its seal")
        raise ContractBroken(f"{CONTRACT} is not that of publish: {what} changed ({SEAL})", Trouble.DAMAGED)


def check_environment(contract: Contract, policy: Literal["refuse", "warn"]) -> str:
    """What to warn of; empty when nothing differs. Raises ContractBroken when it differs and `policy` refuses."""
    differences = "; ".join(skew(contract))
    if differences and policy == "refuse":
        raise ContractBroken(
            f"{differences}; publish again here, or set repository.environment_skew = 'warn'", Trouble.ENVIRONMENT
        )
    said = f"{differences}; served because repository.environment_skew is 'warn'" if differences else ""
    return "; ".join(filter(None, (said, lacking(contract))))


def lacking(contract: Contract) -> str:
    """Which libraries of its faster ways are missing here, in words; empty when none is. No reason not to serve."""
    wanted = {LIBRARIES[way.way] for way in contract.ways if way.way in LIBRARIES}
    missing = [library for library in sorted(wanted) if find_spec(library) is None]
    if not missing:
        return ""
    return f"{' and '.join(missing)} not installed here, so what is slower answers in its place"


def check_unloaded(root: Path, name: str, number: int, policy: Literal["refuse", "warn"]) -> str:
    """All that can be checked of a version without building its artifact. Returns what to warn of; ContractBroken."""
    contract = read_contract(root, name, number)
    check_artifact(root, contract)
    check_seal(root, contract)
    return check_environment(contract, policy)


def skew(contract: Contract) -> list[str]:
    """What differs between the environment of publish and this one, where it matters. Empty when nothing does."""
    here = environment()
    differences = []
    for package in STRICT:
        then, now = contract.environment.get(package, ""), here.get(package, "none")
        if then.split(".")[:2] != now.split(".")[:2]:
            differences.append(f"{package} {then} at publish, {now} here")
    return differences
