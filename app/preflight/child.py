"""The process in which versions are tried: what crashes or hangs an interpreter never does so to a worker.

`python -m tableside.preflight.child JOB` holds each version of the job to its contract and writes a line when it begins
and when it is done. `tableside.preflight.runner` starts it and reads them.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import msgspec

from tableside.errors import ContractBroken, FailureKind
from tableside.settings import Repository

START_S = 60.0
"""What the interpreter and its libraries may take to start, before the first version's own time begins."""
_PR_SET_PDEATHSIG = 1


class PreflightJob(msgspec.Struct, frozen=True):
    """What the process is asked. versions: (name, number). parent: the pid that asks. store: a folder, or empty."""

    root: str
    versions: tuple[tuple[str, int], ...]
    policy: Repository
    parent: int
    store: str = ""


class Message(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of its answer: version `at` is begun, or has its preflight result."""

    at: int
    done: bool = False
    failure_kind: FailureKind = FailureKind.NONE
    reason: str = ""


def main() -> None:
    """The process: try each version of the job on the command line. Ends by SIGALRM when one takes too long."""
    job = msgspec.json.decode(sys.argv[1], type=PreflightJob)
    answers = os.dup(1)
    os.dup2(2, 1)  # what a model prints is no answer of ours
    _end_with(job.parent)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, START_S)
    from tableside.preflight.checks import check_version
    from tableside.runtimes.shared_store import SharedStore
    from tableside.runtimes.sklearn import warm_up

    warm_up()
    store = SharedStore(Path(job.store)) if job.store else None
    for at, (name, number) in enumerate(job.versions):
        _write(answers, Message(at))
        signal.setitimer(signal.ITIMER_REAL, job.policy.load_timeout_s)
        failure_kind, reason = FailureKind.NONE, ""
        try:
            check_version(Path(job.root), name, number, job.policy, store)
        except ContractBroken as problem:
            failure_kind, reason = problem.failure_kind, str(problem)
        except Exception as problem:  # noqa: BLE001 - a broken artifact may raise anything
            failure_kind, reason = FailureKind.OTHER, f"{type(problem).__name__}: {problem}"
        except BaseException as problem:  # noqa: BLE001 - sys.exit in a model would end a worker
            failure_kind, reason = FailureKind.CRASHED, f"it raised {type(problem).__name__}"
        _write(answers, Message(at, True, failure_kind, reason))
    os._exit(0)  # no destructor of a model gets to spoil what is known now


def _write(fd: int, line: Message) -> None:
    os.write(fd, msgspec.json.encode(line) + b"\n")


def _end_with(parent: int) -> None:
    """Let the kernel end this process with the one that asked, where the kernel can (Linux)."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


if __name__ == "__main__":
    main()
