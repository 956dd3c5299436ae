"""`tableside signing-key`, `tableside sign` and `publish --sign`."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from sklearn.linear_model import LinearRegression

from tableside.cli import main, signing
from tableside.errors import ContractBroken, KeysFailed, PublishFailed
from tableside.publishing.publish import publish
from tableside.repository import integrity, paths, signatures, signing_keys
from tableside.settings import load
from tests.signing import Keys, change_contract, copy_version

pytestmark = pytest.mark.no_greenlets
MLFLOW = Path(__file__).parents[1] / "data" / "mlflow"
ROWS = pd.DataFrame({"a": [1.0, 2.0, 3.0, 4.0], "b": [4.0, 3.0, 1.0, 1.0]})
Run = Callable[..., Result]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return Keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def folder(small_repository: Path) -> Path:
    """The folder of iris/1, unsigned and writable."""
    folder = small_repository / "iris" / "1"
    for file in folder.iterdir():
        file.chmod(0o644)
    return folder


@pytest.fixture
def run(folder: Path, tmp_path: Path) -> Run:
    """Run a command on the repository of `folder`. trusted: the value of repository.trusted_keys."""

    def call(*words: object, trusted: str | None = None) -> Result:
        environ = {
            "TABLESIDE__REPOSITORY__PATH": str(folder.parents[1]), "TABLESIDE__SERVER__RUN_DIR": str(tmp_path / "run"),
            "TABLESIDE__REPOSITORY__TRUSTED_KEYS": trusted,
        }  # fmt: skip
        return CliRunner().invoke(main, [str(word) for word in words], env=environ)

    return call


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    joblib.dump(LinearRegression().fit(ROWS, [1.0, 2.0, 3.0, 5.0]), tmp_path / "sums.joblib")
    ROWS.to_csv(tmp_path / "rows.csv", index=False)
    return tmp_path / "rows.csv"


def check(folder: Path, trusted: str) -> None:
    """Check the signature of a version. Raises ContractBroken."""
    integrity.read_contract(folder.parents[1], folder.parent.name, int(folder.name), [trusted])


def test_a_key_is_made_with_its_public_line(run: Run, tmp_path: Path, folder: Path) -> None:
    """stdout has the line for the setting, which works as it is; the private key is its owner's, and not printed."""
    file = tmp_path / "release.pem"
    done = run("signing-key", file, "--name", "release")
    assert done.exit_code == 0, done.output
    line = done.stdout.strip()
    assert line.startswith("release=ed25519:")
    assert f'trusted_keys = ["{line}"]' in done.stderr
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert isinstance(serialization.load_pem_private_key(file.read_bytes(), None), ed25519.Ed25519PrivateKey)
    assert run("signing-key", file, "--public").stdout.strip() == line.partition("=")[2]
    assert load({"TABLESIDE__REPOSITORY__TRUSTED_KEYS": line}).repository.trusted_keys == (line,)
    assert run("sign", "iris", "--key", file).exit_code == 0
    assert run("verify", "iris", trusted=line).exit_code == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["{there}"], "exists, and a key that is overwritten is lost"),
        (["{models}/key.pem"], "is inside the repository"),
        (["{tmp}/none/key.pem"], "No such file or directory"),
        (["{tmp}/key.pem", "--name", "a b"], "is no name for a key"),
        (["{tmp}/none.pem", "--public"], "cannot be read: No such file"),
    ],
)
def test_a_key_that_cannot_be_made_is_explained(
    run: Run, words: list[str], said: str, tmp_path: Path, folder: Path
) -> None:
    """Nothing is overwritten, and nothing lands where models are copied from."""
    there = tmp_path / "there.pem"
    there.write_text("my only key")
    given = [word.format(there=there, models=folder.parents[1], tmp=tmp_path) for word in words]
    done = run("signing-key", *given)
    assert done.exit_code == 2
    assert said in done.stderr
    assert there.read_text() == "my only key"
    assert not (tmp_path / "key.pem").exists()


def pem(key: ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey, password: bytes | None = None) -> bytes:
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


