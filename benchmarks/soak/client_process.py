"""Runs the steady client of benchmarks.soak.client in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.soak.models import Target

PROJECT = Path(__file__).resolve().parents[2]


@contextmanager
def steady_client(port: int, targets: Sequence[Target], rate: float, out: Path) -> Iterator[None]:
    """Send requests at a constant rate while this is entered.

    rate: requests a second over all targets. out: gets a line for each request.
    """
    command = [sys.executable, "-m", "benchmarks.soak.client", str(port), str(rate), str(out)]
    client = subprocess.Popen(command, stdin=subprocess.PIPE, cwd=PROJECT)
    assert client.stdin is not None
    client.stdin.write(json.dumps([vars(target) for target in targets]).encode())
    client.stdin.close()
    try:
        yield
    finally:
        client.terminate()
        client.wait(90)
