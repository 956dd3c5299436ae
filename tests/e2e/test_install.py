"""`make run` and `make test` install from the locked files on each supported Python, or print what is missing."""

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
    """Return the lines that uv resolves from a locked file, with wheels only."""
    command = [
        str(UV), "pip", "compile", f"{name}.txt", *options, "--only-binary", ":all:", "--no-strip-extras",
        "--no-header", "--no-annotate", "--no-emit-index-url", "--quiet",
    ]  # fmt: skip
    environ = {**os.environ, "UV_NATIVE_TLS": "1", "UV_PYTHON_DOWNLOADS": "never", "UV_PYTHON": sys.executable}
    done = subprocess.run(
        command, cwd=PROJECT / "requirements", env=environ, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return [line.strip() for line in done.stdout.splitlines() if line.strip()]


@pytest.mark.parametrize("name", FILES)
def test_resolving_a_locked_file_adds_nothing(name: str) -> None:
    """Resolving a locked file with its dependencies gives exactly the lines of the file."""
    text = (PROJECT / "requirements" / f"{name}.txt").read_text()
    lines = [line.rstrip("\\ ") for line in text.splitlines() if line and not line.startswith((" ", "#"))]
    assert sorted(compiled(name, "--universal", "--python-version", "3.11")) == sorted(lines)


@pytest.mark.parametrize("platform", ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"])
@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13", "3.14"])
def test_each_supported_python_has_wheels(python: str, platform: str) -> None:
    """Every locked version has a wheel for each supported Python and processor on Linux, so no compiler is needed."""
    for name in ("installer", "base", "onnx", "tracing", "dev"):
        assert compiled(name, "--no-deps", "--python-version", python, "--python-platform", platform)


@pytest.mark.parametrize("version", ["2.7.18", "3.10.13", "3.15.0"])
def test_another_python_is_refused_in_one_line(version: str, tmp_path: Path) -> None:
    """For an unsupported Python `make run` prints what to type in one line and creates no environment."""
    for name in ("Makefile", "deploy", "requirements", "pyproject.toml"):
        (tmp_path / name).symlink_to(PROJECT / name)
    version_info = tuple(int(part) for part in version.split("."))
    fake = tmp_path / "python"
    (tmp_path / "fake.py").write_text(f"import sys\nsys.version_info = {version_info}\nexec(sys.argv[2])\n")
    # Not the interpreter's path after "#!": it may have a space in it.
    fake.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{tmp_path}/fake.py" "$@"\n')
    fake.chmod(0o755)
    make = shutil.which("make")
    assert make
    environ = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}  # not a make in a make
    done = subprocess.run(
        [make, "PYTHON=./python", "run"], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=600
    )
    assert done.returncode != 0
    first, *rest = done.stderr.splitlines()
    assert first == (
        "tableside: ./python is not Python 3.11 to 3.14; name one, for example: make PYTHON=python3.12 run"
    )
    assert all(line.startswith("make: ***") for line in rest), rest
    assert not (tmp_path / ".venv").exists()


def need(folder: Path, *pairs: str) -> subprocess.CompletedProcess[str]:
    """Run deploy/need.sh with only `folder` and the system's programs on the PATH."""
    environ = {"PATH": f"{folder}:/usr/bin:/bin", "HOME": str(folder)}
    command = ["/bin/sh", str(PROJECT / "deploy" / "need.sh"), *pairs]
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=600)


def program(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def test_a_program_that_is_there_is_not_installed(tmp_path: Path) -> None:
    """A program found under any of its names is not installed again, and nothing is printed."""
    program(tmp_path, "apt-get", f"touch {tmp_path}/asked")
    program(tmp_path, "second-name", "true")
    done = need(tmp_path, "sh:dash", "first-name|second-name:package", "libc.so.6|libc.musl-x86_64.so.1:libc6")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not (tmp_path / "asked").exists()


def test_an_ordinary_user_gets_the_command_to_install(tmp_path: Path) -> None:
    """Without root, one line names every missing package once, and the command that installs them."""
    program(tmp_path, "id", "echo 1000")
    done = need(
        tmp_path, "nothing-a:package-a", "sh:dash", "libnothing.so.1:package-b", "nothing-b:package-a",
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "tableside: please install package-a package-b with your package manager "
        "(Debian, Ubuntu: sudo apt-get install package-a package-b)"
    ]


def test_a_failed_apt_get_is_reported_with_its_reason(tmp_path: Path) -> None:
    """If apt-get fails, the line that says what to install ends with apt's error."""
    program(tmp_path, "id", "echo 0")
    program(tmp_path, "apt-get", 'echo "W: a warning" >&2; echo "E: Could not resolve the host" >&2; exit 100')
    done = need(tmp_path, "nothing-a:package-a")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "tableside: installing package-a",
        "tableside: please install package-a with your package manager "
        "(Debian, Ubuntu: sudo apt-get install package-a) (apt-get: E: Could not resolve the host)",
    ]


def test_root_installs_after_an_update(tmp_path: Path) -> None:
    """As root, apt-get updates its lists first and then installs all missing packages in one call."""
    program(tmp_path, "id", "echo 0")
    program(tmp_path, "apt-get", f'echo "$@" >> {tmp_path}/asked')
    assert need(tmp_path, "nothing-a:package-a", "nothing-b:package-b").returncode == 0
    assert (tmp_path / "asked").read_text().splitlines() == [
        "update -qq", "install -y -qq --no-install-recommends package-a package-b",
    ]  # fmt: skip
