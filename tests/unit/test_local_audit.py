"""What commands change on this host is in the audit log of the run folder, with the user's name, before it is done."""

from __future__ import annotations

import getpass
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tableside.cli import main, release_steps
from tableside.process.audit_log import FILE
from tableside.repository import model_toml
from tests.unit.test_reloading import copy

pytestmark = pytest.mark.no_greenlets


@pytest.fixture
def root(small_repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with iris/1 and iris/2, and a run folder without a stack. Nothing is loaded."""
    copy(small_repository, "iris", 2)
    (small_repository / "iris" / "model.toml").write_text("[aliases]\ndefault = 1\n")
    (tmp_path / "run" / "log").mkdir(parents=True)
    monkeypatch.setenv("TABLESIDE__SERVER__RUN_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("TABLESIDE__REPOSITORY__PATH", str(small_repository))
    monkeypatch.setenv("TABLESIDE__SERVER__KEYS_FILE", str(tmp_path / "keys.json"))
    monkeypatch.setattr(release_steps, "require_sound", lambda *_: None)
    return small_repository


def call(*words: str) -> Result:
    return CliRunner().invoke(main, list(words))


def lines(root: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (root.parent / "run" / FILE).read_text().splitlines()]


def test_a_change_of_files_is_recorded(root: Path) -> None:
    """Who is the user of the system; what is in force before and after."""
    assert call("promote", "iris/2").exit_code == 0
    begun, done = lines(root)
    assert (begun["event"], begun["model"], begun["who"], begun["state"]) == (
        "promote", "iris/2", getpass.getuser(), "begun",
    )  # fmt: skip
    assert begun["before"] == "versions 1, 2; default = 1"
    assert (done["state"], done["after"]) == ("done", "versions 1, 2; default = 2")
    assert call("rollback", "iris").exit_code == 0
    assert call("alias", "iris", "next", "2").exit_code == 0
    assert call("retire", "iris/2").exit_code == 2
    assert (lines(root)[-1]["state"], lines(root)[-1]["error"]) == ("failed", "ReleaseRefused")
    assert "alias next points at" in lines(root)[-1]["reason"]
    assert call("copy", "iris/1", "flowers").exit_code == 0
    assert lines(root)[-1]["after"] == "versions 1"
    assert call("delete", "iris/1").exit_code == 2
    assert [line["event"] for line in lines(root)][-2:] == ["delete", "delete"]


def test_keys_are_recorded_by_their_names(root: Path) -> None:
    """Nothing of the key itself."""
    made = call("keys", "add", "night-shift", "--scope", "admin")
    assert call("keys", "revoke", "night-shift").exit_code == 0
    found = lines(root)
    assert [(line["event"], line["name"], line["state"]) for line in found] == [
        ("keys add", "night-shift", "begun"), ("keys add", "night-shift", "done"),
        ("keys revoke", "night-shift", "begun"), ("keys revoke", "night-shift", "done"),
    ]  # fmt: skip
    assert made.stdout.strip() not in (root.parent / "run" / FILE).read_text()


def test_reading_is_no_change(root: Path) -> None:
    """list, keys list, consent --list, traffic without options."""
    for words in (("list",), ("keys", "list"), ("consent", "--list"), ("traffic", "iris"), ("show", "iris")):
        call(*words)
    assert not (root.parent / "run" / FILE).exists()


def test_what_cannot_be_recorded_is_not_done(root: Path) -> None:
    """One line, exit code 2, and model.toml is as it was. Without a run folder nothing is recorded."""
    (root.parent / "run" / FILE).mkdir()
    refused = call("promote", "iris/2")
    assert (refused.exit_code, "the audit log needs" in refused.stderr) == (2, True)
    assert model_toml.read(root, "iris").aliases == {"default": 1}
    (root.parent / "run" / FILE).rmdir()
    (root.parent / "run" / "log").rmdir()
    assert call("promote", "iris/2").exit_code == 0
    assert not (root.parent / "run" / "log").exists()
