"""Signatures of versions: every forgery is refused on every road by which a version is loaded or shown."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tableside.cli import main
from tableside.contracts.environment import sha256
from tableside.errors import ContractBroken, FailureKind, SettingsError
from tableside.model_process.child import artifacts
from tableside.model_process.environment_pools import private
from tableside.preflight import checks
from tableside.preflight.checks import check_version
from tableside.preflight.results import ResultStore, VersionFiles
from tableside.publishing.version_signing import sign_version
from tableside.repository import consent_file, integrity, paths, signatures
from tableside.runtimes.checked_artifacts import CheckedArtifacts
from tableside.runtimes.shared_store import SharedStore
from tableside.runtimes.trusted_types import TRUSTED
from tableside.serving.catalog import EMPTY, Catalog
from tableside.serving.lifecycle import State
from tableside.serving.loader import load_catalog
from tableside.settings import Environment, Repository, load
from tests.own_code_models import Trained
from tests.signing import DAMAGED, FORGERIES, Keys, change_artifact, copy_version, sign, take_from_another_version

pytestmark = pytest.mark.no_greenlets
Run = Callable[..., Result]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return Keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def policy(keys: Keys) -> Repository:
    return Repository(trusted_keys=keys.trusted)


@pytest.fixture
def folder(small_repository: Path, keys: Keys) -> Path:
    """The folder of iris/1, which alice has signed."""
    folder = small_repository / "iris" / "1"
    for file in folder.iterdir():
        file.chmod(0o644)
    sign(folder, keys)
    return folder


@pytest.fixture
def run(small_repository: Path, tmp_path: Path, keys: Keys) -> Run:
    """Run a command on this repository. trusted: the value of repository.trusted_keys."""

    def call(*words: object, trusted: str | None = keys.trusted[0]) -> Result:
        environ = {
            "TABLESIDE__REPOSITORY__PATH": str(small_repository), "TABLESIDE__SERVER__RUN_DIR": str(tmp_path / "run"),
            "TABLESIDE__REPOSITORY__TRUSTED_KEYS": trusted,
            "TABLESIDE__REPOSITORY__CONSENT_FILE": str(tmp_path / "consent.jsonl"),
        }  # fmt: skip
        return CliRunner().invoke(main, [str(word) for word in words], env=environ)

    return call


def loaded(root: Path, policy: Repository, before: Catalog = EMPTY) -> Catalog:
    return load_catalog(root, policy, 1, before)


def refusal(action: Callable[[], object]) -> ContractBroken:
    with pytest.raises(ContractBroken) as refused:
        action()
    return refused.value


def test_a_signed_version_is_served(folder: Path, policy: Repository, keys: Keys) -> None:
    """The signature holds for the files that are there, and for each key of the list."""
    assert loaded(folder.parents[1], policy).find("iris").state is State.READY
    both = Repository(trusted_keys=(keys.public["mallory"], *keys.trusted))
    assert loaded(folder.parents[1], both).find("iris").state is State.READY


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forgery_is_refused(name: str, folder: Path, policy: Repository, keys: Keys) -> None:
    """By the check without a load (`list`), by the load, and by a reload that goes on with what it had loaded."""
    forge, text, kind = FORGERIES[name]
    root = folder.parents[1]
    before = loaded(root, policy)
    forge(folder, keys)
    read = lambda: integrity.check_unloaded(root, "iris", 1, "refuse", None, policy.trusted_keys)  # noqa: E731
    for refused in (refusal(read), refusal(lambda: check_version(root, "iris", 1, policy))):
        assert text in str(refused)
        assert refused.failure_kind is kind
        assert "Restore the " in str(refused) or "`tableside sign iris/1 --key KEYFILE`" in str(refused)
        assert str(refused).isprintable()
    fresh = loaded(root, policy).find("iris")
    assert (fresh.state, fresh.failure_kind) == (State.UNAVAILABLE, kind)
    old = loaded(root, policy, before).find("iris")
    assert (old.state, old.failure_kind) == (State.READY, kind)
    assert old.runtime is before.find("iris").runtime
    assert "still serving what was loaded before" in old.reason


@pytest.mark.processes
@pytest.mark.slow
def test_a_preflight_refuses_every_forgery(folder: Path, run: Run, keys: Keys) -> None:
    """`verify` loads versions in a preflight process; it passes the signed one, and says what is wrong elsewhere."""
    expected = {}
    for number, name in enumerate(FORGERIES, 2):
        forge, *expected[number] = FORGERIES[name]
        made = copy_version(folder, number)
        sign(made, keys)
        forge(made, keys)
    results = {row["version"]: row for row in json.loads(run("verify", "--json").stdout)}
    assert results.pop(1)["ok"]
    assert results.keys() == expected.keys()
    for number, (text, kind) in expected.items():
        assert not results[number]["ok"], number
        assert text in results[number]["reason"].replace("iris/1 ", f"iris/{number} ")
        assert results[number]["failure_kind"] == kind.value


def test_without_trusted_keys_signatures_are_ignored(folder: Path, keys: Keys, run: Run) -> None:
    """Every version is served, whatever its signature says; `list` and `show` say it all the same."""
    root = folder.parents[1]
    for forge in (None, take_from_another_version):
        if forge is not None:
            forge(folder, keys)
        assert loaded(root, Repository()).find("iris").state is State.READY
    (row,) = json.loads(run("list", "--json", trusted=None).stdout)
    assert row["problem"] == ""
    assert row["signature"]["problem"].startswith("signature.json is that of iris/9")
    assert row["signed_by"] == "(does not hold)"
    assert "not valid: signature.json is that of iris/9" in run("show", "iris", trusted=None).stdout


def test_list_and_show_name_the_signer(folder: Path, run: Run, keys: Keys) -> None:
    """A trusted signer by name, another one by key; an unsigned version has no signer."""
    (row,) = json.loads(run("list", "--json").stdout)
    assert (row["signed_by"], row["signature"]) == ("alice", {"signer": "alice", "is_trusted": True, "problem": ""})
    assert "signed by" in run("list").stdout
    assert "signed       by alice, whom repository.trusted_keys names" in run("show", "iris").stdout
    other = run("show", "iris", trusted=keys.public["mallory"]).stdout
    assert f"signed       by {keys.public['alice']}, whom repository.trusted_keys does not name" in other
    assert "unknown key" in run("list", trusted=keys.public["mallory"]).stdout
    (folder / paths.SIGNATURE).unlink()
    assert "signed       no, and repository.trusted_keys asks for it" in run("show", "iris").stdout
    assert "signed" not in run("show", "iris", trusted=None).stdout
    assert json.loads(run("list", "--json").stdout)[0]["failure_kind"] == "signature"
    assert "not signed" in run("client", "iris").stderr


def test_a_version_cannot_be_moved(folder: Path, policy: Repository) -> None:
    """A signed version under another number is refused, also after its contract was given that number."""
    shutil.copytree(folder, folder.parent / "2")
    assert "belongs to iris/1" in str(refusal(lambda: check_version(folder.parents[1], "iris", 2, policy)))
    shutil.rmtree(folder.parent / "2")
    moved = copy_version(folder, 2)
    shutil.copy(folder / paths.SIGNATURE, moved)
    assert "is that of iris/1" in str(refusal(lambda: check_version(folder.parents[1], "iris", 2, policy)))


def test_a_version_that_is_signed_later_is_served_by_the_next_reload(
    folder: Path, policy: Repository, keys: Keys
) -> None:
    """The signature is one of the version's files, so a reload sees that it has come."""
    root = folder.parents[1]
    (folder / paths.SIGNATURE).unlink()
    before = loaded(root, policy)
    assert before.find("iris").failure_kind is FailureKind.SIGNATURE
    sign(folder, keys)
    assert loaded(root, policy, before).find("iris").state is State.READY


