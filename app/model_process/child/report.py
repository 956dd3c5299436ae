"""The versions in an environment. `PYTHON report.py` prints them as JSON; it imports none of the packages.

Runs in other environments: Python 3.8, no import of Tableside.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from importlib.metadata import PackageNotFoundError, version

PACKAGES = (
    "scikit-learn", "numpy", "scipy", "pandas", "skops", "joblib", "cloudpickle", "xgboost", "lightgbm", "catboost",
    "imbalanced-learn", "category-encoders", "feature-engine", "skrub", "polars",
)  # fmt: skip
"""The packages whose versions a model process reports."""


def environment() -> dict[str, str]:
    """Return the versions of Python and of the installed PACKAGES, and the machine type, such as `x86_64`."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def say(event: str, **fields: object) -> None:
    """Write a line of the log to stdout, in the format of Tableside's own log files."""
    now_s = time.time()
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now_s)) + f".{int(now_s % 1 * 1e6):06d}Z"
    line = {"time": stamp, "level": "info", "source": "model_process", "event": event, "pid": os.getpid()}
    line.update(fields)
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.stdout.write(json.dumps(environment()) + "\n")