KEY = ed25519.Ed25519PrivateKey.generate()
BAD_KEYS: dict[str, tuple[bytes, str]] = {
    "text": (b"not a key\n", "is no private key in PEM"),
    "empty": (b"", "is no private key in PEM"),
    "cut": (pem(KEY)[:60], "is no private key in PEM"),
    "public": (
        KEY.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
        "is no private key in PEM",
    ),
    "passphrase": (pem(KEY, b"secret"), "has a passphrase"),
    "RSA": (pem(rsa.generate_private_key(65537, 2048)), "another kind than Ed25519"),
    "huge": (b"-" * 20_000, "more than 16384 bytes"),
}


@pytest.mark.parametrize("name", BAD_KEYS)
def test_a_file_that_is_no_signing_key_is_refused(name: str, run: Run, tmp_path: Path, folder: Path) -> None:
    """The error says what it is, and how to get a key; nothing is signed."""
    content, said = BAD_KEYS[name]
    file = tmp_path / "key.pem"
    file.touch(0o600)
    file.write_bytes(content)
    done = run("sign", "iris", "--key", file)
    assert done.exit_code == 2
    assert said in done.stderr
    assert not (folder / paths.SIGNATURE).exists()


def test_a_key_that_others_may_have_read_is_refused(run: Run, tmp_path: Path, folder: Path) -> None:
    """As the keys file: another mode, another owner, a pipe, or a place inside the repository; a link is followed."""
    file = tmp_path / "key.pem"
    run("signing-key", file)
    file.chmod(0o640)
    assert f"Run: chmod 600 {file}" in run("sign", "iris", "--key", file).stderr
    file.chmod(0o600)
    inside = folder.parents[1] / "key.pem"
    shutil.copy(file, inside)
    assert "is inside the repository" in run("sign", "iris", "--key", inside).stderr
    inside.unlink()
    inside.symlink_to(file)
    assert run("sign", "iris", "--key", inside).exit_code == 0, "the key itself is elsewhere"
    inside.unlink()
    os.mkfifo(tmp_path / "pipe", 0o600)
    assert "is not an ordinary file" in run("sign", "iris", "--key", tmp_path / "pipe").stderr


def test_sign_signs_versions_as_they_are(run: Run, keys: Keys, folder: Path) -> None:
    """One, several or all; signing again says so; an untrusted key is pointed out."""
    copy_version(folder, 2)
    key = keys.files["alice"]
    assert run("sign", "--key", key).exit_code == 2
    assert run("sign", "iris", "--all", "--key", key).exit_code == 2
    done = run("sign", "iris/1", "--key", key, trusted=keys.public["mallory"])
    assert done.stdout == "signed iris/1\n"
    assert f"repository.trusted_keys does not name this key: {keys.public['alice']}" in done.stderr
    done = run("sign", "--all", "--key", key)
    assert done.stdout == "iris/1 is signed by this key already\nsigned iris/2\n"
    assert "next: `tableside reload`" in done.stderr
    check(folder.parent / "2", keys.public["alice"])
    assert sorted(path.name for path in folder.parent.iterdir()) == ["1", "2", "model.toml", "versions.jsonl"], (
        "no draft"
    )
    assert stat.S_IMODE((folder / paths.SIGNATURE).stat().st_mode) == 0o444


def test_sign_refuses_what_is_not_whole(run: Run, keys: Keys, folder: Path) -> None:
    """Nobody signs a damaged version, or one with files that are none of a version's, by mistake."""
    key = keys.files["alice"]
    second, third = copy_version(folder, 2), copy_version(folder, 3)
    (second / paths.ARTIFACT).write_bytes(b"")
    (third / ".hidden").touch()
    done = run("sign", "--all", "--key", key)
    assert done.exit_code == 1
    assert done.stdout == "signed iris/1\n"
    assert "tableside: iris/2: model.skops is damaged" in done.stderr
    assert "tableside: iris/3: .hidden is no ordinary file of a version" in done.stderr
    (second / paths.ARTIFACT).unlink()
    os.mkfifo(second / "pipe")
    shutil.copy(folder / paths.ARTIFACT, second)
    assert "pipe is no ordinary file" in run("sign", "iris/2", "--key", key).stderr


