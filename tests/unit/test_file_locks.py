"""A lock on a file is held by one descriptor, and it never makes its caller wait."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tableside.process.file_locks import try_lock

ROOT = Path(__file__).parents[2]
HOLDER = """
import os, sys
from pathlib import Path
from tableside.process.file_locks import try_lock
assert try_lock(Path(sys.argv[1])) is not None
print("locked", flush=True)
os.kill(os.getpid(), 9)
"""


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_locked_file_cannot_be_locked_again(tmp_path: Path) -> None:
    """The second caller gets None, and the third gets the lock after the first has closed its descriptor."""
    path = tmp_path / "a.lock"
    first = try_lock(path)
    assert first is not None
    assert try_lock(path) is None
    os.close(first)
    third = try_lock(path)
    assert third is not None
    os.close(third)


def test_locks_of_different_files_are_independent(tmp_path: Path) -> None:
    """One process can hold the locks of two files."""
    descriptors = [try_lock(tmp_path / name) for name in ("a.lock", "b.lock")]
    assert None not in descriptors
    for fd in descriptors:
        os.close(fd or -1)


def test_a_failed_lock_leaves_no_descriptor_open(tmp_path: Path) -> None:
    """A caller that tries a locked file again and again does not run out of descriptors."""
    held = try_lock(tmp_path / "a.lock")
    assert held is not None
    before = open_descriptors()
    for _ in range(5):
        assert try_lock(tmp_path / "a.lock") is None
    assert open_descriptors() == before
    os.close(held)


def test_a_lock_file_is_private_and_not_inherited(tmp_path: Path) -> None:
    """Only its owner can read a new lock file, and a program that this process starts does not hold the lock."""
    fd = try_lock(tmp_path / "a.lock")
    assert fd is not None
    assert (tmp_path / "a.lock").stat().st_mode & 0o777 == 0o600
    assert not os.get_inheritable(fd)
    os.close(fd)


def test_a_file_that_cannot_be_opened_is_an_error(tmp_path: Path) -> None:
    """A missing folder, and a missing file where the flags do not create one, raise OSError."""
    with pytest.raises(FileNotFoundError):
        try_lock(tmp_path / "none" / "a.lock")
    with pytest.raises(FileNotFoundError):
        try_lock(tmp_path / "a.lock", os.O_RDWR)
    assert not (tmp_path / "a.lock").exists()


@pytest.mark.processes
def test_a_killed_holder_releases_its_lock(tmp_path: Path) -> None:
    """The kernel releases the lock of a process that was killed."""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "a.lock")]
    ended = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.stdout, ended.returncode) == ("locked\n", -9), ended.stderr
    fd = try_lock(tmp_path / "a.lock")
    assert fd is not None
    os.close(fd)
