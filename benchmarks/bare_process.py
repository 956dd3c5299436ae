"""The least that another process can cost: `python -m benchmarks.bare_process REPOSITORY NAME FD`.

It reads a byte from a connected socket, calls the estimator of NAME/1 on its first golden row, and sends a byte. No
table is encoded or decoded. benchmarks.hop measures this beside a model process: what both cost more than a call in one
process is the kernel's, and the caches' of the processor.
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path

from tableside.preflight.checks import check_version
from tableside.repository import integrity
from tableside.runtimes import golden
from tableside.settings import Repository


def main() -> None:
    """Answer until the other end closes."""
    root, name = Path(sys.argv[1]), sys.argv[2]
    table = golden.golden_table(integrity.read_contract(root, name, 1)).take(0, 1)
    runtime = check_version(root, name, 1, Repository())
    with socket.socket(fileno=int(sys.argv[3])) as connection:
        connection.setblocking(True)
        while connection.recv(1):
            runtime.run("predict", runtime.prepare(table))
            connection.send(b"x")


if __name__ == "__main__":
    main()