def test_sign_does_not_bless_a_change(run: Run, keys: Keys, folder: Path) -> None:
    """A version that was changed after it was signed, or has a broken signature, is signed with --replace only."""
    alice, mallory = keys.files["alice"], keys.files["mallory"]
    run("sign", "iris", "--key", mallory)
    change_contract(folder, created_at="2020-01-01T00:00:00+00:00")
    done = run("sign", "iris", "--key", alice)
    assert done.exit_code == 2
    assert f"contract.json was changed after {keys.public['mallory']} has signed the version" in done.stderr
    assert "add --replace" in done.stderr
    with pytest.raises(ContractBroken):
        check(folder, keys.public["alice"])
    assert run("sign", "iris", "--key", alice, "--replace").exit_code == 0
    check(folder, keys.public["alice"])
    (folder / paths.SIGNATURE).chmod(0o644)
    (folder / paths.SIGNATURE).write_text("{}")
    assert "add --replace" in run("sign", "iris", "--key", alice).stderr
    assert run("sign", "iris", "--key", alice, "--replace").exit_code == 0
    check(folder, keys.public["alice"])


def test_signatures_are_bounded(keys: Keys, folder: Path) -> None:
    """A file with as many signatures as it may have takes no other one, but the same key's again."""
    contract, content = integrity.read_with_bytes(folder.parents[1], "iris", 1)
    statement = signatures.statement_of(folder, contract, content)
    made = [signatures.KeySignature(f"key {at}", "") for at in range(signatures.MAX_SIGNATURES)]
    full = signatures.SignatureFile(statement.encode(), tuple(made))
    with pytest.raises(ContractBroken, match="has 16 signatures"):
        signatures.sign(statement, keys.signers["alice"], full)


