"""Names, versions and paths of a model repository."""

from __future__ import annotations

from pathlib import Path

import pytest

from tableside.errors import ModelNotFound, PublishFailed
from tableside.repository import paths


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "-a", ".a", "a b", "a..b", "ä", "a" * 101, "a\n", "a\0"])
def test_a_name_never_leaves_the_repository(name: str) -> None:
    """What could be a path, a hidden file or an option is not a valid model name."""
    with pytest.raises(PublishFailed, match="is not a valid model name"):
        paths.check_name(name)


@pytest.mark.parametrize("alias", ["", "1", "latest", "a/b", "@a", "a" * 65, "a\n"])
def test_an_alias_is_no_version(alias: str) -> None:
    """An alias that could be read as a version, or as `latest`, is not valid."""
    with pytest.raises(PublishFailed, match="is not a valid alias|is reserved"):
        paths.check_alias(alias)


def test_only_whole_versions_count(tmp_path: Path) -> None:
    """A folder is a version when its name is a number from 1 and its contract is there."""
    for entry in ("1", "2", "10", "0", "01", ".publishing-x", "draft"):
        (tmp_path / "m" / entry).mkdir(parents=True)
        (tmp_path / "m" / entry / "contract.json").touch()
    (tmp_path / "m" / "11").mkdir()
    assert paths.versions(tmp_path, "m") == [1, 2, 10]
    assert paths.versions(tmp_path, "..") == []
    assert paths.models(tmp_path) == ["m"]
    assert paths.models(tmp_path / "none") == []


def test_a_spec_means_one_version(tmp_path: Path) -> None:
    """`name` means the newest version, `name/version` that one, and `name@alias` the alias's target."""
    for entry in ("1", "2", "10"):
        (tmp_path / "m" / entry).mkdir(parents=True)
        (tmp_path / "m" / entry / "contract.json").touch()
    aliases = {"champion": 2, "gone": 5}
    assert [paths.find(tmp_path, spec, aliases) for spec in ("m", "m/1", "m@champion", "m@latest")] == [10, 1, 2, 10]
    for spec in ("m/3", "m@gone", "m@x", "n"):
        with pytest.raises(ModelNotFound):
            paths.find(tmp_path, spec, aliases)


def test_a_folder_without_a_version_is_no_model(tmp_path: Path) -> None:
    """An empty folder, which a failed first publish leaves behind, is not listed."""
    (tmp_path / "empty").mkdir()
    assert paths.models(tmp_path) == []


@pytest.mark.parametrize("name", ["a", "A.b-c_d", "9", "a" * 100])
def test_valid_names_are_returned(name: str) -> None:
    """Letters, digits, `_`, `-` and single dots, up to 100 characters, are a name."""
    assert paths.check_name(name) == name


def test_a_reserved_name_is_refused() -> None:
    """The protocol uses `/v2/models/stats` itself, so no model can have that name."""
    with pytest.raises(PublishFailed, match=r"'stats' is reserved by the protocol \(/v2/models/stats\)"):
        paths.check_name("stats")


@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        ("m", ("m", None)),
        ("m/3", ("m", "3")),
        ("m@live", ("m", "live")),
        ("m@", ("m", "")),
        ("m@a/b", ("m", "a/b")),
        ("", ("", None)),
    ],
)
def test_a_spec_is_split_at_its_first_separator(spec: str, parts: tuple[str, str | None]) -> None:
    """The rest is returned as it is: whether such a version or alias exists is checked by `find`."""
    assert paths.split_spec(spec) == parts


def test_errors_list_what_there_is(tmp_path: Path) -> None:
    """An unknown model lists the models, an unknown version the versions and aliases."""
    with pytest.raises(ModelNotFound, match=r"^no model 'm' in .*\. It holds: no published model$"):
        paths.find(tmp_path, "m", {})
    for version in ("2", "10"):
        (tmp_path / "m" / version).mkdir(parents=True)
        (tmp_path / "m" / version / "contract.json").touch()
    with pytest.raises(ModelNotFound, match=r"^no model 'n' in .*\. It holds: m$"):
        paths.find(tmp_path, "n", {})
    with pytest.raises(ModelNotFound, match=r"^model 'm' has no version or alias '3'\. It has: 2, 10, live, test$"):
        paths.find(tmp_path, "m/3", {"test": 2, "live": 10})
