"""The release commands without a running stack: each changes files, says what it did, and that nobody follows."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tableside.cli import main
from tableside.repository import integrity, model_toml, paths, release_edits, traffic_notes
from tests.unit.test_reloading import copy, registry_for


@pytest.fixture
def root(small_repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with iris/1 and iris/2, and a run folder without a stack."""
    copy(small_repository, "iris", 2)
    (small_repository / "iris" / "model.toml").unlink(missing_ok=True)
    monkeypatch.setenv("TABLESIDE__SERVER__RUN_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("TABLESIDE__REPOSITORY__PATH", str(small_repository))
    return small_repository


def call(*words: str) -> Result:
    return CliRunner().invoke(main, list(words))


def refused(*words: str) -> str:
    done = call(*words)
    assert (done.exit_code, done.stdout) == (2, ""), done.output
    return done.stderr.splitlines()[-1]


def default(root: Path) -> int | None:
    return model_toml.read(root, "iris").aliases.get("default")


@pytest.mark.slow
def test_promote_and_rollback_without_a_stack(root: Path) -> None:
    """The version is verified here, `default` names it, and a line says that no server follows."""
    done = call("promote", "iris/1", "--json")
    assert done.exit_code == 0, done.output
    row = json.loads(done.stdout)
    assert (row["alias"], row["version"], row["before"], row["workers"]) == ("default", 1, None, 0)
    assert "warning: NO running server follows this change: no stack runs in" in done.stderr
    assert model_toml.read(root, "iris").history.default == [2, 1]
    done = call("rollback", "iris")
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith(
        "iris: default names 2 now, and named 1 before. Requests without a version get iris/2."
    )
    assert done.stdout.rstrip().endswith("Back: `tableside promote iris/1`")
    assert default(root) == 2


@pytest.mark.slow
def test_a_version_that_does_not_load_is_not_promoted(root: Path) -> None:
    """Without a stack the golden rows are replayed here; a damaged version is refused and nothing has changed."""
    artifact = root / "iris" / "2" / "model.skops"
    artifact.chmod(0o644)
    artifact.write_bytes(artifact.read_bytes()[:-9])
    assert "iris/2 does not load: " in refused("promote", "iris/2")
    assert not (root / "iris" / "model.toml").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("promote", "iris"), "say which version of 'iris': `tableside promote iris/N`. It has 1, 2"),
        (("promote", "irsi/1"), "Did you mean 'iris'?"),
        (("promote", "iris/3"), "model 'iris' has no version or alias '3'. It has: 1, 2, champion"),
        (("promote", "iris@champoin"), "Did you mean 'champion'?"),
        (("rollback", "iris"), "model 'iris' has no alias `default`"),
        (("rollback", "iris/1"), "'iris/1' names a version, and this command takes a model: iris"),
        (("alias", "iris", "x"), "give a version, or --remove: tableside alias iris x N"),
        (("alias", "iris", "x", "1", "--remove"), "give a version, or --remove"),
        (("alias", "iris", "latest", "1"), "the alias 'latest' is reserved"),
        (("alias", "iris", "champoin", "--remove"), "Did you mean 'champion'? It has: champion"),
        (("retire", "iris/1"), "iris/1 is what the alias champion points at"),
        (("retire", "iris/2"), "iris/2 is what requests without a version get. Promote another one first"),
        (("retire", "iris/2", "--undo"), "iris/2 is not retired"),
        (("delete", "iris/1", "--yes"), "iris/1 is what the alias champion points at"),
        (("delete", "iris/2", "--yes"), "iris/2 is what requests without a version get"),
        (("rename", "iris", "roses"), "nothing is renamed. Requests to 'iris' would get 404"),
        (("copy", "iris", "a/b"), "'a/b' is not a valid model name"),
        (("copy", "iris", "iris"), "there is a model 'iris'"),
    ],
)
def test_a_mistake_is_one_sentence_and_changes_nothing(root: Path, words: tuple[str, ...], sentence: str) -> None:
    """Each refusal has exit status 2 and says what to type; the repository is as it was."""
    model = root / "iris" / "model.toml"
    model.write_text("[aliases]\nchampion = 1\n")
    assert sentence in refused(*words)
    assert model.read_text() == "[aliases]\nchampion = 1\n"
    assert [*paths.published(root)] == [("iris", [1, 2])]


def test_delete_needs_yes_and_uses_the_number_up(root: Path) -> None:
    """Without a terminal and --yes nothing is deleted; afterwards the number is not given again."""
    (root / "iris" / "model.toml").write_text("[aliases]\ndefault = 1\n")
    assert "nothing is deleted. To delete iris/2 in" in refused("delete", "iris/2")
    done = call("delete", "iris/2", "--yes")
    assert (done.exit_code, paths.versions(root, "iris")) == (0, [1]), done.output
    assert not [*(root / "iris").glob(".deleted*")]
    assert call("copy", "iris/1", "iris").stdout.startswith("iris/1 is copied as iris/3")


def test_copies_and_renames_keep_numbers_and_settings(root: Path) -> None:
    """A whole model is copied with its numbers and model.toml, and the old name ends after the new one is there."""
    (root / "iris" / "model.toml").write_text("# ours\n[aliases]\ndefault = 1\n")
    assert call("copy", "iris/2", "lilies").stdout.startswith("iris/2 is copied as lilies/1")
    done = call("rename", "iris", "roses", "--yes", "--json")
    assert json.loads(done.stdout)["versions"] == [1, 2], done.output
    assert [*paths.published(root)] == [("lilies", [1]), ("roses", [1, 2])]
    assert (root / "roses" / "model.toml").read_text() == "# ours\n[aliases]\ndefault = 1\n"
    assert "there is a model 'iris', or was one" in refused("copy", "roses", "iris")
    registry = registry_for(root)
    registry.reload(1)
    assert {(each.name, each.version): each.state.value for each in registry.catalog} == {
        ("lilies", 1): "READY", ("roses", 1): "READY", ("roses", 2): "READY",
    }  # fmt: skip


def test_list_says_what_is_retired(root: Path) -> None:
    """A retired version is in the table, in the place of its aliases, and a field of the JSON."""
    release_edits.retire(root, "iris", 2)
    rows = json.loads(call("list", "--json").stdout)
    assert [(row["version"], row["retired"]) for row in rows] == [(1, False), (2, True)]
    assert "(retired)" in call("list").stdout


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("", ""),
        ("[aliases]\ndefault = 2\n", ""),
        ("[aliases]\ndefault = 1\n", "requests without a version get iris/1 .* `tableside promote iris/2`"),
        ("versions = [1]\n", "will not be served: `versions` .* `tableside alias iris candidate 2`"),
        ("version = 1\n", "until the file is corrected: iris/model.toml: line 1: `version` is no key"),
    ],
)
def test_publish_says_which_requests_the_version_gets(root: Path, text: str, note: str) -> None:
    """Without `default` there is nothing to say; otherwise the note has the command that takes the version live."""
    (root / "iris" / "model.toml").write_text(text)
    said = traffic_notes.notes(root, integrity.read_contract(root, "iris", 2))
    assert len(said) == bool(note)
    assert re.search(note, "".join(said))