def test_the_bytes_that_were_signed_are_the_bytes_that_are_loaded(
    folder: Path, policy: Repository, keys: Keys, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An artifact that replaces the signed one after it was hashed is refused, and leaves no checked entry."""
    real, checked = integrity.check_artifact, CheckedArtifacts(tmp_path / "checked")

    def check_then_swap(*given: Any) -> Path:
        path = real(*given)
        change_artifact(folder, keys)
        return path

    monkeypatch.setattr(checks.integrity, "check_artifact", check_then_swap)
    refused = refusal(lambda: check_version(folder.parents[1], "iris", 1, policy, None, None, checked))
    assert refused.failure_kind is DAMAGED
    assert not list((tmp_path / "checked").glob("*.entry"))


def test_a_model_process_loads_the_bytes_that_it_hashed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An artifact that is replaced between the hash and the load is not what the process loads."""
    path = folder / paths.ARTIFACT
    monkeypatch.setattr(artifacts, "_own_code", lambda request: path.write_bytes(b"another file") and None)
    request = {
        "path": str(path), "sha256": sha256(path), "format": "skops", "trusted": sorted(TRUSTED), "in_memory": True,
    }  # fmt: skip
    content = path.read_bytes()
    assert artifacts.read_artifact(request) is not None
    path.write_bytes(content)
    with pytest.raises(artifacts.LoadRefused):
        artifacts.read_artifact({**request, "in_memory": False})


def test_a_load_reads_the_contract_once(folder: Path, policy: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the worker serves by is the contract whose bytes were compared: it is read once, and verified once."""
    counts = {"reads": 0, "checks": 0}
    for module, name, key in ((integrity, "read_with_bytes", "reads"), (signatures, "check", "checks")):
        real = getattr(module, name)

        def counted(*given: Any, real: Any = real, key: str = key) -> Any:
            counts[key] += 1
            return real(*given)

        monkeypatch.setattr(module, name, counted)
    assert loaded(folder.parents[1], policy).find("iris").state is State.READY
    assert counts == {"reads": 1, "checks": 1}


def test_what_is_kept_on_the_host_does_not_replace_the_signature(
    folder: Path, policy: Repository, keys: Keys, tmp_path: Path
) -> None:
    """Checked artifacts, the shared store and kept preflight results are no way around the check."""
    root, store, checked = folder.parents[1], SharedStore(tmp_path / "store"), CheckedArtifacts(tmp_path / "checked")
    check_version(root, "iris", 1, policy, store, None, checked)
    assert checked.count() == 1
    (folder / paths.SIGNATURE).unlink()
    refused = refusal(lambda: check_version(root, "iris", 1, policy, store, None, checked))
    assert refused.failure_kind is FailureKind.SIGNATURE
    files = VersionFiles("iris", 1, ())
    assert ResultStore(tmp_path, policy).path(files) != ResultStore(tmp_path, Repository()).path(files)


def test_the_signature_comes_before_consent_and_environment(
    folder: Path, policy: Repository, run: Run, with_own_code: Trained
) -> None:
    """A version with own code is refused before its code is read, and nobody is asked for consent."""
    words = ["--sample", with_own_code.file("ratio.csv"), *with_own_code.code, "--quick"]
    done = run("publish", "churn", with_own_code.file("ratio.joblib"), *words)
    assert done.exit_code == 0, done.output
    assert "note: it will not be served: the version is not signed" in done.stdout
    asked = run("consent", "churn", "--yes")
    assert asked.exit_code == 2
    assert "not signed" in asked.stderr
    root = folder.parents[1]
    for text in ("", 'environment = "own"\n'):
        (root / "churn" / "model.toml").write_text(text)
        refused = refusal(lambda: check_version(root, "churn", 1, policy, None, private({}, 1.0)))
        assert refused.failure_kind is FailureKind.SIGNATURE


@pytest.mark.processes
@pytest.mark.slow
def test_a_signed_version_with_own_code_runs_in_its_environment(
    folder: Path, keys: Keys, run: Run, with_own_code: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each file of its code is covered; with signature and consent it loads here and in a model process."""
    words = ["--sample", with_own_code.file("ratio.csv"), *with_own_code.code, "--quick", "--sign", keys.files["alice"]]
    done = run("publish", "churn", with_own_code.file("ratio.joblib"), *words)
    assert done.exit_code == 0, done.output
    assert "note: signed by alice" in done.stdout
    root = folder.parents[1]
    statement = json.loads(json.loads((root / "churn/1" / paths.SIGNATURE).read_bytes())["statement"])
    assert "code/churnlib/late.py" in statement["files"]
    assert statement["files"].keys() | {paths.SIGNATURE} == {
        str(path.relative_to(root / "churn/1")) for path in (root / "churn/1").rglob("*") if path.is_file()
    }
    policy = Repository(trusted_keys=keys.trusted, consent_file=str(tmp_path / "consent.jsonl"))
    environments = private({"own": Environment(sys.executable)}, 120.0)
    in_memory, real = [], checks.load_version

    def load_version(*given: Any) -> Any:
        in_memory.append(given[-1])
        return real(*given)

    monkeypatch.setattr(checks, "load_version", load_version)
    try:
        for text in ("", 'environment = "own"\n'):
            (root / "churn" / "model.toml").write_text(text)
            check_version(root, "churn", 1, policy, None, environments)
        (root / "iris" / "model.toml").write_text('environment = "own"\n')
        check_version(root, "iris", 1, policy, None, environments)
        check_version(root, "iris", 1, Repository(), None, environments)
        assert in_memory == [True, True, False]
    finally:
        environments.close()
    code = root / "churn/1/code/helpers.py"
    code.chmod(0o644)
    code.write_text(code.read_text() + "\n")
    assert "helpers.py is damaged" in str(refusal(lambda: check_version(root, "churn", 1, policy)))
    assert consent_file.read(tmp_path / "consent.jsonl")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("", "is an empty list"),
        (" ", "is an empty list"),
        ("ed25519:short", "expected a public key as `tableside signing-key` prints it"),
        ("ssh-ed25519 AAAA", "expected a public key"),
        ("bad name=ed25519:" + "A" * 43, "expected a public key"),
        ("ed25519:" + "A" * 44, "expected a public key"),
    ],
)
def test_trusted_keys_that_are_none_are_refused(value: str, said: str) -> None:
    """A list that is empty or has a text that is no key stops the server, and does not turn the check off."""
    with pytest.raises(SettingsError, match="(?i)trusted_keys") as refused:
        load({"TABLESIDE__REPOSITORY__TRUSTED_KEYS": value})
    assert said in str(refused.value)


