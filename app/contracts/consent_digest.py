"""Names and digests of a version's own code: the modules that the trainer published with the estimator.

The modules are imported below a package whose name is made from their content, so that versions with different code of
the same name do not meet in one process. Consent is given to a digest of the code and the artifact together.
"""

from __future__ import annotations

from tableside.contracts.schema import Contract
from tableside.own_code.importer import digest_of, package_name

FOLDER = "code"
"""Folder of own code below the version's folder."""
PICKLE = "model.joblib"
"""File name of an artifact that is a pickle. Reading one runs the code in it."""


def package_of(contract: Contract) -> str:
    """Return the name of the package below which the version's own code is imported; empty without own code."""
    if not contract.code:
        return ""
    return package_name({file.file.removeprefix(f"{FOLDER}/"): file.sha256 for file in contract.code})


def own_types(contract: Contract) -> tuple[str, ...]:
    """Return the types in the artifact that the version's own code defines. Consent to the version covers them."""
    package = package_of(contract)
    return tuple(kind for kind in contract.types if package and kind.startswith(f"{package}."))


def is_pickle(contract: Contract) -> bool:
    """Return whether the artifact is a pickle."""
    return contract.artifact.file == PICKLE


def needs_consent(contract: Contract) -> bool:
    """Return whether loading the version runs code that it brings: own code, or a pickle."""
    return bool(contract.code) or is_pickle(contract)


def consent_digest(contract: Contract) -> str:
    """Return what consent is given to: a SHA-256 of the paths and hashes of artifact, boosters and every file of code.

    The artifact is part of it, because it decides with which arguments the code is called.
    """
    files = (contract.artifact, *contract.boosters, *contract.code)
    return digest_of({file.file: file.sha256 for file in files})
