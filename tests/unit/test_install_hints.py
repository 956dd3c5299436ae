"""The commands that install optional packages name what exists."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from tableside import __version__
from tableside.install_hints import install_hint

PROJECT = Path(__file__).resolve().parents[2]


def test_each_hint_names_an_extra_and_a_locked_file() -> None:
    """Every extra that the code names is in pyproject.toml, and its locked file exists."""
    extras = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    code = "".join(path.read_text() for path in (PROJECT / "app").rglob("*.py") if path.stem != "install_hints")
    named = set(re.findall(r"install_hint\('(\w+)'\)", code))
    assert {"onnx", "tracing", "libraries"} <= named <= set(extras)
    for extra in named:
        wheel, locked = re.findall(r"'(\S+\.whl\[\w+\])', or in a checkout .* -r (\S+)\Z", install_hint(extra))[0]
        assert wheel == f"tableside-{__version__}-py3-none-any.whl[{extra}]"
        assert (PROJECT / locked).is_file()
