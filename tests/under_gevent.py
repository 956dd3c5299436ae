"""Runs pytest in a process that gevent patched first, as a worker's is.

Usage: python -m tests.under_gevent PYTEST_ARGUMENTS...
"""

from gevent import monkey

monkey.patch_all()

import sys

import pytest

if __name__ == "__main__":
    sys.exit(pytest.main(sys.argv[1:]))
