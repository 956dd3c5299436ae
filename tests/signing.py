"""Keys and forgeries for the tests of signatures."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from tableside.contracts import schema
from tableside.contracts.environment import sha256
from tableside.errors import FailureKind
from tableside.publishing.version_signing import sign_version
from tableside.repository import integrity, paths, signatures, signing_keys

Forge = Callable[[Path, "Keys"], None]


class Keys:
    """The key of alice, whom the servers of a test trust, and that of mallory, whom nobody trusts."""

    def __init__(self, folder: Path) -> None:
        root = folder / "no-repository"
        self.files = {name: folder / f"{name}.pem" for name in ("alice", "mallory")}
        self.public = {name: signing_keys.make(file, root) for name, file in self.files.items()}
        self.signers = {name: signing_keys.read(file, root) for name, file in self.files.items()}
        self.trusted = (f"alice={self.public['alice']}",)


def sign(folder: Path, keys: Keys, who: str = "alice") -> None:
    """Sign a version's folder, `root/name/number`, as it is."""
    sign_version(folder.parent.parent, folder.parent.name, int(folder.name), keys.signers[who], replace=True)


def copy_version(folder: Path, number: int) -> Path:
    """Copy a version, unsigned and writable, to another number of its model, as publish would have written it."""
    made = folder.parent / str(number)
    shutil.copytree(folder, made)
    (made / paths.SIGNATURE).unlink(missing_ok=True)
    for file in made.iterdir():
        file.chmod(0o644)
    change_contract(made, version=number)
    return made


def change_contract(folder: Path, **changed: Any) -> None:
    """Change fields of a contract, and the checksums with it, as one does who can write the repository."""
    contract = msgspec.structs.replace(schema.decode((folder / paths.CONTRACT).read_bytes()), **changed)
    (folder / paths.CONTRACT).write_bytes(schema.encode(contract))
    (folder / paths.CHECKSUMS).write_text(integrity.checksum_lines(contract))


def change_artifact(folder: Path, keys: Keys) -> None:
    path = folder / paths.ARTIFACT
    path.write_bytes(path.read_bytes() + b"\0")


def change_everything(folder: Path, keys: Keys) -> None:
    """Another artifact, with the digests that fit it: all that checksums could notice fits."""
    change_artifact(folder, keys)
    path = folder / paths.ARTIFACT
    change_contract(folder, artifact=schema.Artifact(path.name, sha256(path), path.stat().st_size))


def forge_statement(folder: Path, keys: Keys) -> None:
    """The digests of a forged version in the statement, under the signature of the original."""
    change_everything(folder, keys)
    path = folder / paths.SIGNATURE
    file = json.loads(path.read_bytes())
    statement = json.loads(file["statement"])
    for name in statement["files"]:
        statement["files"][name] = sha256(folder / name)
    rewrite(path, {**file, "statement": json.dumps(statement, separators=(",", ":"), sort_keys=True)})


def rewrite(path: Path, content: object) -> None:
    path.unlink()
    path.write_text(json.dumps(content))


def change_file(**changed: Any) -> Forge:
    def forge(folder: Path, keys: Keys) -> None:
        path = folder / paths.SIGNATURE
        rewrite(path, {**json.loads(path.read_bytes()), **changed})

    return forge


def write(path: str, content: bytes) -> Forge:
    def forge(folder: Path, keys: Keys) -> None:
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).unlink(missing_ok=True)
        (folder / path).write_bytes(content)

    return forge


def remove(path: str) -> Forge:
    return lambda folder, keys: (folder / path).unlink()


def sign_by_mallory(folder: Path, keys: Keys) -> None:
    (folder / paths.SIGNATURE).unlink()
    sign(folder, keys, "mallory")


def borrow_the_name(folder: Path, keys: Keys) -> None:
    """mallory's signature, under alice's key."""
    sign_by_mallory(folder, keys)
    path = folder / paths.SIGNATURE
    file = json.loads(path.read_bytes())
    rewrite(path, {**file, "signatures": [{**file["signatures"][0], "key": keys.public["alice"]}]})


def take_from_another_version(folder: Path, keys: Keys) -> None:
    other = copy_version(folder, 900 + int(folder.name))
    sign(other, keys)
    shutil.move(other / paths.SIGNATURE, folder / paths.SIGNATURE)
    shutil.rmtree(other)


def take_from_another_model(folder: Path, keys: Keys) -> None:
    """The same files and the same number, signed as the version of another model."""
    other = folder.parent.parent / "other" / folder.name
    shutil.copytree(folder, other)
    change_contract(other, name="other")
    sign(other, keys)
    shutil.move(other / paths.SIGNATURE, folder / paths.SIGNATURE)
    shutil.rmtree(other.parent)


