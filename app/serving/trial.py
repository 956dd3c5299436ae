"""The process in which versions are tried: what crashes or hangs an interpreter never does so to a worker.

`python -m app.serving.trial JOB` holds each version of the job to its contract and writes a line when it begins and
when it is done. `app.serving.trial_runs` starts it and reads them.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import msgspec

from app.errors import ContractBroken, Trouble
from app.settings import Repository

START_S = 60.0
"""What the interpreter and its libraries may take to start, before the first version's own time begins."""
_PR_SET_PDEATHSIG = 1


class Job(msgspec.Struct, frozen=True):
    """What the process is asked. versions: (name, number). parent: the pid that asks. shelf: a folder, or empty."""

    root: str
    versions: tuple[tuple[str, int], ...]
    policy: Repository
    parent: int
    shelf: str = ""


class Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of its answer: version `at` is begun, or has its verdict."""

    at: int
    done: bool = False
    trouble: Trouble = Trouble.NONE
    reason: str = ""


def main() -> None:
    """The process: try each version of the job on the command line. Ends by SIGALRM when one takes too long."""
    job = msgspec.json.decode(sys.argv[1], type=Job)
    answers = os.dup(1)
    os.dup2(2, 1)  # what a model prints is no answer of ours
    _end_with(job.parent)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, START_S)
    from app.repository.shelf import Shelf
    from app.runtimes.sklearn import warm_up
    from app.serving.loader import check_version

    warm_up()
    shelf = Shelf(Path(job.shelf)) if job.shelf else None
    for at, (name, number) in enumerate(job.versions):
        _write(answers, Line(at))
        signal.setitimer(signal.ITIMER_REAL, job.policy.load_timeout_s)
        trouble, reason = Trouble.NONE, ""
        try:
            check_version(Path(job.root), name, number, job.policy, shelf)
        except ContractBroken as problem:
            trouble, reason = problem.trouble, str(problem)
        except Exception as problem:  # noqa: BLE001 - a broken artifact may raise anything
            trouble, reason = Trouble.OTHER, f"{type(problem).__name__}: {problem}"
        except BaseException as problem:  # noqa: BLE001 - sys.exit in a model would end a worker
            trouble, reason = Trouble.CRASHED, f"it raised {type(problem).__name__}"
        _write(answers, Line(at, True, trouble, reason))
    os._exit(0)  # no destructor of a model gets to spoil what is known now


def _write(fd: int, line: Line) -> None:
    os.write(fd, msgspec.json.encode(line) + b"\n")


def _end_with(parent: int) -> None:
    """Let the kernel end this process with the one that asked, where the kernel can (Linux)."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


if __name__ == "__main__":
    main()
