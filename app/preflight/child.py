"""The preflight process: it loads versions, so that one that crashes or hangs does not take a worker with it.

`python -m tableside.preflight.child JOB` checks versions against their contracts by the rules of JOB (a PreflightJob as
JSON). Each line on stdin is a version: its name and number as JSON. It writes one JSON line to stdout when it waits for
a version, and one when it is done with it. `tableside.preflight.runner` starts the process and speaks with it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import msgspec

from tableside.errors import ContractBroken, FailureKind
from tableside.preflight.confinement import confine
from tableside.preflight.memory_need import Budget, Held, held_now
from tableside.preflight.results import measured
from tableside.process.long_lived import few_collections
from tableside.runtimes.malloc_trim import release_free_memory
from tableside.settings import Environment, Repository

START_S = 180.0
"""The time limit for starting the interpreter and importing libraries. Each version has its own limit after that."""
TOO_MUCH_MEMORY = (
    "loading the version takes more memory than a preflight may have, three quarters of this machine's (or of its "
    "control group's). Serve it where there is more, or publish a smaller model"
)
_PR_SET_PDEATHSIG = 1


class PreflightJob(msgspec.Struct, frozen=True):
    """The argument of a preflight process.

    root: the repository. parent: the pid of the starting process. store, checked: the folders of the shared store and
    of checked artifacts; empty for none. environments: those that models may name. workers: those that will load the
    versions; 0 checks no memory. results: the folder of the results of other versions.
    """

    root: str
    policy: Repository
    parent: int
    store: str = ""
    environments: dict[str, Environment] = {}
    checked: str = ""
    workers: int = 0
    results: str = ""


class Message(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line on stdout: the process waits for its first version, or is done with one.

    failure_kind, reason: the result of a version that is done; NONE and an empty string if it passed. held: the memory
    that its load took.
    """

    done: bool = False
    failure_kind: FailureKind = FailureKind.NONE
    reason: str = ""
    held: Held = Held()


def main() -> None:
    """Check versions by the job in `sys.argv[1]`. The kernel ends the process by SIGALRM at a time limit."""
    job = msgspec.json.decode(sys.argv[1], type=PreflightJob)
    versions, messages = os.fdopen(os.dup(0), "rb"), os.dup(1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # a model may print; only messages may reach the reader of stdout
    end_with_parent(job.parent)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, START_S)
    confine()
    from tableside.runtimes.sklearn import warm_up

    with few_collections():
        warm_up()
        check, budget = _checker(job), _budget(job)
    _sweep(job)
    _write(messages, Message())
    signal.setitimer(signal.ITIMER_REAL, 0)
    for line in versions:
        signal.setitimer(signal.ITIMER_REAL, job.policy.load_timeout_s)
        name, number = msgspec.json.decode(line, type=tuple[str, int])
        message = _result(partial(check, name, number), partial(budget.admit, (name, number)))
        signal.setitimer(signal.ITIMER_REAL, 0)
        _write(messages, message)
    os._exit(0)  # without running destructors of models, which could crash


def _checker(job: PreflightJob) -> Callable[[str, int], object]:
    from tableside.model_process.environment_pools import private
    from tableside.preflight.checks import check_version
    from tableside.runtimes.checked_artifacts import CheckedArtifacts
    from tableside.runtimes.shared_store import SharedStore

    store = SharedStore(Path(job.store)) if job.store else None
    checked = CheckedArtifacts(Path(job.checked)) if job.checked else None
    environments = private(job.environments, job.policy.load_timeout_s)
    return lambda name, number: check_version(Path(job.root), name, number, job.policy, store, environments, checked)


def _sweep(job: PreflightJob) -> None:
    """Remove the checked artifacts of versions that are gone, if there are more of them than versions."""
    from tableside.preflight.shared_entries import published
    from tableside.repository import paths
    from tableside.runtimes.checked_artifacts import CheckedArtifacts

    root = Path(job.root)
    with suppress(OSError):
        checked = CheckedArtifacts(Path(job.checked))
        if job.checked and checked.count() > sum(len(numbers) for _, numbers in paths.published(root)):
            checked.sweep(contract.artifact.sha256 for contract in published(root))


def _budget(job: PreflightJob) -> Budget:
    served = measured(Path(job.results)) if job.workers and job.policy.memory_budget_mb else {}
    return Budget(job.workers, job.policy.memory_budget_mb, served)


def _result(check: Callable[[], object], admit: Callable[[Held], object]) -> Message:
    release_free_memory()  # a load would use again what the one before has freed, and seem to take nothing
    before = held_now()
    try:
        loaded = check()
        held = held_now().since(before)  # while it is loaded
        admit(held)
        del loaded
    except ContractBroken as problem:
        return Message(True, problem.failure_kind, str(problem))
    except MemoryError:
        return Message(True, FailureKind.OTHER, TOO_MUCH_MEMORY)
    except Exception as problem:  # noqa: BLE001 - a broken artifact may raise anything
        return Message(True, FailureKind.OTHER, f"{type(problem).__name__}: {problem}")
    except BaseException as problem:  # noqa: BLE001 - for example SystemExit, which would end a worker
        return Message(True, FailureKind.CRASHED, f"the version raised {type(problem).__name__} while it was loaded")
    return Message(True, held=held)


def _write(fd: int, line: Message) -> None:
    os.write(fd, msgspec.json.encode(line) + b"\n")


def end_with_parent(parent: int) -> None:
    """Make the kernel kill this process when its parent ends (Linux: prctl(2), PR_SET_PDEATHSIG)."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


if __name__ == "__main__":
    main()