def sign_too_often(folder: Path, keys: Keys) -> None:
    one = json.loads((folder / paths.SIGNATURE).read_bytes())["signatures"][0]
    change_file(signatures=[one] * (signatures.MAX_SIGNATURES + 1))(folder, keys)


def make_a_pipe(folder: Path, keys: Keys) -> None:
    (folder / paths.SIGNATURE).unlink()
    os.mkfifo(folder / paths.SIGNATURE)


def make_a_link(folder: Path, keys: Keys) -> None:
    """The right signature, behind a link to a file beside the version."""
    elsewhere = folder.parent / f"signature-{folder.name}.json"
    shutil.copy(folder / paths.SIGNATURE, elsewhere)
    (folder / paths.SIGNATURE).unlink()
    (folder / paths.SIGNATURE).symlink_to(elsewhere)


def make_a_folder(folder: Path, keys: Keys) -> None:
    (folder / paths.SIGNATURE).unlink()
    (folder / paths.SIGNATURE).mkdir()


SIGNATURE, DAMAGED = FailureKind.SIGNATURE, FailureKind.DAMAGED
AFTER = "after alice has signed the version"
FORGERIES: dict[str, tuple[Forge, str, FailureKind]] = {
    "changed artifact": (change_artifact, "model.skops is damaged", DAMAGED),
    "changed contract": (
        lambda folder, keys: change_contract(folder, created_at="2020-01-01T00:00:00+00:00"),
        f"contract.json was changed {AFTER}", SIGNATURE,
    ),
    "changed artifact, contract and checksums": (change_everything, f"was changed {AFTER}", SIGNATURE),
    "forged statement": (forge_statement, "signature.json is forged or damaged: it names alice", SIGNATURE),
    "changed checksums": (write(paths.CHECKSUMS, b"0  x\n"), f"checksums.sha256 was changed {AFTER}", SIGNATURE),
    "removed checksums": (remove(paths.CHECKSUMS), f"checksums.sha256 was removed {AFTER}", SIGNATURE),
    "added file": (write("notes.txt", b""), f"notes.txt was added {AFTER}", SIGNATURE),
    "added hidden file": (write(".hidden", b""), f".hidden was added {AFTER}", SIGNATURE),
    "added code": (write("code/sitecustomize.py", b"1"), f"code was added {AFTER}", SIGNATURE),
    "added file with a forged line": (write("a\nok    x", b""), f"a\\nok    x was added {AFTER}", SIGNATURE),
    "removed signature": (remove(paths.SIGNATURE), "the version is not signed", SIGNATURE),
    "signature of an unknown key": (sign_by_mallory, "signed by an unknown key, ed25519:", SIGNATURE),
    "signature under a borrowed name": (borrow_the_name, "signature.json is forged or damaged", SIGNATURE),
    "signature of another version": (take_from_another_version, "signature.json is that of iris/9", SIGNATURE),
    "signature of another model": (take_from_another_model, "signature.json is that of other/", SIGNATURE),
    "signature that is no JSON": (write(paths.SIGNATURE, b"\xff{"), "signature.json cannot be read", SIGNATURE),
    "signature of another form": (change_file(statement=[1]), "signature.json cannot be read", SIGNATURE),
    "statement with half a character": (
        write(paths.SIGNATURE, b'{"statement": "\\ud800", "signatures": [{"key": "a", "signature": "b"}]}'),
        "signature.json cannot be read", SIGNATURE,
    ),
    "signature without signatures": (change_file(signatures=[]), "has 0 signatures", SIGNATURE),
    "too many signatures": (sign_too_often, "has 17 signatures", SIGNATURE),
    "key that is no key": (
        change_file(signatures=[{"key": "\x1b]0;x", "signature": "\u00e9"}]),
        "it names a text that is no key", SIGNATURE,
    ),
    "huge signature": (
        write(paths.SIGNATURE, b" " * (signatures.MAX_BYTES + 1)), "it has more than 1048576 bytes", SIGNATURE,
    ),
    "signature that is a pipe": (make_a_pipe, "signature.json is not an ordinary file", SIGNATURE),
    "signature that is a link": (make_a_link, "signature.json cannot be read", SIGNATURE),
    "signature that is a folder": (make_a_folder, "signature.json cannot be read: Is a directory", SIGNATURE),
}  # fmt: skip
"""Forgery to what does it to a signed version, the text that refuses it, and the failure kind."""
