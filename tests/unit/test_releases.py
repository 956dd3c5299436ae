"""A stack goes on in another release: its folder, its interpreter, and the environment of its processes."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tableside.deployment import layout, releases
from tableside.deployment.releases import Release
from tableside.errors import StackError

OLD = Release("/srv/one", "/srv/one/.venv/bin/python")
NEW = Release("/srv/two", "/srv/two/.venv/bin/python")


def test_paths_in_the_old_folder_become_paths_in_the_new_one() -> None:
    """PATH and PYTHONPATH follow the release; everything else, and folders of a similar name, stay."""
    environ = {
        "TABLESIDE_PROJECT": "/srv/one", "TABLESIDE_PYTHON": OLD.python, "HOME": "/srv/one/home",
        "PYTHONPATH": "/srv/one/src:/opt/own:/srv/one-more/src", "PATH": "/srv/one/.venv/bin:/usr/bin:",
        "PWD": "/srv/one",
    }  # fmt: skip
    moved = releases.environment(NEW, environ)
    assert moved["PYTHONPATH"] == "/srv/two/src:/opt/own:/srv/one-more/src"
    assert moved["PATH"] == "/srv/two/.venv/bin:/usr/bin:"
    assert (moved["HOME"], moved["PWD"]) == ("/srv/one/home", "/srv/two")
    assert releases.running(moved) == NEW
    assert releases.environment(OLD, environ) == environ


def test_a_folder_behind_the_link_follows_too(tmp_path: Path) -> None:
    """PYTHONPATH may name the folder itself although the stack was started through a link to it."""
    (tmp_path / "one").mkdir()
    (tmp_path / "current").symlink_to(tmp_path / "one")
    environ = {"TABLESIDE_PROJECT": str(tmp_path / "current"), "PYTHONPATH": f"{tmp_path}/one/src:{tmp_path}/current/x"}
    assert releases.environment(NEW, environ)["PYTHONPATH"] == "/srv/two/src:/srv/two/x"


def test_the_record_names_the_release_until_its_folder_is_gone(tmp_path: Path) -> None:
    """A damaged record, or one of a folder that was removed, counts as none."""
    assert releases.recorded(tmp_path) is None
    here = Release(str(tmp_path), sys.executable)
    releases.record(tmp_path, here)
    assert releases.recorded(tmp_path) == here
    releases.record(tmp_path, Release(str(tmp_path), str(tmp_path / "gone")))
    assert releases.recorded(tmp_path) is None
    (tmp_path / releases.RECORD).write_text("{")
    assert releases.recorded(tmp_path) is None


def test_a_folder_without_a_release_is_refused(tmp_path: Path) -> None:
    """The error names what is missing. A link stays a link."""
    with pytest.raises(StackError, match="it is no release of Tableside"):
        releases.in_folder(tmp_path)
    (tmp_path / "supervisord.conf").touch()
    with pytest.raises(StackError, match=r"it has no \.venv"):
        releases.in_folder(tmp_path)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").symlink_to(sys.executable)
    link = tmp_path.with_name(f"{tmp_path.name}-link")
    link.symlink_to(tmp_path)
    assert releases.in_folder(link) == Release(str(link), str(link / ".venv" / "bin" / "python"))


@pytest.mark.processes
def test_the_last_line_of_a_failing_release_is_the_reason(tmp_path: Path) -> None:
    """What the interpreter prints is returned; an interpreter that is missing is an error too."""
    here = Release(str(tmp_path), sys.executable)
    assert releases.run(here, ["-c", "import os; print(os.getcwd())"], os.environ) == f"{tmp_path}\n"
    with pytest.raises(StackError, match="does not run: ZeroDivisionError: division by zero"):
        releases.run(here, ["-c", "1 / 0"], os.environ)
    with pytest.raises(StackError, match="cannot be run: .*No such file"):
        releases.run(Release(str(tmp_path), "/none/python"), [], os.environ)


@pytest.mark.parametrize("road", ["the working directory", "the command", "the module", "an inherited variable"])
def test_the_folder_is_stored_as_the_operator_wrote_it(tmp_path: Path, road: str) -> None:
    """A link to this code is found by whichever road names it; one to another folder is not taken for it."""
    link = tmp_path / "current"
    link.symlink_to(layout.PROJECT)
    other = tmp_path / "other"
    other.mkdir()
    environ = {
        "the working directory": {"PWD": str(link)},
        "the command": {"PWD": "/"},
        "the module": {"PWD": "/"},
        "an inherited variable": {"PWD": "/", "TABLESIDE_PROJECT": str(link)},
    }[road]
    commands = {"the command": f"{link}/.venv/bin/tableside", "the module": f"{link}/src/tableside/cli/__main__.py"}
    assert layout.project_folder(environ, commands.get(road, "/usr/bin/tableside")) == link
    assert layout.project_folder({"PWD": str(other), "TABLESIDE_PROJECT": str(other)}, "run") == layout.PROJECT
    assert layout.project_folder({}, ".venv/bin/tableside") == layout.PROJECT
