"""The consent file: which versions may run the code that they bring, who said so, and when.

Own code and pickles run what they contain when they are loaded. Writing a file into the repository must not be enough
for that, so consent is recorded in a file outside of it (`repository.consent_file`), one JSON object a line. Lines are
only added; the last line about a digest counts. `tableside publish` adds a line for what it publishes on this host,
`tableside consent` for versions that arrived in another way.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec

from tableside.contracts.consent_digest import consent_digest, is_pickle, needs_consent
from tableside.contracts.schema import Artifact, Contract
from tableside.errors import ContractBroken, FailureKind
from tableside.process.os_user import current_user


class Entry(msgspec.Struct, frozen=True):
    """One line of the consent file.

    sha256: the digest of the artifact and the code (tableside.contracts.consent_digest). how: the command. files: what
    the consent covers. by: the user who ran the command, `at` this time (UTC, ISO 8601), on this `host`.
    """

    action: Literal["grant", "revoke"]
    sha256: str
    name: str
    version: int
    repository: str
    how: Literal["publish", "consent"]
    by: str
    host: str
    at: str
    files: tuple[Artifact, ...]


def entry_of(contract: Contract, root: Path, how: Literal["publish", "consent"]) -> Entry:
    """Return the entry that records this user's consent to a version, now."""
    return Entry(
        action="grant", sha256=consent_digest(contract), name=contract.name, version=contract.version,
        repository=str(root.resolve()), how=how, by=current_user(), host=socket.gethostname(),
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        files=(contract.artifact, *contract.boosters, *contract.code),
    )  # fmt: skip


def revoked(entry: Entry) -> Entry:
    """Return the entry that revokes another one, by this user and now."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return msgspec.structs.replace(
        entry, action="revoke", how="consent", by=current_user(), host=socket.gethostname(), at=now
    )


def check_place(path: Path, root: Path) -> None:
    """Raise ContractBroken if the consent file is inside the repository, or can be written or replaced by every user.

    Whoever can write models could write consent to them otherwise.
    """
    if path.resolve().is_relative_to(root.resolve()):
        raise ContractBroken(
            f"repository.consent_file ({path}) is inside the repository {root}, so whoever writes models could consent "
            "to them. Set it to a file outside of the repository",
            FailureKind.CONSENT,
        )
    try:
        is_open = bool(path.stat().st_mode & stat.S_IWOTH)
    except OSError:
        is_open = False
    if is_open:
        raise ContractBroken(
            f"repository.consent_file ({path}) can be written by every user of this host. Run: chmod o-w {path}",
            FailureKind.CONSENT,
        )
    replaceable = _replaceable(path.absolute())
    if replaceable is not None:
        raise ContractBroken(
            f"repository.consent_file ({path}) can be replaced by every user of this host, who may write into "
            f"{replaceable}. Run: chmod o-w {replaceable}, or set it to a file in another folder",
            FailureKind.CONSENT,
        )


def _replaceable(path: Path) -> Path | None:
    """The folder above the path into which every user may put another file or folder in its place; None if none is.

    In a folder with the sticky bit, such as /tmp, only the owner may: that must be this user or root.
    """
    for each in dict.fromkeys([path, *path.parents, path.resolve(), *path.resolve().parents]):
        try:
            mode, owner = each.parent.stat().st_mode, each.lstat().st_uid
        except OSError:
            continue
        is_ours = owner in (0, os.geteuid())
        if mode & stat.S_IWOTH and not (mode & stat.S_ISVTX and is_ours):
            return each.parent
    return None


def read(path: Path) -> list[Entry]:
    """Return the entries of the consent file, oldest first; none if it does not exist.

    Raises ContractBroken, which names the line, for a file that cannot be read.
    """
    try:
        lines = path.read_bytes().splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as problem:
        raise ContractBroken(
            f"repository.consent_file ({path}) cannot be read: {problem.strerror}", FailureKind.CONSENT
        ) from problem
    entries = []
    for number, line in enumerate(lines, 1):
        try:
            entries.append(msgspec.json.decode(line, type=Entry))
        except (msgspec.DecodeError, UnicodeDecodeError) as problem:
            raise ContractBroken(
                f"repository.consent_file ({path}), line {number}: {problem}. Correct or remove the line",
                FailureKind.CONSENT,
            ) from problem
    return entries


def granted(entries: Iterable[Entry]) -> dict[str, Entry]:
    """Return the digests to which there is consent, each with the entry that gave it last."""
    found: dict[str, Entry] = {}
    for entry in entries:
        if entry.action == "grant":
            found[entry.sha256] = entry
        else:
            found.pop(entry.sha256, None)
    return found


def append(path: Path, entries: Iterable[Entry]) -> None:
    """Add entries to the consent file, and wait until they are on the disk. Raises OSError if it cannot be written."""
    content = b"".join(msgspec.json.encode(entry) + b"\n" for entry in entries)
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        _append(fd, content)
        os.fsync(fd)
    finally:
        os.close(fd)


def _append(fd: int, content: bytes) -> None:
    """Write all of the content as lines of their own, or nothing: half a line would make the whole file unreadable."""
    size = os.fstat(fd).st_size
    if size and os.pread(fd, 1, size - 1) != b"\n":  # edited by hand
        content = b"\n" + content
    try:
        written = os.write(fd, content)
        if written < len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError:
        os.ftruncate(fd, size)
        raise


def is_granted(contract: Contract, path: Path) -> bool:
    """Return whether there is consent to a version, or it needs none. Raises ContractBroken, as `read` does."""
    return not needs_consent(contract) or consent_digest(contract) in granted(read(path))


def check(root: Path, contract: Contract, path: Path) -> None:
    """Raise ContractBroken unless there is consent to the code that a version brings, or it brings none.

    path: the consent file. Call it before anything of the version is loaded or imported. FailureKind.DAMAGED: there was
    consent to other content of this version, so its files were changed.
    """
    if not needs_consent(contract):
        return
    check_place(path, root)
    consented = granted(read(path))
    if consent_digest(contract) in consented:
        return
    version, what = f"{contract.name}/{contract.version}", what_it_brings(contract)
    before = _last_about(contract, root, consented.values())
    if before is not None:
        raise ContractBroken(
            f"{version} holds {what}, and its files are not those to which {before.by} consented on {before.at[:10]}. "
            f"Restore them from a copy. If the change is yours, look at them and consent with `tableside consent "
            f"{version}`",
            FailureKind.DAMAGED,
        )
    raise ContractBroken(
        f"waits for consent: it holds {what}, which would run in the server, and nobody on this host has consented. "
        f"Look at it and consent with `tableside consent {version}`",
        FailureKind.CONSENT,
    )


def _last_about(contract: Contract, root: Path, consented: Iterable[Entry]) -> Entry | None:
    """The newest consent to this version of this repository, whatever its files were."""
    place = (contract.name, contract.version, str(root.resolve()))
    about = [entry for entry in consented if (entry.name, entry.version, entry.repository) == place]
    return max(about, key=lambda entry: entry.at, default=None)


def what_it_brings(contract: Contract) -> str:
    """Return in words what code a version brings: `own code (2 files)`, `a pickle`."""
    files = len(contract.code)
    code = f"own code ({files} file{'' if files == 1 else 's'})" if files else ""
    return " and ".join(filter(None, [code, "a pickle" if is_pickle(contract) else ""]))
