"""Names and places."""

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
    """An alias cannot be taken for a version, nor for `latest`."""
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
    """`name`, `name/version` and `name@alias` mean the highest, that one, and the alias's."""
    for entry in ("1", "2", "10"):
        (tmp_path / "m" / entry).mkdir(parents=True)
        (tmp_path / "m" / entry / "contract.json").touch()
    aliases = {"champion": 2, "gone": 5}
    assert [paths.find(tmp_path, spec, aliases) for spec in ("m", "m/1", "m@champion", "m@latest")] == [10, 1, 2, 10]
    for spec in ("m/3", "m@gone", "m@x", "n"):
        with pytest.raises(ModelNotFound):
            paths.find(tmp_path, spec, aliases)


def test_a_folder_without_a_version_is_no_model(tmp_path: Path) -> None:
    """What a failed first publish leaves behind is not listed."""
    (tmp_path / "empty").mkdir()
    assert paths.models(tmp_path) == []
