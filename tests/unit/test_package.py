"""What the package says about itself: its dependencies and its public names."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import tableside

PROJECT = Path(__file__).resolve().parents[2]


def test_the_wheel_needs_what_the_locked_file_is_made_of() -> None:
    """pyproject.toml and requirements/base.in have the same lines, so the wheel's ranges are those that are locked."""
    declared = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["dependencies"]
    lines = (PROJECT / "requirements" / "base.in").read_text().splitlines()
    assert declared == [line for line in lines if line and not line.startswith("#")]


@pytest.mark.parametrize(("extra", "file"), [("onnx", "onnx"), ("tracing", "tracing"), ("libraries", "libraries")])
def test_the_extras_are_what_their_locked_files_are_made_of(extra: str, file: str) -> None:
    """The same for what is optional."""
    extras = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    lines = (PROJECT / "requirements" / f"{file}.in").read_text().splitlines()
    assert extras[extra] == [line for line in lines if line and not line.startswith(("#", "-"))]
    assert set(extras["boosters"]) < set(extras["libraries"])


def test_each_dependency_has_a_lowest_version() -> None:
    """`make test-oldest` installs it."""
    declared = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert [each for each in declared if ">=" not in each] == []


@pytest.mark.processes
def test_importing_the_package_imports_nothing_else() -> None:
    """The names are imported when they are used: `import tableside` alone costs a few milliseconds."""
    code = (
        "import sys, tableside; dir(tableside); "
        "print([name for name in sys.modules if name.split('.')[0] in ('tableside', 'sklearn', 'tableside_client')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600, check=True)
    assert done.stdout.strip() == "['tableside']"


def test_the_public_names_are_what_they_say() -> None:
    """Every name of __all__ can be had; another one is an AttributeError, as for any module."""
    assert {name: getattr(tableside, name).__name__ for name in tableside.__all__ if name != "__version__"} == {
        "Client": "Client",
        "contract": "contract",
        "publish": "publish",
    }
    assert set(tableside.__all__) <= set(dir(tableside))
    with pytest.raises(AttributeError, match="module 'tableside' has no attribute 'serve'"):
        _ = tableside.serve  # type: ignore[attr-defined]
