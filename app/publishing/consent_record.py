"""Records consent to what is published: whoever publishes own code or a pickle on this host consents to it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from tableside.contracts.consent_digest import needs_consent
from tableside.contracts.schema import Contract
from tableside.errors import ContractBroken, PublishFailed
from tableside.repository import consent_file
from tableside.settings import load


def place(path: Path | None, root: Path) -> Path:
    """Return the consent file: `path`, or that of the settings.

    Raises PublishFailed where it is in a place in which the server would not believe it.
    """
    path = path or Path(load().repository.consent_file)
    try:
        consent_file.check_place(path, root)
    except ContractBroken as problem:
        raise PublishFailed(str(problem)) from problem
    return path


def record(path: Path | None, root: Path, contract: Contract) -> None:
    """Record consent to a published version, if it brings code.

    A user who may not write the consent file has published all the same; the version waits for consent then.
    """
    if path is not None and needs_consent(contract):
        with suppress(OSError):
            consent_file.append(path, [consent_file.entry_of(contract, root, "publish")])
