"""Which version answers is decided by model.toml: the edits touch few keys, check what must hold, and can go back."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tableside.errors import ContractBroken, PublishFailed
from tableside.repository import model_toml, model_toml_edits, paths, release_edits, version_record
from tableside.repository.refusals import ReleaseRefused

TEXT = """# Ours since March.
runtime = "sklearn"  # until the audit

[aliases]
champion = 1  # the shop asks for it
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with versions 1, 2 and 3 of the model `m`: folders with a file that stands for the contract."""
    for number in (1, 2, 3):
        folder = tmp_path / "m" / str(number)
        folder.mkdir(parents=True)
        (folder / "contract.json").write_text(f"contract {number}")
    return tmp_path


def text(root: Path) -> str:
    return (root / "m" / "model.toml").read_text()


def promote(root: Path, *versions: int) -> None:
    for version in versions:
        release_edits.move_alias(root, "m", "default", version)


def roll_back(root: Path) -> int:
    _, version = release_edits.former_default(root, "m")
    release_edits.roll_back(root, "m", version)
    return version


def test_an_edit_keeps_the_text_and_rollback_restores_it(root: Path) -> None:
    """Promotions add `default` and its history; comments and other keys stay, to the byte."""
    (root / "m" / "model.toml").write_text(TEXT)
    promote(root, 1)
    one = text(root)
    assert one == TEXT + "default = 1\n"
    change = release_edits.move_alias(root, "m", "default", 2)
    assert (change.former, change.before, change.after) == (1, one.encode(), text(root).encode())
    assert text(root).startswith(TEXT + "default = 2\n")
    assert model_toml.read(root, "m").history.default == [1, 2]
    assert roll_back(root) == 1
    assert text(root).rstrip() == one.rstrip()


def test_a_second_rollback_goes_further_back(root: Path) -> None:
    """Each rollback goes to what `default` named before that, and never forward again to the version that failed."""
    promote(root, 1, 2, 3)
    assert [roll_back(root), roll_back(root)] == [2, 1]
    with pytest.raises(ReleaseRefused, match=r"nothing but 1 that still exists.*tableside promote m/N.*1, 2, 3"):
        roll_back(root)


def test_the_first_promotion_remembers_what_answered(root: Path) -> None:
    """Without a `default`, the version that answered until now is the one to go back to."""
    release_edits.move_alias(root, "m", "default", 2, answered=3)
    assert roll_back(root) == 3


def test_a_hand_edit_of_default_is_gone_back_from(root: Path) -> None:
    """`default` was set in an editor, so that the history ends with another version: that one came before."""
    promote(root, 1, 2)
    path = root / "m" / "model.toml"
    path.write_text(text(root).replace("default = 2\n", "default = 3\n"))
    assert roll_back(root) == 2
    assert roll_back(root) == 1


def test_rollback_skips_what_is_gone(root: Path) -> None:
    """A version that was removed, by whatever means, is no target of a rollback."""
    promote(root, 1, 2, 3)
    shutil.rmtree(root / "m" / "2")
    assert roll_back(root) == 1


def test_without_default_there_is_no_way_back(root: Path) -> None:
    """The sentence says what answers, and which command chooses."""
    with pytest.raises(ReleaseRefused, match=r"no alias `default`, so its highest version.*promote m/N`; it has 1, 2"):
        release_edits.former_default(root, "m")


def test_the_version_to_go_back_to_stays_loaded(root: Path) -> None:
    """Whatever `versions` selects, the target of a rollback is served, so that it answers at once."""
    (root / "m" / "model.toml").write_text('versions = "latest"\n')
    promote(root, 1, 2)
    assert model_toml.read(root, "m").wanted([1, 2, 3, 4]) == [1, 2, 4]


@pytest.mark.parametrize(
    ("policy", "served"),
    [("versions = { latest = 2 }", [1, 4, 5]), ('versions = "latest"', [1, 5]), ("versions = [2, 3, 9]", [1, 2])],
)
def test_policies_choose_among_what_is_not_retired(root: Path, policy: str, served: list[int]) -> None:
    """`latest` counts versions that are not retired; an aliased version is served in any case."""
    (root / "m" / "model.toml").write_text(f"{policy}\nretired = [1, 3]\n[aliases]\nold = 1\n")
    assert model_toml.read(root, "m").wanted([1, 2, 3, 4, 5]) == served


def test_a_retired_version_keeps_its_files_and_comes_back(root: Path) -> None:
    """Retire writes one key, and the undo takes it away again."""
    (root / "m" / "model.toml").write_text(TEXT)
    release_edits.retire(root, "m", 2)
    assert model_toml.read(root, "m").wanted([1, 2, 3]) == [1, 3]
    with pytest.raises(ReleaseRefused, match=r"m/2 is retired. Serve it again first: `tableside retire m/2 --undo`"):
        release_edits.move_alias(root, "m", "default", 2)
    release_edits.retire(root, "m", 2, undo=True)
    assert text(root) == TEXT
    with pytest.raises(ReleaseRefused, match="m/2 is not retired; retired are none"):
        release_edits.retire(root, "m", 2, undo=True)


def test_what_an_alias_names_is_neither_retired_nor_deleted(root: Path) -> None:
    """The refusal names the alias and the commands that move it, and nothing has changed."""
    (root / "m" / "model.toml").write_text(TEXT)
    for act in (release_edits.retire, release_edits.delete):
        with pytest.raises(ReleaseRefused, match=r"alias champion points at.*`tableside alias m champion N`.*--remove"):
            act(root, "m", 1)
    assert text(root) == TEXT
    assert paths.versions(root, "m") == [1, 2, 3]


def test_a_deleted_number_is_recorded_and_leaves_the_file(root: Path) -> None:
    """Delete takes the folder away, the number out of model.toml, and writes who did it when."""
    promote(root, 2, 3)
    release_edits.retire(root, "m", 2)
    hidden = release_edits.delete(root, "m", 2)
    assert (hidden.name.startswith(".deleted-2-"), paths.versions(root, "m")) == (True, [1, 3])
    assert (model_toml.read(root, "m").retired, model_toml.read(root, "m").history.default) == ([], [3])
    release_edits.remove_folders([hidden])
    assert not hidden.exists()
    entry = version_record.used(root, "m", 2)
    assert entry is not None
    assert (entry.act, bool(entry.at), bool(entry.by)) == ("deleted", True, True)
    assert version_record.next_number(root, "m") == 4


def test_a_number_is_not_used_again_after_rm(root: Path) -> None:
    """Versions that came by rsync are recorded once seen, so `rm -r` of the highest does not free its number."""
    version_record.note(root, "m")
    shutil.rmtree(root / "m" / "3")
    assert version_record.next_number(root, "m") == 4
    shutil.rmtree(root / "m" / "1")
    shutil.rmtree(root / "m" / "2")
    assert version_record.next_number(root, "m") == 4


def test_another_version_with_a_deleted_number_is_refused(root: Path) -> None:
    """The same version may come back from a backup; another one with its number may not be served under it."""
    shutil.copytree(root / "m" / "3", root / "backup")
    release_edits.remove_folders([release_edits.delete(root, "m", 3)])
    shutil.copytree(root / "backup", root / "m" / "3")
    version_record.check(root, "m", 3)
    (root / "m" / "3" / "contract.json").write_text("another contract")
    with pytest.raises(ContractBroken, match=r"m/3 was deleted at .* another version with its number.*the number 4"):
        version_record.check(root, "m", 3)


def test_a_line_that_was_cut_off_spoils_no_other(root: Path) -> None:
    """A full disk or a kill leaves half a line: it is skipped, and the next line begins on its own."""
    version_record.note(root, "m")
    path = root / "m" / "versions.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    version_record.note(root, "m")
    assert [entry.version for entry in version_record.read(root, "m")] == [1, 2, 3]


@pytest.mark.parametrize(("alias", "named"), [("7", "'7' is not a valid alias"), ("latest", "'latest' is reserved")])
def test_an_alias_has_a_valid_name(root: Path, alias: str, named: str) -> None:
    """An alias that reads as a number, or is reserved, is refused and nothing is written."""
    with pytest.raises(PublishFailed, match=named):
        release_edits.move_alias(root, "m", alias, 1)
    assert not (root / "m" / "model.toml").exists()


def test_a_missing_alias_is_named_with_the_nearest(root: Path) -> None:
    """Removing an alias that is not there lists those that are."""
    (root / "m" / "model.toml").write_text(TEXT)
    with pytest.raises(ReleaseRefused, match=r"no alias 'champoin'. Did you mean 'champion'\? It has: champion"):
        release_edits.remove_alias(root, "m", "champoin")
    release_edits.remove_alias(root, "m", "champion")
    assert text(root) == TEXT[: TEXT.index("[aliases]")]


def test_a_change_is_taken_back_unless_somebody_changed_it_since(root: Path) -> None:
    """Restore puts back the bytes that a file had, or removes a file that was not there."""
    change = release_edits.move_alias(root, "m", "default", 1)
    assert change.after is not None
    assert model_toml_edits.restore(root, "m", change.before, change.after)
    assert not (root / "m" / "model.toml").exists()
    change = release_edits.move_alias(root, "m", "default", 1)
    assert change.after is not None
    (root / "m" / "model.toml").write_text("# mine\n" + text(root))
    assert not model_toml_edits.restore(root, "m", change.before, change.after)
    assert text(root).startswith("# mine\n")


def test_an_edit_of_a_broken_file_changes_nothing(root: Path) -> None:
    """A file with a mistake is not written over: the mistake is reported with its line."""
    path = root / "m" / "model.toml"
    path.write_text("versoins = 3\n")
    with pytest.raises(
        ContractBroken, match=r"^m/model\.toml: line 1: `versoins` is no key. Did you mean 'versions'\?"
    ):
        promote(root, 1)
    assert path.read_text() == "versoins = 3\n"
    assert [file.name for file in (root / "m").iterdir() if file.is_file()] == ["model.toml"]


def test_the_mode_of_the_file_is_kept(root: Path) -> None:
    """A file that its group may write stays so: the new file has the mode of the old one."""
    path = root / "m" / "model.toml"
    path.write_text(TEXT)
    path.chmod(0o664)
    promote(root, 2)
    assert path.stat().st_mode & 0o777 == 0o664


def test_what_cannot_be_read_is_not_recorded_and_stops_nothing(root: Path) -> None:
    """A record that is a folder, a model that is a link to nowhere and a root that is missing: the others are noted."""
    (root / "a" / "versions.jsonl").mkdir(parents=True)
    (root / "b").symlink_to(root / "nowhere")
    version_record.note_all(root)
    version_record.note_all(root / "nowhere")
    assert [entry.version for entry in version_record.read(root, "m")] == [1, 2, 3]
