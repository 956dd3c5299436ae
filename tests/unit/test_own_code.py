"""Own code is imported from the bytes that were hashed, below a name of its own, and from nowhere else."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import sys
import threading
import traceback
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tableside.own_code import importer
from tableside.own_code.importer import OwnCode
from tests.own_code_models import CHURNLIB

pytestmark = pytest.mark.no_greenlets
NOWHERE = "/nowhere"


def installed(text: Mapping[str, str], folder: str = NOWHERE) -> OwnCode:
    return importer.install({path: each.encode() for path, each in text.items()}, lambda path: f"{folder}/{path}")


def imported(code: OwnCode, module: str) -> Any:
    return importlib.import_module(f"{code.package}.{module}")


def test_modules_import_each_other_in_every_way() -> None:
    """Relative and absolute imports mean the version's own modules, also those that run later inside a function."""
    code = installed(CHURNLIB)
    ratio = imported(code, "churnlib").Ratio().fit(_table())
    assert ratio.factor_ == 9.0
    assert ratio.transform(_table()).tolist() == [[3.25, 2.25]]
    assert imported(code, "helpers").words("The cat sat") == ["cat", "sat"]


def _table() -> Any:
    import numpy as np

    return np.array([[1.0, 2.0]])


def test_the_original_names_are_never_known() -> None:
    """`sys.modules` has only the version's own names, and the original names cannot be imported."""
    code = installed(CHURNLIB)
    imported(code, "churnlib").Ratio().fit(_table()).transform(_table())
    assert not [name for name in sys.modules if name.partition(".")[0] in ("churnlib", "helpers")]
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("churnlib")


def test_versions_with_different_code_do_not_meet() -> None:
    """Two versions of a module of the same name are two modules, each with the other modules of its version."""
    found = []
    for factor in (2.0, 5.0):
        text = {**CHURNLIB, "churnlib/scale.py": f"def factor():\n    return {factor}\n"}
        found.append(imported(installed(text), "churnlib.ratio").Ratio().fit(_table()))
    assert [ratio.factor_ for ratio in found] == [4.0, 25.0]
    assert found[0].transform(_table())[0, 0] != found[1].transform(_table())[0, 0]
    assert type(found[0]) is not type(found[1])


def test_equal_code_is_imported_once() -> None:
    """The name is made from the content, so versions with the same code share it."""
    assert installed(CHURNLIB) is installed(dict(reversed(CHURNLIB.items())))
    assert installed(CHURNLIB).package != installed({**CHURNLIB, "helpers.py": ""}).package


def test_nothing_is_looked_for_on_the_disk(tmp_path: Path) -> None:
    """A module, a compiled file or a folder beside the code is not importable: only what was given is."""
    code = installed({"lib/__init__.py": "", "lib/one.py": "VALUE = 1\n"}, str(tmp_path))
    imported(code, "lib.one")
    for name in ("lib/two.py", "lib/sub/__init__.py", "lib/one.pyc", "other.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("raise SystemExit('must not run')")
    for name in ("lib.two", "lib.sub", "other"):
        with pytest.raises(ModuleNotFoundError):
            imported(code, name)
    assert importlib.util.find_spec(f"{code.package}.lib.two") is None
    assert list(pkgutil.iter_modules(imported(code, "lib").__path__)) == []


def test_a_package_that_was_not_installed_is_not_found() -> None:
    """A name of the form of own code does not exist before its code is installed."""
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module(f"{importer.package_name({'a.py': '0' * 64})}.a")


def test_a_folder_without_init_is_a_package() -> None:
    """As Python does it, a folder without `__init__.py` is an empty package."""
    code = installed({"plain/inner/value.py": "VALUE = 7\n"})
    assert imported(code, "plain.inner.value").VALUE == 7
    assert imported(code, "plain").__path__ == []


def test_other_libraries_keep_their_imports() -> None:
    """Modules of own code with names of library modules change nothing for the library."""
    code = installed({"lib/__init__.py": "", "lib/json.py": "import json\nTEXT = json.dumps([1])\n"})
    assert imported(code, "lib.json").TEXT == "[1]"
    assert code.foreign == {"json": f"{NOWHERE}/lib/json.py"}


def test_data_files_are_read_from_memory() -> None:
    """`importlib.resources` and `pkgutil` give the files that were hashed."""
    code = installed(CHURNLIB)
    package = imported(code, "churnlib")
    folder = files(package)
    assert sorted(each.name for each in folder.iterdir()) == [
        "__init__.py", "broken.py", "data", "late.py", "ratio.py", "scale.py",
    ]  # fmt: skip
    stop = folder / "data" / "stop.txt"
    assert stop.is_file() and not stop.is_dir() and (folder / "data").is_dir()
    assert stop.read_bytes() == b"the\na\n"
    with stop.open(encoding="utf-8") as opened:
        assert opened.readlines() == ["the\n", "a\n"]
    assert pkgutil.get_data(package.__name__, "data/stop.txt") == b"the\na\n"
    with pytest.raises(FileNotFoundError):
        (folder / "data" / "go.txt").read_text()
    with pytest.raises(FileNotFoundError):
        pkgutil.get_data(package.__name__, "data/go.txt")


def test_a_traceback_shows_the_line() -> None:
    """An error in own code is reported with its file and source line, as for any other code."""
    code = installed({"wrong.py": "def fail():\n    return 1 / 0  # the culprit\n"})
    with pytest.raises(ZeroDivisionError) as failed:
        imported(code, "wrong").fail()
    text = "".join(traceback.format_exception(failed.value))
    assert f'File "{NOWHERE}/wrong.py", line 2, in fail' in text
    assert "# the culprit" in text


def test_threads_import_at_once() -> None:
    """Several threads that import own code for the first time get one module each name."""
    code = installed({"slow.py": "import time\ntime.sleep(0.05)\nTOKEN = object()\n", "user.py": "USED = 1\n"})
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(imported(code, "slow").TOKEN)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(map(id, found))) == 1


def test_original_names_mean_own_code_for_a_while() -> None:
    """Inside the context the trainer's names are the version's modules; what was there before is back afterwards."""
    code = installed(CHURNLIB)
    before = sys.modules["helpers"] = ModuleType("helpers")
    try:
        with importer.original_names(code):
            ratio = importlib.import_module("churnlib.ratio")
            assert ratio is sys.modules[f"{code.package}.churnlib.ratio"]
            assert ratio.__name__ == f"{code.package}.churnlib.ratio"
            assert importlib.import_module("helpers") is not before
            with pytest.raises(ModuleNotFoundError, match=r"No module named 'churnlib\.missing'"):
                importlib.import_module("churnlib.missing")
        assert sys.modules["helpers"] is before
        assert "churnlib" not in sys.modules
    finally:
        del sys.modules["helpers"]


def test_original_names_can_be_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A check hides the trainer's own files, which the server will not have."""
    (tmp_path / "helpers.py").write_text("OFFSET = 99\n")
    monkeypatch.syspath_prepend(tmp_path)
    code = installed(CHURNLIB)
    with (
        importer.original_names(code, hidden=True),
        pytest.raises(ModuleNotFoundError, match="No module named 'helpers'"),
    ):
        importlib.import_module("helpers")
    assert importlib.import_module("helpers").OFFSET == 99
    del sys.modules["helpers"]


def test_a_module_that_raises_can_be_imported_again() -> None:
    """An import that fails leaves no half module behind."""
    code = installed(CHURNLIB)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="never imported"):
            imported(code, "churnlib.broken")
    assert f"{code.package}.churnlib.broken" not in sys.modules
