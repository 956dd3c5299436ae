"""Canary and shadow are tables of model.toml: edits touch few keys, promotion ends them, and mistakes have a line."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from tableside.errors import ContractBroken
from tableside.repository import model_toml, model_toml_edits, release_edits, traffic_edits
from tableside.repository.model_toml_checks import contradictions
from tableside.repository.refusals import ReleaseRefused

NOW = datetime(2026, 11, 26, 23, 0, tzinfo=UTC)
LATER = datetime(2026, 11, 27, 8, 30, tzinfo=UTC)
TEXT = """# Ours since March.
[aliases]
default = 1  # the shop asks for it
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with versions 1, 2 and 3 of the model `m`, and `default` names 1."""
    for number in (1, 2, 3):
        folder = tmp_path / "m" / str(number)
        folder.mkdir(parents=True)
        (folder / "contract.json").write_text(f"contract {number}")
    (tmp_path / "m" / "model.toml").write_text(TEXT)
    return tmp_path


def text(root: Path) -> str:
    return (root / "m" / "model.toml").read_text()


def test_a_canary_is_set_changed_and_ended_beside_comments(root: Path) -> None:
    """A larger share is the same comparison; another version begins one anew; the end leaves the text as it was."""
    traffic_edits.set_canary(root, "m", 2, 5, "X-User-Id", NOW)
    assert text(root).startswith(TEXT)
    (root / "m" / "model.toml").write_text(text(root).replace("percent = 5", "percent = 5  # carefully"))
    traffic_edits.set_canary(root, "m", 2, 20, None, LATER)
    config = model_toml.read(root, "m")
    assert config.canary is not None
    assert (config.canary.version, config.canary.percent, config.canary.sticky) == (2, 20, "X-User-Id")
    assert config.canary.since == NOW
    assert "# carefully" in text(root)
    change = traffic_edits.set_canary(root, "m", 3, 1, None, LATER)
    config = model_toml.read(root, "m")
    assert config.canary is not None
    assert (change.former, config.canary.version, config.canary.sticky, config.canary.since) == (2, 3, "", LATER)
    assert traffic_edits.stop(root, "m", "canary").former == 3
    assert text(root).rstrip() == TEXT.rstrip()


def test_candidates_are_served_and_stay(root: Path) -> None:
    """Whatever `versions` says, what is tried is loaded; it is neither retired nor deleted meanwhile."""
    (root / "m" / "model.toml").write_text("versions = [1]\n" + TEXT)
    traffic_edits.set_canary(root, "m", 2, 5, None, NOW)
    traffic_edits.set_shadow(root, "m", 3, 20, 0.1, NOW)
    config = model_toml.read(root, "m")
    assert config.wanted([1, 2, 3]) == [1, 2, 3]
    assert config.shadow is not None
    assert config.shadow.cpu_share == 0.1
    for act in (release_edits.retire, release_edits.delete):
        with pytest.raises(
            ReleaseRefused, match="m/2 is the canary of m. End that first: `tableside traffic m --stop`"
        ):
            act(root, "m", 2)
        with pytest.raises(ReleaseRefused, match="m/3 is the shadow of m. End that first: `tableside shadow m --stop`"):
            act(root, "m", 3)


@pytest.mark.parametrize("kind", ["canary", "shadow"])
def test_promotion_ends_the_trial_of_that_version_only(root: Path, kind: str) -> None:
    """Every road to `default` removes the tables of its version in the same edit: promote, publish and rollback."""
    other = "shadow" if kind == "canary" else "canary"
    both = f"{TEXT}[{kind}]\nversion = 2\npercent = 5\n[{other}]\nversion = 3\npercent = 5\n"
    (root / "m" / "model.toml").write_text(both)
    release_edits.move_alias(root, "m", "default", 2)
    assert model_toml.read(root, "m").candidates == {other: 3}
    model_toml_edits.set_alias(root, "m", "default", 3)
    assert model_toml.read(root, "m").candidates == {}
    (root / "m" / "model.toml").write_text(text(root) + f"[{kind}]\nversion = 2\npercent = 5\n")
    release_edits.roll_back(root, "m", 2)
    assert model_toml.read(root, "m").candidates == {}


def test_what_cannot_be_compared_is_refused(root: Path) -> None:
    """The version exists and is not what answers; without `default` the highest would answer everything."""
    for version, sentence in ((9, "has no version 9"), (1, "m/1 is what `default` names: it answers already")):
        with pytest.raises(ReleaseRefused, match=sentence):
            traffic_edits.set_canary(root, "m", version, 5, None, NOW)
    with pytest.raises(ReleaseRefused, match="has no shadow"):
        traffic_edits.stop(root, "m", "shadow")
    (root / "m" / "model.toml").unlink()
    with pytest.raises(ReleaseRefused, match="has no alias `default`.*`tableside promote m/N`"):
        traffic_edits.set_shadow(root, "m", 2, 5, None, NOW)
    assert not (root / "m" / "model.toml").exists()


def test_only_the_canary_that_was_meant_is_ended(root: Path) -> None:
    """A worker that has judged one canary does not end the next one."""
    traffic_edits.set_canary(root, "m", 2, 5, None, NOW)
    judged = model_toml.read(root, "m").canary
    traffic_edits.stop(root, "m", "canary")
    traffic_edits.set_canary(root, "m", 2, 5, None, LATER)
    with pytest.raises(ReleaseRefused, match="has no canary 2 any more"):
        traffic_edits.stop(root, "m", "canary", judged)
    assert model_toml.read(root, "m").canary is not None


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ("[canary]\nversion = 2\npercent = 101\n", r"line 6: Expected `float` <= 100"),
        ("[canary]\nversion = 2\npercnet = 5\n", r"`canary.percnet` is no key. Did you mean 'percent'"),
        (
            "[canary]\nversion = 2\npercent = 5\nsticky = 'no header'\n",
            r"`sticky` must be the name of a request header",
        ),
        ("[shadow]\nversion = 2\npercent = 5\ncpu_share = 2\n", r"line 7: Expected `float` <= 1"),
        ("[rules]\nrows = 0\n", r"line 5: Expected `int` >= 1"),
        ("[rules]\nflip = 0.1\n", r"`rules.flip` is no key. Did you mean 'flips'"),
    ],
)
def test_a_mistake_is_shown_with_line_and_key(root: Path, table: str, sentence: str) -> None:
    """The tables are checked as the rest of the file is."""
    (root / "m" / "model.toml").write_text(TEXT + table)
    with pytest.raises(ContractBroken, match=sentence):
        model_toml.read(root, "m")


def test_contradictions_are_listed(root: Path) -> None:
    """`tableside list` says what a file asks for that compares nothing."""
    found = []
    for aliases, version in (("default = 1", 9), ("default = 2", 2), ("champion = 1", 2)):
        (root / "m" / "model.toml").write_text(f"[aliases]\n{aliases}\n[canary]\nversion = {version}\npercent = 5\n")
        found += contradictions(root, "m", model_toml.read(root, "m"))
    assert found == [
        "canary in model.toml names version 9, which does not exist",
        "canary in model.toml names version 2, which is what `default` names: nothing is compared",
        "canary in model.toml needs the alias `default`, which says what answers the other requests",
    ]