def test_an_empty_list_in_the_file_is_refused(tmp_path: Path) -> None:
    """As in a variable; what `tableside config` prints can be read again all the same."""
    file = tmp_path / "tableside.toml"
    file.write_text("[repository]\ntrusted_keys = []\n")
    with pytest.raises(SettingsError, match="is an empty list"):
        load({}, file)
    file.write_text(CliRunner().invoke(main, ["config"]).stdout)
    assert load({}, file).repository.trusted_keys == ()


def test_a_point_that_is_no_key_signs_nothing(folder: Path) -> None:
    """Any 43 characters of base64 have the form of a key; one that nobody has the private key of refuses everything."""
    policy = Repository(trusted_keys=("ed25519:" + "-" * 43,))
    assert "unknown key" in str(refusal(lambda: check_version(folder.parents[1], "iris", 1, policy)))


def test_signatures_of_several_keys_live_together(folder: Path, keys: Keys) -> None:
    """A key can be replaced without a gap: sign with the new one too, trust it, then stop to trust the old one."""
    root = folder.parents[1]
    assert sign_version(root, "iris", 1, keys.signers["mallory"])
    assert not sign_version(root, "iris", 1, keys.signers["alice"])
    for trusted in keys.public.values():
        check_version(root, "iris", 1, Repository(trusted_keys=(trusted,)))
    file = signatures.read(folder)
    assert file is not None
    assert len(file.signatures) == 2


@pytest.mark.parametrize("path", ["../../other", "/etc/hostname", "..", "a/../../b", ".hidden", "a\nb", ""])
def test_a_statement_names_files_of_its_version_only(path: str, folder: Path, keys: Keys) -> None:
    """Where no key is trusted anybody may have signed: a path out of the folder is refused before it is looked at."""
    root, signer = folder.parents[1], keys.signers["mallory"]
    contract, content = integrity.read_with_bytes(root, "iris", 1)
    statement = signatures.statement_of(folder, contract, content)
    forged = signatures.Statement("iris", 1, {**statement.files, path: "0" * 64})
    (folder / paths.SIGNATURE).unlink()
    (folder / paths.SIGNATURE).write_bytes(signatures.sign(forged, signer))
    problem = signatures.standing(folder, contract, content).problem
    assert "which is no name of a file of a version" in problem
    assert problem.isprintable()
