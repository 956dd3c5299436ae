"""The consent file outside of the repository, and the command that shows code and records consent."""

from __future__ import annotations

import json
import resource
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from tableside.cli import main
from tableside.cli.render import visible
from tableside.contracts import schema
from tableside.contracts.consent_digest import consent_digest
from tableside.contracts.schema import Contract
from tableside.errors import ContractBroken, FailureKind
from tableside.repository import consent_file, integrity
from tests.own_code_models import Trained

pytestmark = pytest.mark.no_greenlets

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run a command for a repository and a consent file of this test."""

    def call(*words: object, **options: str) -> Result:
        environ = {
            "TABLESIDE__REPOSITORY__PATH": str(tmp_path / "models"),
            "TABLESIDE__REPOSITORY__CONSENT_FILE": str(tmp_path / "consent.jsonl"),
            **options,
        }
        return CliRunner().invoke(main, [str(word) for word in words], env=environ)

    return call


@pytest.fixture
def version(run: Run, with_own_code: Trained, tmp_path: Path) -> Contract:
    """churn/1, which brings own code, as if it had come from another host: without consent here."""
    done = run(
        "publish",
        "churn",
        with_own_code.file("ratio.joblib"),
        "--sample",
        with_own_code.file("ratio.csv"),
        *with_own_code.code,
    )
    assert done.exit_code == 0, done.output
    (tmp_path / "consent.jsonl").rename(tmp_path / "consent-of-the-other-host.jsonl")
    return integrity.read_contract(tmp_path / "models", "churn", 1)


def kind_of(root: Path, contract: Contract, path: Path) -> FailureKind:
    try:
        consent_file.check(root, contract, path)
    except ContractBroken as problem:
        return problem.failure_kind
    return FailureKind.NONE


@pytest.mark.slow
def test_publish_records_consent(version: Contract, tmp_path: Path) -> None:
    """Whoever publishes on this host consents: the line has the files with their hashes, the user and the time."""
    (entry,) = consent_file.read(tmp_path / "consent-of-the-other-host.jsonl")
    assert (entry.action, entry.how, entry.name, entry.version) == ("grant", "publish", "churn", 1)
    assert entry.sha256 == consent_digest(version)
    assert entry.files == (version.artifact, *version.code)
    assert entry.by
    assert entry.at.endswith("+00:00")


@pytest.mark.slow
def test_a_version_waits_for_consent(version: Contract, run: Run, tmp_path: Path) -> None:
    """`list` and `verify` say which command gives consent, and no module of the version is imported."""
    listed = json.loads(run("list", "--json").stdout)[0]
    assert listed["failure_kind"] == "consent"
    assert "waits for consent: it holds own code (7 files)" in listed["problem"]
    assert "`tableside consent churn/1`" in listed["problem"]
    checked = run("verify", "churn")
    assert checked.exit_code == 1
    assert "waits for consent" in checked.output


@pytest.mark.slow
def test_consent_shows_and_records(version: Contract, run: Run, tmp_path: Path) -> None:
    """The command prints files, sizes and hashes, and the text on request; nothing is recorded without --yes."""
    shown = run("consent", "churn/1")
    assert shown.exit_code == 2
    assert "add --yes" in shown.stderr
    for file in (version.artifact, *version.code):
        assert file.file in shown.stdout
        assert file.sha256 in shown.stdout
    assert "class Ratio" not in shown.stdout
    assert not (tmp_path / "consent.jsonl").exists()
    done = run("consent", "churn/1", "--text", "--yes")
    assert done.exit_code == 0, done.output
    assert "class Ratio" in done.stdout
    assert "tableside reload" in done.stdout
    assert run("verify", "churn").exit_code == 0
    assert "already" in run("consent", "churn", "--yes").stdout


def test_consents_are_listed_and_revoked(version: Contract, run: Run, tmp_path: Path) -> None:
    """`--list` shows who consented to what and when; after `--revoke` the version waits again; the lines are kept."""
    assert "holds no consent" in run("consent", "--list").stdout
    run("consent", "churn/1", "--yes")
    assert "churn/1" in run("consent", "--list").stdout
    (entry,) = json.loads(run("consent", "--list", "--json").stdout)
    assert (entry["name"], entry["how"]) == ("churn", "consent")
    shutil.rmtree(tmp_path / "models" / "churn")
    revoked = run("consent", "churn/1", "--revoke")
    assert revoked.exit_code == 0, revoked.output
    assert json.loads(run("consent", "--list", "--json").stdout) == []
    assert [entry.action for entry in consent_file.read(tmp_path / "consent.jsonl")] == ["grant", "revoke"]
    assert "there is no consent to churn/1" in run("consent", "churn/1", "--revoke").stderr


def test_a_version_without_code_needs_no_consent(run: Run, repository: Path, tmp_path: Path) -> None:
    """The command says so instead of recording something without a meaning."""
    shutil.copytree(repository / "iris", tmp_path / "models" / "iris")
    assert "iris/1 brings no code" in run("consent", "iris").stderr
    contract = integrity.read_contract(tmp_path / "models", "iris", 1)
    assert kind_of(tmp_path / "models", contract, tmp_path / "missing.jsonl") is FailureKind.NONE


def test_changed_files_are_damage(version: Contract, run: Run, tmp_path: Path) -> None:
    """After consent, other content under the same name is reported as damage, with who consented to what was there."""
    root, path = tmp_path / "models", tmp_path / "consent.jsonl"
    run("consent", "churn/1", "--yes")
    assert kind_of(root, version, path) is FailureKind.NONE
    other = msgspec.structs.replace(version.code[0], sha256="0" * 64)
    changed = msgspec.structs.replace(version, code=(other, *version.code[1:]))
    assert kind_of(root, changed, path) is FailureKind.DAMAGED
    with pytest.raises(ContractBroken, match=r"its files are not those to which .* consented on"):
        consent_file.check(root, changed, path)
    artifact = msgspec.structs.replace(version, artifact=msgspec.structs.replace(version.artifact, sha256="0" * 64))
    assert kind_of(root, artifact, path) is FailureKind.DAMAGED
    assert kind_of(root, msgspec.structs.replace(version, version=2), path) is FailureKind.NONE


def test_consent_covers_the_artifact_and_its_name(version: Contract) -> None:
    """Another artifact with the same code, or the same bytes read as a pickle, is something else."""
    renamed = msgspec.structs.replace(version.artifact, file="model.joblib")
    assert consent_digest(msgspec.structs.replace(version, artifact=renamed)) != consent_digest(version)
    moved = msgspec.structs.replace(version.code[0], file="code/other.py")
    assert consent_digest(msgspec.structs.replace(version, code=(moved, *version.code[1:]))) != consent_digest(version)


def test_the_file_may_not_be_where_models_are_written(version: Contract, run: Run, tmp_path: Path) -> None:
    """A consent file inside the repository, through a link too, or writable by everyone, is not believed."""
    root = tmp_path / "models"
    inside = root / "consent.jsonl"
    shutil.copy(tmp_path / "consent-of-the-other-host.jsonl", inside)
    (tmp_path / "link.jsonl").symlink_to(inside)
    for path in (inside, tmp_path / "link.jsonl", root / "churn" / ".." / "consent.jsonl"):
        with pytest.raises(ContractBroken, match="is inside the repository"):
            consent_file.check(root, version, path)
    refused = run("consent", "churn/1", "--yes", TABLESIDE__REPOSITORY__CONSENT_FILE=str(inside))
    assert "is inside the repository" in refused.stderr
    open_to_all = tmp_path / "consent-of-the-other-host.jsonl"
    assert kind_of(root, version, open_to_all) is FailureKind.NONE
    open_to_all.chmod(0o666)
    with pytest.raises(ContractBroken, match="chmod o-w"):
        consent_file.check(root, version, open_to_all)


def test_the_file_may_not_be_replaceable_by_everyone(version: Contract, tmp_path: Path) -> None:
    """In a folder that everyone may write into, or below one, somebody else could put another file in its place."""
    root, folder = tmp_path / "models", tmp_path / "open" / "inner"
    folder.mkdir(parents=True)
    path = folder / "consent.jsonl"
    shutil.copy(tmp_path / "consent-of-the-other-host.jsonl", path)
    assert kind_of(root, version, path) is FailureKind.NONE
    for opened in (folder, folder.parent):
        opened.chmod(0o777)
        with pytest.raises(ContractBroken, match=f"every user.* chmod o-w {opened}"):
            consent_file.check(root, version, path)
        opened.chmod(0o1777)  # as /tmp is: only the owner may replace it
        assert kind_of(root, version, path) is FailureKind.NONE
        opened.chmod(0o755)


def test_a_line_is_added_to_a_file_that_was_edited_by_hand(version: Contract, tmp_path: Path) -> None:
    """Without an end of line in the last line, the new entry is still a line of its own."""
    path = tmp_path / "consent-of-the-other-host.jsonl"
    before = consent_file.read(path)
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    consent_file.append(path, [consent_file.entry_of(version, tmp_path / "models", "consent")])
    assert consent_file.read(path)[:-1] == before


def test_a_line_that_does_not_fit_on_the_disk_leaves_the_file_as_it_was(version: Contract, tmp_path: Path) -> None:
    """Half a line would make the consents to all other versions unreadable."""
    path = tmp_path / "consent-of-the-other-host.jsonl"
    before = path.read_bytes()
    entry = consent_file.entry_of(version, tmp_path / "models", "consent")
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10, limits[1]))
        with pytest.raises(OSError, match="No space|too large"):
            consent_file.append(path, [entry])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == before


@pytest.mark.parametrize("line", ["{", "[]", '{"action": "allow"}', "\xff"])
def test_a_damaged_consent_file_gives_no_consent(version: Contract, tmp_path: Path, line: str) -> None:
    """A line that cannot be read is named; nothing is guessed."""
    path = tmp_path / "consent-of-the-other-host.jsonl"
    with path.open("ab") as file:
        file.write(line.encode("latin-1") + b"\n")
    with pytest.raises(ContractBroken, match=r"line 2: ") as broken:
        consent_file.check(tmp_path / "models", version, path)
    assert broken.value.failure_kind is FailureKind.CONSENT


def test_the_text_of_code_cannot_fool_a_terminal() -> None:
    """Escape sequences and characters that turn the direction of text are shown, not obeyed."""
    assert visible("a\x1b[2K\u202eb\tc\n") == "a\\x1b[2K\\u202eb\tc\n"


def test_a_changed_file_is_not_shown_as_what_consent_is_given_to(version: Contract, run: Run, tmp_path: Path) -> None:
    """Consent is given only to files that are what the contract says."""
    file = tmp_path / "models" / "churn" / "1" / version.code[0].file
    file.chmod(0o644)
    file.write_text("import os\n")
    refused = run("consent", "churn/1", "--yes")
    assert refused.exit_code == 2
    assert "is damaged" in refused.stderr
    assert not (tmp_path / "consent.jsonl").exists()


def test_who_may_not_write_the_consent_file_publishes_all_the_same(
    run: Run, with_own_code: Trained, tmp_path: Path
) -> None:
    """The version waits for consent then, and publish says so."""
    (tmp_path / "file").write_text("")
    done = run(
        "publish", "churn", with_own_code.file("ratio.joblib"), "--sample", with_own_code.file("ratio.csv"),
        *with_own_code.code, TABLESIDE__REPOSITORY__CONSENT_FILE=str(tmp_path / "file" / "consent.jsonl"),
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "waits for `tableside consent churn/1`" in done.stdout


def test_old_contracts_are_written_as_before(repository: Path) -> None:
    """A contract without own code has no trace of it."""
    assert b'"code"' not in schema.encode(integrity.read_contract(repository, "iris", 1))
