"""The versions in an environment. `PYTHON report.py` prints them as JSON; it imports none of the packages.

Runs in other environments: Python 3.8, no import of Tableside.
"""

from __future__ import annotations

import io
import json
import os
import platform
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from typing import Any

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


class _Output(io.FileIO):
    """Standard output, of which nobody may read any more: what is written then is lost, instead of an error."""

    def write(self, content: Any) -> int:
        try:
            return super().write(content)
        except OSError:
            return len(content)


def keep_output_usable() -> None:
    """Make writing to stdout and stderr raise no error in a process that outlives the reader of its log.

    Supervisord stops reading when the keeper has ended, and a model may print while it answers.
    """
    for name, fd in (("stdout", 1), ("stderr", 2)):
        stream = io.TextIOWrapper(
            io.BufferedWriter(_Output(fd, "w", closefd=False)), "utf-8", "backslashreplace", line_buffering=True
        )
        setattr(sys, name, stream)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(environment()) + "\n")
