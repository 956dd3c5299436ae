"""A model process: loads versions and answers workers on a unix socket.

`PYTHON main.py --socket PATH --state FILE ...` is started by supervisord (tableside.model_process.programs), and
`PYTHON main.py --fd N` by a process that needs one for itself, such as a preflight. PYTHON is the interpreter of an
environment: Python 3.8 or later with scikit-learn and skops, without Tableside.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import sys
from typing import TYPE_CHECKING

for _variable in ("OMP", "OPENBLAS", "MKL", "NUMEXPR", "BLIS", "VECLIB"):
    os.environ[_variable + "_NUM_THREADS"] = "1"  # before numpy: the processes are the parallelism

_HERE = os.path.dirname(os.path.abspath(__file__))
_APP = os.path.dirname(os.path.dirname(_HERE))
sys.path[:0] = [_HERE, os.path.join(_APP, "contract")]  # `python -I` adds no folder by itself

_PR_SET_PDEATHSIG = 1


def main() -> int:
    """Read the arguments and serve until SIGTERM, or until the other end of `--fd` closes. Return the exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--fd", type=int, help="a connected socket: serve it alone, and end with it")
    parser.add_argument("--socket", help="path of the unix socket to listen on")
    parser.add_argument("--state", default="", help="file with the versions to load before listening")
    parser.add_argument("--call-timeout-s", type=float, default=0.0, help="end if a call takes longer; 0: never")
    options = parser.parse_args()
    # They import numpy, so that the number of threads must be set before.
    if TYPE_CHECKING:
        from tableside.model_process.child.loaded_versions import Versions
        from tableside.model_process.child.socket_server import Server, serve_connection
    else:
        from loaded_versions import Versions
        from socket_server import Server, serve_connection

    if options.fd is not None:
        _end_with_parent()
        serve_connection(options.fd, Versions())
        return 0
    server = Server(options.socket, Versions(options.state), options.call_timeout_s)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, server.drain)
    server.run()
    return 0


def _end_with_parent() -> None:
    """Make the kernel kill this process when its parent ends (Linux: prctl(2), PR_SET_PDEATHSIG)."""
    parent = os.getppid()
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    except (OSError, AttributeError):
        return
    if os.getppid() != parent:
        os._exit(1)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # without running destructors of models, which could crash
