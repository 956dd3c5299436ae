"""Signatures of versions: the file `signature.json` says who answers for a version, and for which files.

What is signed is a statement of the model's name, the version's number and the SHA-256 of every file in the version's
folder. Each digest is compared with bytes that were read once: those of the contract are the bytes that are decoded,
and those of the other files are the digests in the contract, with which each file is compared where it is read.
model.toml is the operator's and lies beside the versions, so it is not covered.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import msgspec

from tableside.contracts.schema import Contract
from tableside.errors import ContractBroken, FailureKind
from tableside.process import plain_files
from tableside.repository import signing_keys, verified_files
from tableside.repository.paths import CONTRACT, SIGNATURE
from tableside.repository.signing_keys import Signer

MAX_BYTES = 1 << 20
MAX_SIGNATURES = 16
_HEAD = b"tableside version statement 1\n"
"""Stands before what is signed, so that a signature of this project can mean nothing else."""
_RESTORE = "Restore the version's folder from a copy, or publish the model again"


class Statement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a signer says: the version NAME/NUMBER consists of these files. files: path to SHA-256, sorted by path."""

    name: str
    version: int
    files: dict[str, str]

    def encode(self) -> str:
        """Return the statement as JSON. Equal statements give equal texts."""
        return msgspec.json.encode(self, order="sorted").decode()


class KeySignature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The signature of one key, as text."""

    key: str
    signature: str


class SignatureFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of `signature.json`. statement: the text that was signed, byte for byte."""

    statement: str
    signatures: tuple[KeySignature, ...]


class Standing(msgspec.Struct, frozen=True):
    """What a version's signature says.

    signer: the name of a key with a valid signature, or the key; empty without one. is_trusted: whether
    `repository.trusted_keys` has it. problem: why the signature does not hold; empty for an unsigned version too.
    """

    signer: str = ""
    is_trusted: bool = False
    problem: str = ""


def check(folder: Path, contract: Contract, content: bytes, trusted_keys: Iterable[str]) -> None:
    """Raise ContractBroken with FailureKind.SIGNATURE unless one of the keys has signed the version as it is.

    content: the bytes of contract.json from which `contract` was decoded. The digests in the contract are compared with
    the statement here, and each file with its digest where it is read.
    """
    version = f"{contract.name}/{contract.version}"
    found = standing(folder, contract, content, trusted_keys)
    if found.problem:
        raise _refused(f"{found.problem}. {_RESTORE}")
    if not found.signer:
        raise _refused(
            "the version is not signed, and repository.trusted_keys asks for a signature. Have it signed by one of "
            f"these keys: `tableside sign {version} --key KEYFILE`; then `tableside reload`"
        )
    if not found.is_trusted:
        raise _refused(
            f"the version is signed by an unknown key, {found.signer}. Add it to repository.trusted_keys and restart, "
            f"or have the version signed by one of these keys: `tableside sign {version} --key KEYFILE`"
        )


def standing(folder: Path, contract: Contract, content: bytes, trusted_keys: Iterable[str] = ()) -> Standing:
    """Return what the signature of a version says. The arguments are those of `check`; nothing is raised."""
    names = signing_keys.names_by_key(trusted_keys)
    try:
        file = read(folder)
        if file is None:
            return Standing()
        key = _valid_key(file, names)
        statement = _statement(file)
        problem = _difference(folder, contract, content, statement)
    except ContractBroken as refused:
        return Standing(problem=str(refused))
    signer = names.get(key, key)
    if problem:
        return Standing(problem=f"{problem} after {signer} has signed the version")
    return Standing(signer, key in names)


def read(folder: Path) -> SignatureFile | None:
    """Return the signature file of a version; None if there is none. Raises ContractBroken if it is not one."""
    try:
        with plain_files.open_plain(folder / SIGNATURE, os.O_NOFOLLOW) as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise OSError(f"it has more than {MAX_BYTES} bytes")
        found = msgspec.json.decode(content, type=SignatureFile)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as problem:
        raise _refused(f"{SIGNATURE} cannot be read: {_reason(problem)}") from problem
    if not 0 < len(found.signatures) <= MAX_SIGNATURES:
        raise _refused(f"{SIGNATURE} has {len(found.signatures)} signatures; it may have 1 to {MAX_SIGNATURES}")
    return found


def _reason(problem: Exception) -> str:
    return (problem.strerror if isinstance(problem, OSError) else None) or str(problem)


def _valid_key(file: SignatureFile, names: Mapping[str, str]) -> str:
    """Return a key with a valid signature, a trusted one if there is one. Raises ContractBroken if none is valid."""
    signatures = sorted(file.signatures, key=lambda each: each.key not in names)
    for each in signatures:
        if signing_keys.is_valid(each.key, each.signature, _message(file.statement)):
            return each.key
    whose = signatures[0].key
    whose = names.get(whose, whose) if signing_keys.PUBLIC_KEY.match(whose) else "a text that is no key"
    raise _refused(f"{SIGNATURE} is forged or damaged: it names {whose}, which has not signed what it says")


