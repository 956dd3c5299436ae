"""The core runs the same on greenlets."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PATCHED = """
from gevent import monkey
monkey.patch_all()
import sys
import pytest
raise SystemExit(pytest.main([*sys.argv[1:]]))
"""


@pytest.mark.processes
@pytest.mark.timeout(280)
def test_the_unit_ring_passes_under_gevent() -> None:
    """Every unit test that could notice passes again in a process that gevent patched first, as a worker's does."""
    asked = ["tests/unit", "-q", "-p", "no:xdist", "-p", "no:cacheprovider", "-m", "not processes and not no_greenlets"]
    run = subprocess.run(
        [sys.executable, "-c", PATCHED, *asked], cwd=ROOT, capture_output=True, text=True, timeout=270, check=False,
        env={**os.environ, "TABLESIDE_HYPOTHESIS": "few", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert run.returncode == 0, run.stdout[-5000:] + run.stderr[-2000:]
