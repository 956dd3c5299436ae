"""Changed files and bodies: one round of `make fuzz`, and what it counts as found."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.processes, pytest.mark.slow]
JUDGED = """
import ctypes
from tableside.errors import ContractBroken
from tests.hostile import files

def refused():
    raise ContractBroken("no")

def raised():
    raise KeyError("x")

def large():
    len(b'x' * (500 << 20))

def endless():
    while True:
        pass

files.TIME_S = 1
for load in (int, refused, raised, large, endless, lambda: ctypes.string_at(0)):
    print(files.judged(load, 0))
"""


def test_one_round_of_the_fuzzer_finds_nothing(repository: Path, tmp_path: Path) -> None:
    """Generated and changed bodies, and changed skops, contract, model.toml and MLmodel files: none does harm."""
    command = [sys.executable, "-m", "tests.hostile.fuzz", "--seconds", "1", "--share", "0.3"]
    where = ["--published", str(repository), "--keep", str(tmp_path)]
    done = subprocess.run([*command, *where], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert re.search(r"fuzz: \d+ inputs, seed 0, 0 found\n\Z", done.stdout)
    assert len(re.findall(r"  6  file ", done.stdout)) == 6, done.stdout


def test_what_is_found() -> None:
    """An error of another class, too much memory or time, and a signal are found; a refusal is none."""
    done = subprocess.run([sys.executable, "-c", JUDGED], capture_output=True, text=True, timeout=300)
    fine, refused, raised, large, endless, died = done.stdout.split("\n")[:6]
    assert (fine, refused, raised) == ("", "", "builtins.KeyError: 'x'"), done.stderr
    assert large.startswith("peak memory 5")
    assert endless == "takes more than 1 s of CPU"
    assert died.startswith("the process died of SIGSEGV")
