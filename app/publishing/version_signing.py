"""Signs a version that is published already."""

from __future__ import annotations

import os
import uuid
from contextlib import suppress
from pathlib import Path

from tableside.errors import ContractBroken, FailureKind, KeysFailed
from tableside.publishing import artifact_files
from tableside.repository import integrity, paths, signatures
from tableside.repository.signatures import SignatureFile, Statement
from tableside.repository.signing_keys import Signer


def sign_version(root: Path, name: str, number: int, signer: Signer, *, replace: bool = False) -> bool:
    """Sign a version as it is. Return False if the key has signed it before and nothing has changed.

    The files are compared with the contract and its checksums first. Signatures of other keys are kept. replace: put
    the signature in place of one that does not hold for these files. Raises ContractBroken for a version that is
    damaged, and for such a signature; KeysFailed if the signature cannot be written.
    """
    contract, content = integrity.read_with_bytes(root, name, number)
    integrity.check_artifact(root, contract)
    integrity.check_checksums(root, contract)
    folder = paths.version_folder(root, name, number)
    before = signatures.standing(folder, contract, content, [signer.public])
    if before.is_trusted:
        return False
    statement = signatures.statement_of(folder, contract, content)
    kept = None if replace else _kept(folder, statement, f"{name}/{number}", before.problem)
    _write(folder, signatures.sign(statement, signer, kept))
    return True


def _kept(folder: Path, statement: Statement, version: str, problem: str) -> SignatureFile | None:
    """Return the signatures that are kept. Raises ContractBroken if they are not of these files."""
    found = None if problem else signatures.read(folder)
    if problem or (found is not None and found.statement != statement.encode()):
        raise ContractBroken(
            f"{version}: {problem or 'its signature is of other files'}. Restore the version's folder from a copy. If "
            "you know why the files are not those that were signed, and answer for them, add --replace",
            FailureKind.SIGNATURE,
        )
    return found


def _write(folder: Path, content: bytes) -> None:
    """Write the signature file in one step. The draft lies beside the versions: inside it would count as a file."""
    draft = folder.parent / f".signing-{uuid.uuid4().hex}"
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(folder / paths.SIGNATURE)
        artifact_files.sync(folder)
    except OSError as problem:
        with suppress(OSError):
            draft.unlink()
        raise KeysFailed(f"{folder / paths.SIGNATURE} cannot be written: {problem.strerror}") from problem
