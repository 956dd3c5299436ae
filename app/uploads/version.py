"""Publishes an uploaded version folder: the contract and its files as the trainer's `tableside publish` wrote them.

The version is checked in a repository of its own, as a load would check it, before its folder gets its number. So
nothing that this host cannot serve, or may not run, is ever seen by a worker.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import NamedTuple

import msgspec

from tableside.contracts import schema
from tableside.contracts.consent_digest import is_pickle
from tableside.contracts.environment import sha256
from tableside.contracts.schema import Contract
from tableside.control_errors import Conflict, Forbidden
from tableside.errors import ContractBroken, FailureKind, RequestRejected
from tableside.model_process.environment_pools import private
from tableside.model_process.known_environments import known
from tableside.preflight.checks import check_version
from tableside.process import plain_files
from tableside.publishing import draft_folder
from tableside.publishing.draft_folder import Terms
from tableside.publishing.progress import Progress
from tableside.repository import consent_file, integrity, paths, signatures, version_record
from tableside.settings import Settings

NO_PICKLE = (
    "the artifact is a pickle, and a pickle is taken from no client: reading it runs the code in it. Publish the "
    "estimator as skops, which `tableside publish` does, and send that; or run `tableside publish --as-pickle` on the "
    "server's own host"
)


class Placed(NamedTuple):
    """A published version. was_there: whether the repository already had exactly this version under this number."""

    contract: Contract
    was_there: bool = False


def publish_folder(
    settings: Settings, name: str, folder: Path, draft: Path, *, renumber: bool, breaking: bool, progress: Progress
) -> Placed:
    """Publish the version in `folder` as a version of the model `name`.

    draft: a folder in the model's folder for the checks; the caller removes it. renumber: give it the model's next
    number, and this name; otherwise it keeps its own. breaking: also if it takes requests whose clients it breaks; if
    not, BreaksClients is raised. Raises RequestRejected for what is no version of this model or
    does not answer its golden rows here, Forbidden for a pickle, and for own code or a signature that this host does
    not take, Conflict for a number that is used.
    """
    root, policy = settings.repository_path, settings.repository
    progress("checking the files")
    contract, content = _read(folder)
    _refuse_unlisted(folder, contract)
    if is_pickle(contract):
        raise Forbidden(NO_PICKLE)
    if renumber:
        signed = (folder / paths.SIGNATURE).exists()
        if signed and policy.trusted_keys:
            raise Forbidden(
                "a signature is of a name and a number, so a version that gets another number has none that holds, and "
                "repository.trusted_keys asks for one. Send it without number=next"
            )
        number = version_record.next_number(root, name)
        contract, content = _renumbered(folder, contract, name, number)
    elif contract.name != name:
        raise RequestRejected(
            f"the version is {contract.name}/{contract.version}, and was sent to the model {name!r}. Send it to "
            f"/admin/api/models/{contract.name}/versions, or with number=next, which publishes it as the next version "
            f"of {name!r}"
        )
    elif _is_there(root, contract, content):
        return Placed(contract, was_there=True)
    terms = Terms(breaking=breaking)
    draft_folder.check_clients(root, contract, contract.version, terms)
    place = paths.version_folder(draft, name, contract.version)
    place.parent.mkdir(parents=True, exist_ok=True)
    folder.rename(place)
    _check(settings, draft, contract, content, progress)
    draft_folder.place(root / name, place, contract, terms)
    return Placed(contract)


def _read(folder: Path) -> tuple[Contract, bytes]:
    try:
        content = plain_files.read(folder / paths.CONTRACT)
        contract = schema.decode(content)
    except (OSError, msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as problem:
        raise RequestRejected(f"{paths.CONTRACT} is not a contract: {problem}") from problem
    if not paths.VERSION.match(str(contract.version)):
        raise RequestRejected(f"{paths.CONTRACT} has the version {contract.version}, which is no version number")
    return contract, content


def _refuse_unlisted(folder: Path, contract: Contract) -> None:
    """Raise RequestRejected for a file that is none of the version's: nobody would ever compare it with a hash."""
    files = (contract.artifact, contract.graph, *contract.boosters, *contract.code)
    listed = {file.file for file in files if file is not None}
    listed |= {paths.CONTRACT, paths.CHECKSUMS, paths.SIGNATURE}
    found = {
        os.path.relpath(os.path.join(place, name), folder) for place, _, names in os.walk(folder) for name in names
    }
    if extra := sorted(found - listed):
        raise RequestRejected(
            f"the contract does not name {', '.join(extra[:5])}{' and more' if len(extra) > 5 else ''}. Send only the "
            "files that `tableside publish` wrote"
        )


def _renumbered(folder: Path, contract: Contract, name: str, number: int) -> tuple[Contract, bytes]:
    contract = msgspec.structs.replace(contract, name=name, version=number)
    content = schema.encode(contract)
    (folder / paths.SIGNATURE).unlink(missing_ok=True)
    (folder / paths.CONTRACT).write_bytes(content)
    (folder / paths.CHECKSUMS).write_bytes(integrity.checksum_lines(contract).encode())
    return contract, content


def _is_there(root: Path, contract: Contract, content: bytes) -> bool:
    """Return whether the repository has this version. Raises Conflict if its number was used for another one."""
    name, number = contract.name, contract.version
    digest = hashlib.sha256(content).hexdigest()
    published = number in paths.versions(root, name)
    if published and sha256(paths.version_folder(root, name, number) / paths.CONTRACT) == digest:
        return True
    before = version_record.used(root, name, number)
    if published or (before is not None and before.contract_sha256 != digest):
        raise Conflict(
            f"{name}/{number} is another version that this server {'has' if published else 'had'}, and a number is "
            "never used twice. Send it with number=next (`tableside push --next`), which gives it "
            f"{version_record.next_number(root, name)}"
        )
    return False


def _check(settings: Settings, draft: Path, contract: Contract, content: bytes, progress: Progress) -> None:
    """Check the version below `draft` as a load does, golden rows included. Raises Forbidden or RequestRejected."""
    root, policy, name = settings.repository_path, settings.repository, contract.name
    place = paths.version_folder(draft, name, contract.version)
    try:
        if policy.trusted_keys:
            signatures.check(place, contract, content, policy.trusted_keys)
        integrity.check_artifact(draft, contract)
        integrity.check_checksums(draft, contract)
        consent_file.check(root, contract, Path(policy.consent_file))
        if (root / name / paths.MODEL_TOML).exists():
            shutil.copyfile(root / name / paths.MODEL_TOML, draft / name / paths.MODEL_TOML)
        progress("replaying the golden rows")
        check_version(
            draft, name, contract.version, policy, None, private(known(settings), policy.load_timeout_s), None
        )
    except ContractBroken as problem:
        raise _refusal(problem, contract) from problem


def _refusal(problem: ContractBroken, contract: Contract) -> Exception:
    if problem.failure_kind is FailureKind.SIGNATURE:
        return Forbidden(str(problem))
    if problem.failure_kind is FailureKind.CONSENT:
        return Forbidden(
            f"the version holds {consent_file.what_it_brings(contract)}, which would run in the server, and nobody on "
            "its host has consented. Copy it to a folder on that host, look at it, and consent there: `tableside "
            f"consent {contract.name}/{contract.version} --repository FOLDER`; then send it again"
        )
    return RequestRejected(f"{contract.name}/{contract.version} is not served here: {problem}")
