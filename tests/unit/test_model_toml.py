"""model.toml: the operator's file stays the operator's."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tableside.errors import ContractBroken
from tableside.repository import model_toml

TEXT = """# Ours since March.
versions = "latest"  # only the newest

[aliases]
# asked for by the shop
champion = 1  # was 7
shadow = 2
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "m").mkdir()
    return tmp_path


def test_without_a_file_everything_serves(root: Path) -> None:
    """A model without a file serves all its versions under no alias."""
    file = model_toml.read(root, "m")
    assert file.wanted([1, 2, 3]) == [1, 2, 3]
    assert file.aliases == {}


def test_an_alias_keeps_the_comments(root: Path) -> None:
    """Pointing an alias changes that number and nothing else of the operator's text."""
    path = root / "m" / "model.toml"
    path.write_text(TEXT)
    model_toml.set_alias(root, "m", "champion", 3)
    assert path.read_text() == TEXT.replace("champion = 1", "champion = 3")
    model_toml.set_alias(root, "m", "fresh", 4)
    assert model_toml.read(root, "m").aliases == {"champion": 3, "shadow": 2, "fresh": 4}
    assert "# asked for by the shop" in path.read_text()
    assert [file.name for file in (root / "m").iterdir()] == ["model.toml"]


def test_an_alias_begins_a_file(root: Path) -> None:
    """The first alias writes the file."""
    model_toml.set_alias(root, "m", "champion", 1)
    assert model_toml.read(root, "m").aliases == {"champion": 1}


@pytest.mark.parametrize(
    ("versions", "expected"), [('"all"', [1, 2, 3, 4]), ('"latest"', [2, 4]), ("[1, 3]", [1, 2, 3]), ("[9]", [2])]
)
def test_an_aliased_version_is_served(root: Path, versions: str, expected: list[int]) -> None:
    """The versions asked for are served, and whatever an alias points at."""
    (root / "m" / "model.toml").write_text(f"versions = {versions}\n[aliases]\nx = 2\n")
    assert model_toml.read(root, "m").wanted([1, 2, 3, 4]) == expected


@pytest.mark.parametrize(
    ("text", "named"),
    [('[aliases]\nx = "two"\n', "aliases"), ("alias = 1\n", "alias"), ("[aliases\n", "model.toml"), ("v\xff", "toml")],
)
def test_a_bad_file_is_named(root: Path, text: str, named: str) -> None:
    """A file that cannot be read is refused with its name and field."""
    (root / "m" / "model.toml").write_bytes(text.encode("latin-1"))
    with pytest.raises(ContractBroken, match=named) as broken:
        model_toml.read(root, "m")
    assert str(broken.value).startswith("m/model.toml: ")


def test_two_writers_both_succeed(root: Path) -> None:
    """Aliases set at once are all there afterwards."""
    threads = [threading.Thread(target=model_toml.set_alias, args=(root, "m", f"a{at}", at + 1)) for at in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert model_toml.read(root, "m").aliases == {f"a{at}": at + 1 for at in range(12)}


def test_an_alias_that_reads_as_a_version_is_refused(tmp_path: Path) -> None:
    """An operator's alias `1` would be ambiguous with version 1: the file is refused, by that name."""
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "model.toml").write_text('[aliases]\n"1" = 2\n')
    with pytest.raises(ContractBroken, match="'1' is not a valid alias"):
        model_toml.read(tmp_path, "m")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """A folder in its place, say: that model is broken, the others are not."""
    (tmp_path / "m" / "model.toml").mkdir(parents=True)
    with pytest.raises(ContractBroken, match=r"m/model.toml: Is a directory"):
        model_toml.read(tmp_path, "m")
