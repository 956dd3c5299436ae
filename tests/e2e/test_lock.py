"""The locked requirements can be installed on each supported Python, whatever has been published since."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
UV = Path(sys.executable).parent / "uv"
FILES = ("installer", "base", "onnx", "dev", "bench")


def compiled(name: str, *options: str) -> list[str]:
    """The lines that resolving the locked file gives, from wheels only."""
    command = [
        str(UV), "pip", "compile", f"{name}.txt", *options, "--only-binary", ":all:", "--no-strip-extras",
        "--no-header", "--no-annotate", "--no-emit-index-url", "--quiet",
    ]  # fmt: skip
    environ = {**os.environ, "UV_NATIVE_TLS": "1", "UV_PYTHON_DOWNLOADS": "never", "UV_PYTHON": sys.executable}
    done = subprocess.run(
        command, cwd=PROJECT / "requirements", env=environ, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    return [line.strip() for line in done.stdout.splitlines() if line.strip()]


@pytest.mark.parametrize("name", FILES)
def test_resolving_a_locked_file_adds_nothing(name: str) -> None:
    """With dependencies looked up, the resolver names exactly the lines that the file has."""
    text = (PROJECT / "requirements" / f"{name}.txt").read_text()
    lines = [line.rstrip("\\ ") for line in text.splitlines() if line and not line.startswith((" ", "#"))]
    assert sorted(compiled(name, "--universal", "--python-version", "3.11")) == sorted(lines)


@pytest.mark.parametrize("platform", ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"])
@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13", "3.14"])
def test_each_supported_python_has_wheels(python: str, platform: str) -> None:
    """No compiler is needed on Linux: every locked version has a wheel for that Python and processor."""
    for name in ("installer", "base", "dev"):
        assert compiled(name, "--no-deps", "--python-version", python, "--python-platform", platform)


@pytest.mark.parametrize("said", ["2.7.18", "3.10.13", "3.15.0"])
def test_another_python_is_refused_in_one_line(said: str, tmp_path: Path) -> None:
    """`make run` names the interpreter, the supported versions and what to type, and makes no environment."""
    for name in ("Makefile", "deploy", "requirements", "pyproject.toml"):
        (tmp_path / name).symlink_to(PROJECT / name)
    version = tuple(int(part) for part in said.split("."))
    fake = tmp_path / "python"
    fake.write_text(f"#!{sys.executable}\nimport sys\nsys.version_info = {version}\nexec(sys.argv[2])\n")
    fake.chmod(0o755)
    make = shutil.which("make")
    assert make
    done = subprocess.run([make, "PYTHON=./python", "run"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    first, *rest = done.stderr.splitlines()
    assert first == (
        "tableside: ./python is not Python 3.11 to 3.14; name one, for example: make PYTHON=python3.12 run"
    )
    assert all(line.startswith("make: ***") for line in rest), rest
    assert not (tmp_path / ".venv").exists()
