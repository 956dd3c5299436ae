"""Ed25519 keys of those who sign versions: a private key in a file of its owner, a public key as one line of text.

The package cryptography is imported where a signature is made or verified, so that a server without
`repository.trusted_keys` does not pay for it.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tableside import private_files
from tableside.errors import KeysFailed
from tableside.process import plain_files

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

PREFIX = "ed25519:"
PUBLIC_KEY = re.compile(rf"^{PREFIX}[A-Za-z0-9_-]{{43}}\Z")
"""A public key as text: its 32 bytes in base64 for URLs, without padding."""
_MAX_BYTES = 16384


def names_by_key(trusted_keys: Iterable[str]) -> dict[str, str]:
    """Return the name of each public key in `repository.trusted_keys`: what is left of `=`; the key itself without."""
    return {entry.rpartition("=")[2]: entry.partition("=")[0] for entry in trusted_keys}


@dataclass(frozen=True)
class Signer:
    """A private key. public: its public key as text."""

    _key: Ed25519PrivateKey
    public: str

    def sign(self, message: bytes) -> str:
        """Return the signature of a message, in base64 for URLs."""
        return _text(self._key.sign(message))


def is_valid(public: str, signature: str, message: bytes) -> bool:
    """Return whether the owner of a public key has signed the message.

    public, signature: as text; anything that is no key or no signature gives False. Takes 0.1 ms.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    if not PUBLIC_KEY.match(public):
        return False
    try:
        key = Ed25519PublicKey.from_public_bytes(_bytes(public.removeprefix(PREFIX)))
        key.verify(_bytes(signature), message)
    except (ValueError, InvalidSignature):  # binascii.Error is a ValueError
        return False
    return True


def make(path: Path, root: Path) -> str:
    """Write a new private key to a new file of mode 0600, PKCS #8 in PEM. Return the public key as text.

    root: the model repository, in which it must not be. Raises KeysFailed if the file exists or cannot be written.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    _check_place(path, root)
    key = Ed25519PrivateKey.generate()
    content = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
            os.fchmod(file.fileno(), 0o600)
            _write(path, file.fileno(), content)
    except FileExistsError as problem:
        raise KeysFailed(
            f"{path} exists, and a key that is overwritten is lost. Name another file, or print the public key of this "
            "one with --public"
        ) from problem
    except OSError as problem:
        raise KeysFailed(f"{path} cannot be written: {problem.strerror}") from problem
    return _public(key.public_key())


def _write(path: Path, fd: int, content: bytes) -> None:
    """Write a whole key, or leave no file."""
    try:
        os.write(fd, content)
        os.fsync(fd)
    except OSError:
        with suppress(OSError):
            path.unlink()
        raise


def read(path: Path, root: Path) -> Signer:
    """Return the private key of a file.

    root: the model repository, in which it must not be. Raises KeysFailed if it cannot be read, is no Ed25519 key, has
    a passphrase, or if others than its owner may have read it.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    _check_place(path, root)
    content = _content(path)
    try:
        key = serialization.load_pem_private_key(content, None)
    except TypeError as problem:
        raise KeysFailed(
            f"{path} has a passphrase, and a key is read without one. Write it without: openssl pkey -in {path} -out "
            "FILE"
        ) from problem
    except (ValueError, UnsupportedAlgorithm) as problem:
        raise KeysFailed(
            f"{path} is no private key in PEM. Make one with `tableside signing-key FILE`, or name its file"
        ) from problem
    if not isinstance(key, Ed25519PrivateKey):
        raise KeysFailed(f"{path} is a key of another kind than Ed25519. Make one with `tableside signing-key FILE`")
    return Signer(key, _public(key.public_key()))


def _content(path: Path) -> bytes:
    """Return the content of a key file. A link is followed, because stores of secrets make links."""
    try:
        with plain_files.open_plain(path) as file:
            found = os.fstat(file.fileno())
            content = file.read(_MAX_BYTES + 1)
    except OSError as problem:
        raise KeysFailed(f"the signing key {path} cannot be read: {problem.strerror or problem}") from problem
    if why := private_files.problem(found, path):
        raise KeysFailed(f"{path} {why}")
    if len(content) > _MAX_BYTES:
        raise KeysFailed(f"{path} is no private key: it has more than {_MAX_BYTES} bytes")
    return content


def _check_place(path: Path, root: Path) -> None:
    if path.resolve().is_relative_to(root.resolve()):
        raise KeysFailed(
            f"{path} is inside the repository {root}, so whoever reads models could sign versions. Name a file outside "
            "of the repository"
        )


def _public(key: Ed25519PublicKey) -> str:
    return PREFIX + _text(key.public_bytes_raw())


def _text(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def _bytes(text: str) -> bytes:
    """Decode base64 for URLs without padding. Raises ValueError for anything else."""
    padded = text.encode("ascii") + b"=" * (-len(text) % 4)
    return base64.b64decode(padded, altchars=b"-_", validate=True)