def test_publish_signs_before_the_version_has_its_name(
    run: Run, keys: Keys, sample: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With --sign the version appears signed, under the number it got, and the note says by whom."""
    seen, rename = [], Path.rename

    def spy(path: Path, target: Path) -> Path:
        seen.append((path / paths.SIGNATURE).is_file())
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", spy)
    words = ["publish", "sums", sample.with_name("sums.joblib"), "--sample", sample, "--quick"]
    for number in (1, 2):
        done = run(*words, "--sign", keys.files["alice"], trusted=keys.trusted[0])
        assert done.exit_code == 0, done.output
        assert "note: signed by alice" in done.stdout
        check(folder.parents[1] / "sums" / str(number), keys.public["alice"])
    assert seen == [True, True]
    assert f"note: signed by {keys.public['alice']}" in run(*words, "--sign", keys.files["alice"]).stdout


def test_publish_says_what_will_not_be_served(run: Run, keys: Keys, sample: Path, folder: Path) -> None:
    """Without a trusted signature the version is written, and one note says why it is not served and what to type."""
    words = ["publish", "sums", sample.with_name("sums.joblib"), "--sample", sample, "--quick"]
    done = run(*words, trusted=keys.trusted[0])
    assert done.exit_code == 0, done.output
    assert "note: it will not be served: the version is not signed" in done.stdout
    assert "`tableside sign sums/1 --key KEYFILE`" in done.stdout
    done = run(*words, "--sign", keys.files["mallory"], trusted=keys.trusted[0])
    assert "note: it will not be served: the version is signed by an unknown key" in done.stdout
    assert "served:" not in run(*words).stdout


def test_publish_does_not_wait_for_what_is_not_served(keys: Keys, folder: Path) -> None:
    """--reload with a signature that is not trusted is refused before any work."""
    settings = load({"TABLESIDE__REPOSITORY__TRUSTED_KEYS": keys.trusted[0]})
    root = folder.parents[1]
    signing.check_before_waiting([keys.files["alice"]], root, settings)
    signing.check_before_waiting([None, keys.files["mallory"]], root, load({}))
    with pytest.raises(PublishFailed, match="Add --sign KEYFILE, or leave out --reload"):
        signing.check_before_waiting([keys.files["alice"], None], root, settings)
    with pytest.raises(PublishFailed, match="does not name .*mallory.pem"):
        signing.check_before_waiting([keys.files["mallory"]], root, settings)


def test_a_key_that_cannot_be_used_stops_publish_before_any_work(run: Run, sample: Path, folder: Path) -> None:
    """The estimator is not even read."""
    done = run("publish", "sums", sample.with_name("none.joblib"), "--sample", sample, "--sign", sample.with_name("no"))
    assert done.exit_code == 2
    assert not (folder.parents[1] / "sums").exists()
    with pytest.raises(KeysFailed, match="the signing key .* cannot be read"):
        publish("sums", LinearRegression(), ROWS, repository=folder.parents[1], sign=sample.with_name("no"))


def test_a_manifest_signs(run: Run, keys: Keys, sample: Path, folder: Path) -> None:
    """`sign` in a manifest is relative to it; --sign on the command line is for all of its models."""
    root, manifest = folder.parents[1], sample.with_name("manifest.toml")
    shutil.copy(keys.files["mallory"], sample.with_name("mallory.pem"))
    model = '[[model]]\nname = "{}"\nestimator = "sums.joblib"\nsample = "rows.csv"\n'
    manifest.write_text(model.format("one") + 'sign = "mallory.pem"\n' + model.format("two"))
    done = run("publish", "--from", manifest, "--quick")
    assert done.exit_code == 0, done.output
    check(root / "one" / "1", keys.public["mallory"])
    with pytest.raises(ContractBroken, match="not signed"):
        check(root / "two" / "1", keys.public["alice"])
    done = run("publish", "--from", manifest, "--quick", "--sign", keys.files["alice"])
    assert done.exit_code == 0, done.output
    for name in ("one", "two"):
        check(root / name / "2", keys.public["alice"])


def test_python_and_mlflow_sign(run: Run, keys: Keys, folder: Path) -> None:
    """The Python API and an MLflow directory take the same road."""
    root = folder.parents[1]
    fitted = LinearRegression().fit(np.eye(3), [1.0, 2.0, 3.0])
    publish("api", fitted, np.eye(3), repository=root, quick=True, sign=str(keys.files["alice"]))
    check(root / "api" / "1", keys.public["alice"])
    done = run("publish", "logged", MLFLOW / "iris_skops", "--quick", "--sign", keys.files["alice"])
    assert done.exit_code == 0, done.output
    check(root / "logged" / "1", keys.public["alice"])


def test_python_is_warned_of_what_will_not_be_served(keys: Keys, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`publish` from Python writes the version, and warns once where the settings ask for another signature."""
    monkeypatch.setenv("TABLESIDE__REPOSITORY__TRUSTED_KEYS", keys.trusted[0])
    give = {"repository": folder.parents[1], "quick": True}
    with pytest.warns(UserWarning, match="api/1 will not be served: it is unsigned") as warned:
        publish("api", LinearRegression().fit(np.eye(3), [1.0, 2.0, 3.0]), np.eye(3), **give)
    assert len(warned) == 1
    with pytest.warns(UserWarning, match="api/2 will not be served: it is signed by another key"):
        publish(
            "api", LinearRegression().fit(np.eye(3), [1.0, 2.0, 3.0]), np.eye(3), sign=keys.files["mallory"], **give
        )
    publish("api", LinearRegression().fit(np.eye(3), [1.0, 2.0, 3.0]), np.eye(3), sign=keys.files["alice"], **give)


def test_signing_is_imported_when_it_is_used_only() -> None:
    """A server and commands without signatures do not pay for the library."""
    program = "import sys, tableside.factory, tableside.cli; print('cryptography' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "False", done.stderr


def test_what_is_no_signature_is_not_valid(keys: Keys) -> None:
    """Texts of every kind in place of a key or a signature give False, and raise nothing."""
    message, good = b"message", keys.signers["alice"].sign(b"message")
    public = keys.public["alice"]
    assert signing_keys.is_valid(public, good, message)
    for text in ("", "A", good[:-1], good + "A", "é", "\x00", good + "\n", "A" * 1000, good.swapcase()):
        assert not signing_keys.is_valid(public, text, message)
    for text in ("", "ed25519:", public[:-1], public + "A", public + "\n", public.upper(), "é", "ed25519:" + "A" * 43):
        assert not signing_keys.is_valid(text, good, message)
    assert not signing_keys.is_valid(public, good, b"other")
