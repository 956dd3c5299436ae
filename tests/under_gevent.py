"""Runs pytest in processes that gevent patched first, as a worker's is. Each process runs the tests of some files.

Usage: python -m tests.under_gevent PYTEST_ARGUMENTS...
"""

from gevent import monkey

monkey.patch_all()

import os
import subprocess
import sys
from collections.abc import Sequence

import pytest

from tests.step_parts import PART, PARTS, FilesOfPart, of_part


def main(arguments: Sequence[str]) -> int:
    """Run the parts side by side. Returns the exit status of the first part that failed, or 0."""
    if PART in os.environ:
        return int(pytest.main([*arguments], plugins=[FilesOfPart(int(os.environ[PART]))]))
    command = [sys.executable, "-m", "tests.under_gevent", *arguments]
    options = os.environ.get("PYTEST_ADDOPTS", "")
    running = [
        subprocess.Popen(command, env={**os.environ, PART: str(part), "PYTEST_ADDOPTS": of_part(options, part)})
        for part in range(PARTS)
    ]
    return next((status for status in [process.wait() for process in running] if status), 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