def _message(statement: str) -> bytes:
    return _HEAD + statement.encode()


def _statement(file: SignatureFile) -> Statement:
    try:
        statement = msgspec.json.decode(file.statement, type=Statement)
    except (msgspec.DecodeError, UnicodeDecodeError) as problem:
        raise _refused(f"{SIGNATURE} has a statement that cannot be read: {problem}") from problem
    for path in statement.files:
        if not verified_files.is_safe(path):
            raise _refused(f"{SIGNATURE} names the file {_shown(path)!r}, which is no name of a file of a version")
    return statement


def _difference(folder: Path, contract: Contract, content: bytes, statement: Statement) -> str:
    """Return in words what differs from the statement; empty if nothing does."""
    if (statement.name, statement.version) != (contract.name, contract.version):
        raise _refused(f"{SIGNATURE} is that of {_shown(statement.name)}/{statement.version}")
    there = set()
    for path in _paths(folder, statement.files):
        if path not in statement.files:
            return f"{_shown(path)} was added"
        there.add(path)
    for path, digest in digests(folder, contract, content, statement.files).items():
        if path not in there:
            return f"{_shown(path)} was removed"
        if digest != statement.files[path]:
            return f"{_shown(path)} was changed"
    return ""


def digests(folder: Path, contract: Contract, content: bytes, paths: Iterable[str]) -> dict[str, str | None]:
    """Return the SHA-256 of each path: of the contract's bytes, as the contract says, or else of the file.

    None stands for a file that cannot be read.
    """
    files = (contract.artifact, *filter(None, (contract.graph,)), *contract.boosters, *contract.code)
    known = {file.file: file.sha256 for file in files} | {CONTRACT: hashlib.sha256(content).hexdigest()}
    return {path: known[path] if path in known else _digest(folder / path) for path in paths}


def _digest(path: Path) -> str | None:
    try:
        with plain_files.open_plain(path, os.O_NOFOLLOW) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def _paths(folder: Path, expected: Iterable[str]) -> Iterator[str]:
    """Yield the path of everything in a version's folder but its signature, and folders that `expected` has files in.

    Links are not followed. Raises ContractBroken if the folder cannot be read.
    """
    folders = {str(parent) for path in expected for parent in Path(path).parents} - {"."}
    waiting = [""]
    try:
        while waiting:
            prefix = waiting.pop()
            with os.scandir(folder / prefix) as entries:
                for entry in sorted(entries, key=lambda entry: entry.name):
                    path = f"{prefix}{entry.name}"
                    if path in folders and entry.is_dir(follow_symlinks=False):
                        waiting.append(f"{path}/")
                    elif path != SIGNATURE:
                        yield path
    except OSError as problem:
        raise _refused(f"the folder cannot be read: {_reason(problem)}") from problem


def statement_of(folder: Path, contract: Contract, content: bytes) -> Statement:
    """Return the statement of a version as it is. Raises ContractBroken if a file of it cannot be read.

    content: as for `check`. The caller has compared the files with the digests in the contract.
    """
    below = [file.file for file in contract.code]
    found = digests(folder, contract, content, sorted(_paths(folder, below)))
    for path, digest in found.items():
        if digest is None or not verified_files.is_safe(path):
            raise _refused(f"{_shown(path)} is no ordinary file of a version. Remove it, then sign the version")
    return Statement(contract.name, contract.version, {path: digest for path, digest in found.items() if digest})


def sign(statement: Statement, signer: Signer, before: SignatureFile | None = None) -> bytes:
    """Return the content of a signature file with the signer's signature of the statement.

    before: a file whose signatures are kept if they are of the same statement.
    """
    text = statement.encode()
    kept = before.signatures if before is not None and before.statement == text else ()
    others = tuple(each for each in kept if each.key != signer.public)
    if len(others) >= MAX_SIGNATURES:
        raise _refused(f"{SIGNATURE} has {len(others)} signatures, and may have {MAX_SIGNATURES}")
    made = KeySignature(signer.public, signer.sign(_message(text)))
    return msgspec.json.format(msgspec.json.encode(SignatureFile(text, (*others, made))), indent=1) + b"\n"


def _shown(path: str) -> str:
    """Return a file's name as text for a message: what a terminal or a log could misread is escaped."""
    return path.encode("unicode_escape").decode()[:200]


def _refused(detail: str) -> ContractBroken:
    return ContractBroken(detail, FailureKind.SIGNATURE)
