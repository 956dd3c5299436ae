"""model.toml: it is read strictly, and Tableside changes only the keys it must."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tableside.errors import ContractBroken
from tableside.repository import model_toml, model_toml_edits

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
    """Setting an alias changes its number and nothing else of the operator's text."""
    path = root / "m" / "model.toml"
    path.write_text(TEXT)
    model_toml_edits.set_alias(root, "m", "champion", 3)
    assert path.read_text() == TEXT.replace("champion = 1", "champion = 3")
    model_toml_edits.set_alias(root, "m", "fresh", 4)
    assert model_toml.read(root, "m").aliases == {"champion": 3, "shadow": 2, "fresh": 4}
    assert "# asked for by the shop" in path.read_text()
    assert [file.name for file in (root / "m").iterdir()] == ["model.toml"]


def test_the_first_alias_writes_the_file(root: Path) -> None:
    """Without a file, setting an alias creates one."""
    model_toml_edits.set_alias(root, "m", "champion", 1)
    assert model_toml.read(root, "m").aliases == {"champion": 1}


@pytest.mark.parametrize(
    ("versions", "expected"), [('"all"', [1, 2, 3, 4]), ('"latest"', [2, 4]), ("[1, 3]", [1, 2, 3]), ("[9]", [2])]
)
def test_an_aliased_version_is_served(root: Path, versions: str, expected: list[int]) -> None:
    """The selected versions are served, and so is the target of every alias."""
    (root / "m" / "model.toml").write_text(f"versions = {versions}\n[aliases]\nx = 2\n")
    assert model_toml.read(root, "m").wanted([1, 2, 3, 4]) == expected


@pytest.mark.parametrize(
    ("text", "named"),
    [('[aliases]\nx = "two"\n', "aliases"), ("alias = 1\n", "alias"), ("[aliases\n", "model.toml"), ("v\xff", "toml")],
)
def test_a_bad_file_is_named(root: Path, text: str, named: str) -> None:
    """The error begins with the file's name and names the field."""
    (root / "m" / "model.toml").write_bytes(text.encode("latin-1"))
    with pytest.raises(ContractBroken, match=named) as broken:
        model_toml.read(root, "m")
    assert str(broken.value).startswith("m/model.toml: ")


def test_two_writers_both_succeed(root: Path) -> None:
    """Aliases that are set concurrently are all in the file afterwards."""
    threads = [
        threading.Thread(target=model_toml_edits.set_alias, args=(root, "m", f"a{at}", at + 1)) for at in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert model_toml.read(root, "m").aliases == {f"a{at}": at + 1 for at in range(12)}


def test_an_alias_that_reads_as_a_version_is_refused(tmp_path: Path) -> None:
    """An alias `1` could be confused with version 1, so the file is refused."""
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "model.toml").write_text('[aliases]\n"1" = 2\n')
    with pytest.raises(ContractBroken, match="'1' is not a valid alias"):
        model_toml.read(tmp_path, "m")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """An error of the file system, such as a folder with the file's name, is reported with the file's name."""
    (tmp_path / "m" / "model.toml").mkdir(parents=True)
    with pytest.raises(ContractBroken, match=r"m/model.toml: Is a directory"):
        model_toml.read(tmp_path, "m")


@pytest.mark.parametrize("size", [1, model_toml.MIN_CACHE_BYTES - 1, model_toml.MAX_CACHE_BYTES + 1])
def test_a_cache_size_out_of_range_is_refused(root: Path, size: int) -> None:
    """The error names the table and both limits; 0 and the limits themselves are valid."""
    (root / "m" / "model.toml").write_text(f"[cache]\nmax_bytes = {size}\n")
    with pytest.raises(ContractBroken, match=r"`max_bytes` must be 0 \(off\) or from 65536 to \d+ - at `\$\.cache`"):
        model_toml.read(root, "m")
    for valid in (0, model_toml.MIN_CACHE_BYTES, model_toml.MAX_CACHE_BYTES):
        (root / "m" / "model.toml").write_text(f"[cache]\nmax_bytes = {valid}\n")
        assert model_toml.read(root, "m").cache.max_bytes == valid


@pytest.mark.parametrize(
    "text",
    ["[batching]\nmax_batch_rows = 0\n", "[columns]\nmissing = 'guess'\n", "runtime = 'onnx'\n", "versions = 'new'\n"],
)
def test_a_value_out_of_range_is_refused(root: Path, text: str) -> None:
    """Every key accepts only its own values, and an error has the key's path."""
    (root / "m" / "model.toml").write_text(text)
    key = text.split(" =")[0].split("\n")[-1]
    with pytest.raises(ContractBroken, match=rf"^m/model\.toml: .*{key}"):
        model_toml.read(root, "m")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("\nversoins = 3\n", r"line 2: `versoins` is no key\. Did you mean 'versions'\? Keys: enabled, aliases"),
        ("[batching]\nmax_rows = 3\n", r"line 2: `batching\.max_rows` is no key\. Did you mean 'max_batch_rows'"),
        ("[aliases]\na = 1\nb = 'two'\n", r"line 3: Expected `int`, got `str` - at `\$\.aliases\.b`"),
        ("[columns.missing_words]\na = ['x']\nb = 3\n", r"line 3: .*`\$\.columns\.missing_words\.b`"),
        ("versions = { latst = 2 }\n", r"line 1: `versions\.latst` is no key\. Did you mean 'latest'\?"),
        ("versions = { latest = 0 }\n", r"line 1: Expected `int` >= 1"),
        ("columns.extra = 'ignor'\n", r"line 1: .* Did you mean 'ignore'\? Words that it takes: refuse, ignore"),
        ("# x\n[aliases]\n'7' = 2\n", r"line 3: '7' is not a valid alias"),
        ("a = 1\n[aliases\n", r"at line 2, column"),
        ("[alises]\nx = 1\n", r"line 1: `alises` is no key\. Did you mean 'aliases'\?"),
    ],
)
def test_a_mistake_has_its_line_its_key_and_the_nearest_valid_one(root: Path, text: str, sentence: str) -> None:
    """Whoever edits the file by hand is led to the line, and to the word that was meant."""
    (root / "m" / "model.toml").write_text(text)
    with pytest.raises(ContractBroken, match=rf"^m/model\.toml: .*{sentence}"):
        model_toml.read(root, "m")


def test_a_model_is_turned_off_and_on_again(root: Path) -> None:
    """Only a change is written, and the operator's text is the same after both."""
    path = root / "m" / "model.toml"
    path.write_text(TEXT)
    assert not model_toml_edits.set_enabled(root, "m", True)
    assert model_toml_edits.set_enabled(root, "m", False)
    assert not model_toml.read(root, "m").enabled
    assert not model_toml_edits.set_enabled(root, "m", False)
    assert model_toml_edits.set_enabled(root, "m", True)
    assert path.read_text() == TEXT


def test_a_broken_file_is_never_overwritten(root: Path) -> None:
    """Turning a model off needs a file that can be read; a broken one stays as it is."""
    path = root / "m" / "model.toml"
    path.write_text("enabled = maybe\n")
    with pytest.raises(ContractBroken, match=r"^m/model\.toml: "):
        model_toml_edits.set_enabled(root, "m", False)
    assert path.read_text() == "enabled = maybe\n"
    assert [file.name for file in (root / "m").iterdir()] == ["model.toml"]
