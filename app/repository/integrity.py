"""Checks of a published version without loading it: contract, signature, hashes, checksums and library versions."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from importlib.util import find_spec
from itertools import zip_longest
from pathlib import Path
from typing import Literal

import msgspec

from tableside.contracts import schema
from tableside.contracts.environment import environment, sha256
from tableside.contracts.schema import Artifact, Contract
from tableside.errors import ContractBroken, FailureKind
from tableside.install_hints import install_hint
from tableside.process import plain_files
from tableside.repository import signatures, verified_files
from tableside.repository.paths import CHECKSUMS, CONTRACT, GRAPH, version_folder
from tableside_contract.environment import same_minor

STRICT = ("scikit-learn",)
"""Packages that must have the minor version of publish: fitted attributes change between minor versions."""
_READ_BY_MINOR = ("joblib", "numpy", "pandas", "scikit-learn", "scipy", "skops")
"""Packages whose minor version may be why an artifact cannot be read."""
LIBRARIES = {"onnx": "onnxruntime", "treelite": "treelite", "ensemble_treelite": "treelite"}
"""Fast backend to the optional library that it needs."""


def read_contract(root: Path, name: str, number: int, trusted_keys: Collection[str] = ()) -> Contract:
    """Read the contract of a version.

    trusted_keys: if there are any, one of them must have signed the version, and the bytes that are decoded must be
    those that were signed. Raises ContractBroken when the file cannot be read, is not a contract, or belongs to another
    model or version; with FailureKind.SIGNATURE when a trusted signature is missing or does not hold.
    """
    contract, content = read_with_bytes(root, name, number)
    if trusted_keys:
        signatures.check(version_folder(root, name, number), contract, content, trusted_keys)
    return contract


def read_with_bytes(root: Path, name: str, number: int) -> tuple[Contract, bytes]:
    """Read the contract of a version, and return it with the bytes of its file. Raises as `read_contract`."""
    path = version_folder(root, name, number) / CONTRACT
    try:
        content = plain_files.read(path)
        contract = schema.decode(content)
    except (OSError, msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as problem:
        raise ContractBroken(f"{name}/{number}/{CONTRACT}: {problem}") from problem
    if (contract.name, contract.version) != (name, number):
        raise ContractBroken(
            f"{name}/{number}/{CONTRACT} belongs to {contract.name}/{contract.version}. A version cannot be moved or "
            "renamed: publish it again under the new name"
        )
    return contract, content


def check_artifact(root: Path, contract: Contract) -> Path:
    """Return the path of the artifact after comparing its SHA-256, and those of graph, own code and boosters.

    Raises ContractBroken with FailureKind.DAMAGED when a file is missing, cannot be read or has another hash.
    """
    folder = version_folder(root, contract.name, contract.version)
    for booster_or_graph in filter(None, (contract.graph, *contract.boosters)):
        _check_file(folder, booster_or_graph)
    for file in contract.code:
        verified_files.read(folder, file)
    return _check_file(folder, contract.artifact)


def _check_file(folder: Path, published: Artifact) -> Path:
    if not verified_files.is_bare(published.file):
        raise ContractBroken(f"the contract names the file {published.file!r}, which is no name of a file of a version")
    path = folder / published.file
    try:
        if not path.resolve().is_relative_to(folder.resolve()):
            raise OSError("it links to a file outside of the version's folder")
        actual = sha256(path)
    except OSError as problem:
        raise ContractBroken(
            f"{path.name} cannot be read: {problem.strerror or problem}", FailureKind.DAMAGED
        ) from problem
    if actual != published.sha256:
        raise ContractBroken(
            f"{path.name} is damaged: its sha256 is {actual[:12]}..., but was {published.sha256[:12]}... at publish. "
            "Restore the file from a copy, or publish the model again",
            FailureKind.DAMAGED,
        )
    return path


def checksum_lines(contract: Contract) -> str:
    """Return the content of `checksums.sha256`: the hashes of artifact, columns, outputs and of each other file.

    The order of columns and outputs counts. Golden rows alone do not detect every change of a contract:
    for an estimator that was fitted on an array they may also hold when two columns are swapped.
    """
    columns_in_order = [(column.name, column.datatype, column.dtype) for column in contract.input.columns]
    columns = hashlib.sha256(msgspec.json.encode((contract.input.form, columns_in_order))).hexdigest()
    outputs = hashlib.sha256(msgspec.json.encode(contract.outputs)).hexdigest()
    lines = [
        f"{contract.artifact.sha256}  {contract.artifact.file}",
        f"{columns}  columns",
        f"{outputs}  outputs",
        *(f"{file.sha256}  {file.file}" for file in filter(None, (contract.graph, *contract.code, *contract.boosters))),
    ]
    return "".join(f"{line}\n" for line in lines)


def check_checksums(root: Path, contract: Contract) -> None:
    """Compare the contract with `checksums.sha256`. Versions of older releases have no such file, and pass.

    Raises ContractBroken with FailureKind.DAMAGED that names the part that changed.
    """
    path = version_folder(root, contract.name, contract.version) / CHECKSUMS
    try:
        written = plain_files.read(path).decode("ascii")
    except FileNotFoundError:
        return
    except (OSError, UnicodeDecodeError) as problem:
        raise ContractBroken(f"{CHECKSUMS}: {problem}", FailureKind.DAMAGED) from problem
    now = checksum_lines(contract)
    if written != now:
        pairs = zip_longest(written.splitlines(), now.splitlines())
        changed = next((_part(was or is_ or "") for was, is_ in pairs if was != is_), "a line")
        raise ContractBroken(
            f"{CONTRACT} was changed after publish: it does not match {CHECKSUMS} in {changed}. Restore the folder "
            "from a copy, or publish the model again",
            FailureKind.DAMAGED,
        )


def _part(line: str) -> str:
    """What a line of `checksums.sha256` is about, for an error message."""
    name = line.partition("  ")[2]
    return {"columns": "the columns or their order", "outputs": "the outputs", GRAPH: "the graph"}.get(
        name, name if name.startswith(("code/", "booster-")) else "the artifact" if name else "a line"
    )


def check_environment(
    contract: Contract, policy: Literal["refuse", "warn"], here: Mapping[str, str] | None = None
) -> str:  # fmt: skip
    """Return a warning about libraries that differ from publish; empty when none does.

    here: the versions of the environment that runs the version; by default those of this process. Raises ContractBroken
    with FailureKind.ENVIRONMENT when a version differs, unless `policy` is `warn` and the golden answers, which every
    load replays, are the trainer's.
    """
    differences = "; ".join(environment_differences(contract, here))
    if differences and (policy == "refuse" or contract.golden.origin != "trainer"):
        raise ContractBroken(f"{differences}. {_ways_out(contract)}", FailureKind.ENVIRONMENT)
    return f"{differences}. Served because repository.environment_skew is 'warn'" if differences else ""


def environment_warnings(
    contract: Contract, policy: Literal["refuse", "warn"], here: Mapping[str, str] | None = None
) -> str:  # fmt: skip
    """Return what `check_environment` returns, and which libraries of fast backends are missing; empty for nothing.

    Raises what `check_environment` raises.
    """
    warning = check_environment(contract, policy, here)
    return "; ".join(filter(None, (warning, missing_in_words(contract) if here is None else "")))


def _ways_out(contract: Contract) -> str:
    ways = "Publish the model again in this environment, or serve it in its own: environment = NAME in model.toml"
    if contract.golden.origin == "trainer":
        return f"{ways}. Its golden answers are the trainer's: to rely on them set repository.environment_skew = 'warn'"
    return f"{ways}. (repository.environment_skew = 'warn' holds only for golden answers of the trainer)"


def explained(
    refused: ContractBroken, contract: Contract, here: Mapping[str, str] | None = None
) -> ContractBroken:  # fmt: skip
    """Return the error for an artifact that could not be loaded, with the libraries that are to blame.

    Types move between releases of scipy and numpy too, so that an artifact cannot be read with another minor version.
    here: as for check_environment. An error with a kind of its own is returned as it is, and so is one without any
    library that differs from publish.
    """
    there = environment() if here is None else here
    others = [
        f"{package} was {then} at publish and is {there[package]} {_place(here)}"
        for package, then in sorted(contract.environment.items())
        if package in _READ_BY_MINOR and package in there and not same_minor(then, there[package])
    ]
    if refused.failure_kind is not FailureKind.OTHER or not others:
        return refused
    return ContractBroken(f"{refused}. {'; '.join(others)}. {_ways_out(contract)}", FailureKind.ENVIRONMENT)


def missing_libraries(contract: Contract) -> list[str]:
    """Return the libraries of the version's fast backends that are not installed here, in the order of the alphabet.

    Such a version is served all the same, by its fallback backends.
    """
    wanted = {LIBRARIES[route.backend] for route in contract.routes if route.backend in LIBRARIES}
    return [library for library in sorted(wanted) if find_spec(library) is None]


def missing_in_words(contract: Contract) -> str:
    """Return a warning that names what `missing_libraries` returns, and says how to install it; empty for nothing."""
    missing = missing_libraries(contract)
    if not missing:
        return ""
    return (
        f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed: a slower backend answers "
        f"instead. To use the fast one: {install_hint('onnx')}"
    )


def check_unloaded(
    root: Path, name: str, number: int, policy: Literal["refuse", "warn"], here: Mapping[str, str] | None = None,
    trusted_keys: Collection[str] = (),
) -> str:  # fmt: skip
    """Check a version's contract, signature, hashes, checksums and environment without loading its artifact.

    here: as for check_environment. trusted_keys: as for read_contract. Returns a warning, empty when there is none.
    Raises ContractBroken with what is wrong.
    """
    contract = read_contract(root, name, number, trusted_keys)
    check_artifact(root, contract)
    check_checksums(root, contract)
    return environment_warnings(contract, policy, here)


def environment_differences(contract: Contract, here: Mapping[str, str] | None = None) -> list[str]:
    """Return one text for each package of STRICT whose minor version differs from publish or from training.

    here: the versions to compare with; by default those of this process.
    """
    place = _place(here)
    here = environment() if here is None else here
    differences = []
    for package in STRICT:
        then, now = contract.environment.get(package, ""), here.get(package, "none")
        trained = contract.trained_with.get(package, then)
        if not same_minor(then, now):
            differences.append(f"{package} was {then or 'not recorded'} at publish and is {now} {place}")
        elif not same_minor(trained, now):
            differences.append(f"{package} was {trained} in training and is {now} {place}")
    return differences


def _place(here: Mapping[str, str] | None) -> str:
    return "here" if here is None else "in its environment"
