"""The preflight process: it loads versions, so that one that crashes or hangs does not take a worker with it.

`python -m tableside.preflight.child JOB` checks each version of the job (a PreflightJob as JSON) against its contract.
It writes one JSON line to stdout when it begins a version and one when it is done. `tableside.preflight.runner` starts
the process and reads the lines.
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
from tableside.settings import Environment, Repository

START_S = 180.0
"""The time limit for starting the interpreter and importing libraries. Each version has its own limit after that."""
_PR_SET_PDEATHSIG = 1


class PreflightJob(msgspec.Struct, frozen=True):
    """The argument of a preflight process.

    root: the repository. versions: (name, number), in the order to load them. parent: the pid of the starting process.
    store: the folder of the shared store; empty for none. environments: those that models may name. checked: the folder
    of checked artifacts; empty for none.
    """

    root: str
    versions: tuple[tuple[str, int], ...]
    policy: Repository
    parent: int
    store: str = ""
    environments: dict[str, Environment] = {}
    checked: str = ""


class Message(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line on stdout: the version with the index `at` has begun, or is done.

    failure_kind, reason: the result of a version that is done; NONE and an empty string if it passed.
    """

    at: int
    done: bool = False
    failure_kind: FailureKind = FailureKind.NONE
    reason: str = ""


def main() -> None:
    """Check each version of the job in `sys.argv[1]`. The kernel ends the process by SIGALRM at a time limit."""
    job = msgspec.json.decode(sys.argv[1], type=PreflightJob)
    messages = os.dup(1)
    os.dup2(2, 1)  # a model may print; only messages may reach the reader of stdout
    _end_with_parent(job.parent)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, START_S)
    from tableside.model_process.environment_pools import private
    from tableside.preflight.checks import check_version
    from tableside.preflight.shared_entries import published
    from tableside.runtimes.checked_artifacts import CheckedArtifacts
    from tableside.runtimes.shared_store import SharedStore
    from tableside.runtimes.sklearn import warm_up

    warm_up()
    store = SharedStore(Path(job.store)) if job.store else None
    checked = CheckedArtifacts(Path(job.checked)) if job.checked else None
    environments = private(job.environments, job.policy.load_timeout_s)
    for at, (name, number) in enumerate(job.versions):
        _write(messages, Message(at))
        signal.setitimer(signal.ITIMER_REAL, job.policy.load_timeout_s)
        failure_kind, reason = FailureKind.NONE, ""
        try:
            check_version(Path(job.root), name, number, job.policy, store, environments, checked)
        except ContractBroken as problem:
            failure_kind, reason = problem.failure_kind, str(problem)
        except Exception as problem:  # noqa: BLE001 - a broken artifact may raise anything
            failure_kind, reason = FailureKind.OTHER, f"{type(problem).__name__}: {problem}"
        except BaseException as problem:  # noqa: BLE001 - for example SystemExit, which would end a worker
            failure_kind, reason = (
                FailureKind.CRASHED,
                f"the version raised {type(problem).__name__} while it was loaded",
            )
        _write(messages, Message(at, True, failure_kind, reason))
    if checked is not None:
        checked.sweep(contract.artifact.sha256 for contract in published(Path(job.root)))
    os._exit(0)  # without running destructors of models, which could crash


def _write(fd: int, line: Message) -> None:
    os.write(fd, msgspec.json.encode(line) + b"\n")


def _end_with_parent(parent: int) -> None:
    """Make the kernel kill this process when its parent ends (Linux: prctl(2), PR_SET_PDEATHSIG)."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


if __name__ == "__main__":
    main()
