"""A model process: loads versions and answers workers on a unix socket.

`PYTHON main.py --keep --socket PATH --state FILE ...` is started by supervisord (tableside.deployment.model_programs)
and starts the same without `--keep`. `PYTHON main.py --fd N` is started by a process that needs one for itself, such as
a preflight. PYTHON is the interpreter of an environment: Python 3.8 or later with scikit-learn and skops, without
Tableside.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import sys
import warnings
from typing import TYPE_CHECKING

for _variable in ("OMP", "OPENBLAS", "MKL", "NUMEXPR", "BLIS", "VECLIB"):
    os.environ[_variable + "_NUM_THREADS"] = "1"  # before numpy: the processes are the parallelism

_HERE = os.path.dirname(os.path.abspath(__file__))
_APP = os.path.dirname(os.path.dirname(_HERE))
sys.path[:0] = [_HERE, os.path.join(_APP, "contracts")]  # `python -I` adds no folder by itself

_PR_SET_PDEATHSIG = 1


def main() -> int:
    """Read the arguments and serve until SIGTERM, or until the other end of `--fd` closes. Return the exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--fd", type=int, help="a connected socket: serve it alone, and end with it")
    parser.add_argument("--socket", help="path of the unix socket to listen on")
    parser.add_argument("--state", default="", help="file with the versions to load before listening")
    parser.add_argument("--call-timeout-s", type=float, default=0.0, help="end if a call takes longer; 0: never")
    parser.add_argument("--supervisor", default="", help="path of supervisord's unix socket")
    parser.add_argument("--process", default="", help="the process's name in supervisord; the keeper's, with --keep")
    parser.add_argument("--keep", action="store_true", help="be the keeper of a model process with the same arguments")
    parser.add_argument("--keeper", type=int, help="a pipe that ends with the keeper")
    options = parser.parse_args()
    hide_texts_of_warnings()
    if options.keep:
        return _keep(options)
    if options.fd is not None:
        return _serve_one(options.fd)
    return _serve(options)


def hide_texts_of_warnings() -> None:
    """Make Python write warnings without their texts, which may quote values of a request, as workers do."""
    warnings.formatwarning = _without_text


def _without_text(message: object, category: type, filename: str, lineno: int, line: object = None) -> str:
    return f"{filename}:{lineno}: {category.__name__} (text hidden: it may quote values of a request)\n"


def _serve_one(fd: int) -> int:
    if TYPE_CHECKING:
        from tableside.model_process.child.loaded_versions import Versions
        from tableside.model_process.child.socket_server import serve_connection
    else:
        from loaded_versions import Versions
        from socket_server import serve_connection

    _end_with_parent()
    serve_connection(fd, Versions())
    return 0


def _serve(options: argparse.Namespace) -> int:
    if TYPE_CHECKING:
        from tableside.model_process.child.report import keep_output_usable
        from tableside.model_process.child.succession import Successor, wait_for_turn
    else:
        from report import keep_output_usable
        from succession import Successor, wait_for_turn

    keep_output_usable()
    successor = Successor(options.socket, options.keeper, options.supervisor, options.process)
    turn = wait_for_turn(options.socket, options.state)  # before the imports, which take most of the time
    if TYPE_CHECKING:
        from tableside.model_process.child.loaded_versions import Versions
        from tableside.model_process.child.socket_server import Server
    else:
        from loaded_versions import Versions
        from socket_server import Server

    server = Server(options.socket, Versions(options.state), options.call_timeout_s, successor)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, server.drain)
    server.run(turn)
    return 0


def _keep(options: argparse.Namespace) -> int:
    if TYPE_CHECKING:
        from tableside.model_process.child.keeper import Keeper
    else:
        from keeper import Keeper

    words = [word for word in sys.argv[1:] if word != "--keep"]
    command = [sys.executable, "-I", os.path.abspath(__file__), *words]
    return Keeper(command, options.supervisor, options.process).run()


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
