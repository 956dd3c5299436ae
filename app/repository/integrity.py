"""Hashes, contracts and library versions: is what lies here what was published, and may it run here?"""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from itertools import zip_longest
from pathlib import Path
from typing import Literal

import msgspec

from tableside.contract import schema
from tableside.contract.environment import environment, sha256
from tableside.contract.schema import Artifact, Contract
from tableside.errors import ContractBroken, FailureKind
from tableside.repository.paths import CHECKSUMS, CONTRACT, version_folder

STRICT = ("scikit-learn",)
"""Packages whose minor version must be the one of publish: their fitted attributes change between minors."""
LIBRARIES = {"onnx": "onnxruntime", "treelite": "treelite"}
"""What a fast backend needs beyond what is always installed."""


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
        raise ContractBroken(f"{path.name}: {problem.strerror or problem}", FailureKind.DAMAGED) from problem
    if actual != published.sha256:
        raise ContractBroken(
            f"{path.name} is damaged: its sha256 is {actual[:12]}..., at publish {published.sha256[:12]}...",
            FailureKind.DAMAGED,
        )
    return path


def checksum_lines(contract: Contract) -> str:
    """What publish writes beside the contract: hashes of the artifact, the columns and outputs in order, and the graph.

    Golden rows are a sample. They cannot tell that a threshold moved where none of them passes, nor, where an
    estimator knows no names, that two columns of the contract were swapped.
    """
    words = [(column.name, column.datatype, column.dtype) for column in contract.input.columns]
    columns = hashlib.sha256(msgspec.json.encode((contract.input.form, words))).hexdigest()
    outputs = hashlib.sha256(msgspec.json.encode(contract.outputs)).hexdigest()
    graph = f"{contract.graph.sha256}  {contract.graph.file}\n" if contract.graph is not None else ""
    return f"{contract.artifact.sha256}  {contract.artifact.file}\n{columns}  columns\n{outputs}  outputs\n{graph}"


def check_checksums(root: Path, contract: Contract) -> None:
    """Hold the contract to its checksums; versions of older releases have none. Raises ContractBroken."""
    path = version_folder(root, contract.name, contract.version) / CHECKSUMS
    try:
        written = path.read_text(encoding="ascii")
    except FileNotFoundError:
        return
    except (OSError, UnicodeDecodeError) as problem:
        raise ContractBroken(f"{CHECKSUMS}: {problem}", FailureKind.DAMAGED) from problem
    now = checksum_lines(contract)
    if written != now:
        pairs = zip_longest(written.splitlines(), now.splitlines())
        parts = ("its artifact", "its columns or their order", "its outputs", "its graph")
        what = next((part for part, (was, is_) in zip(parts, pairs, strict=False) if was != is_), "its checksums")
        raise ContractBroken(f"{CONTRACT} is not that of publish: {what} changed ({CHECKSUMS})", FailureKind.DAMAGED)


def check_environment(contract: Contract, policy: Literal["refuse", "warn"]) -> str:
    """What to warn of; empty when nothing differs. Raises ContractBroken when it differs and `policy` refuses."""
    differences = "; ".join(environment_differences(contract))
    if differences and policy == "refuse":
        raise ContractBroken(
            f"{differences}; publish again here, or set repository.environment_skew = 'warn'", FailureKind.ENVIRONMENT
        )
    warning = f"{differences}; served because repository.environment_skew is 'warn'" if differences else ""
    return "; ".join(filter(None, (warning, missing_libraries(contract))))


def missing_libraries(contract: Contract) -> str:
    """Which libraries of its fast backends are missing here, in words; empty when none is. No reason not to serve."""
    wanted = {LIBRARIES[route.backend] for route in contract.routes if route.backend in LIBRARIES}
    missing = [library for library in sorted(wanted) if find_spec(library) is None]
    if not missing:
        return ""
    return f"{' and '.join(missing)} not installed here, so what is slower answers in its place"


def check_unloaded(root: Path, name: str, number: int, policy: Literal["refuse", "warn"]) -> str:
    """All that can be checked of a version without building its artifact. Returns what to warn of; ContractBroken."""
    contract = read_contract(root, name, number)
    check_artifact(root, contract)
    check_checksums(root, contract)
    return check_environment(contract, policy)


def environment_differences(contract: Contract) -> list[str]:
    """What differs between the environment of publish and this one, where it matters. Empty when nothing does."""
    here = environment()
    differences = []
    for package in STRICT:
        then, now = contract.environment.get(package, ""), here.get(package, "none")
        if then.split(".")[:2] != now.split(".")[:2]:
            differences.append(f"{package} {then} at publish, {now} here")
    return differences
