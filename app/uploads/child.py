"""The upload process: unpacks and checks what a client has sent, publishes it, and makes the workers serve it.

`python -m tableside.uploads.child` reads an UploadJob as JSON from stdin. It may use what a preflight may: it reads
artifacts that nobody has loaded before. It goes on when the worker that has started it ends, and holds the lock of its
operation, which it has inherited.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import warnings
from contextlib import suppress

import msgspec

from tableside.contracts.schema import Contract
from tableside.control_errors import Conflict, Forbidden
from tableside.errors import ContractBroken, ModelNotReady, PublishFailed, RequestRejected, TablesideError, TooLarge
from tableside.preflight.confinement import confine
from tableside.process.audit_log import AuditLog, Line, now
from tableside.process.file_locks import wait_for_lock
from tableside.process.operations import Operation, RunningOperation
from tableside.repository.refusals import BreaksClients
from tableside.settings import Settings
from tableside.uploads.options import Options

PUBLISH_S = 1800.0
"""The time limit for one upload, loading and comparing backends included. The kernel ends the process then."""
QUEUE = "operations/uploads.lock"
"""Uploads of a host are carried out one after the other, so that their memory does not add up."""
STATUS: dict[type[Exception], int] = {
    Forbidden: 403, Conflict: 409, BreaksClients: 409, TooLarge: 413, RequestRejected: 400, PublishFailed: 400,
    ContractBroken: 400, ModelNotReady: 503, MemoryError: 400,
}  # fmt: skip
_FULL = (errno.ENOSPC, errno.EDQUOT)


class UploadJob(msgspec.Struct, frozen=True):
    """What an upload process is to do.

    archive: the file with the body of the request, which is removed. lock: the inherited descriptor of the operation's
    lock. renumber, options: of the request. change: what the audit log says of it.
    """

    settings: Settings
    operation: Operation
    lock: int
    name: str
    archive: str
    renumber: bool
    options: Options
    change: dict[str, str]


def main() -> None:
    """Carry out the job on stdin, and say in its operation and in the audit log how it ended."""
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=UploadJob)
    os.dup2(2, 1)  # a model may print
    running = RunningOperation(job.settings.run_dir, job.operation, job.lock)
    try:
        _carry_out(job, running)
    finally:
        with suppress(OSError):
            os.unlink(job.archive)
    sys.stdout.flush()
    os._exit(0)  # without running destructors of models, which could crash


def _carry_out(job: UploadJob, running: RunningOperation) -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    running.step("waiting for another upload")
    queue = wait_for_lock(job.settings.run_dir / QUEUE)
    signal.setitimer(signal.ITIMER_REAL, PUBLISH_S)
    confine()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from tableside.uploads.publishing import publish_upload

            result = publish_upload(job, running.step)
    except Exception as problem:  # noqa: BLE001 - a broken artifact may raise anything
        status, text, reasons = failure(problem)
        _record(job, {"state": "failed", "error": type(problem).__name__, "reason": text})
        running.fail(status, text, reasons)
    else:
        _record(job, {"state": "done", "after": f"{job.name}/{result['version']}"})
        running.end(result)
    finally:
        os.close(queue)


def _record(job: UploadJob, ending: Line) -> None:
    """Say in the audit log how the upload ended, before its operation does."""
    AuditLog(job.settings.run_dir, job.settings.log.max_bytes).end({**now(), **job.change, **ending})


def failure(problem: Exception) -> tuple[int, str, tuple[str, ...]]:
    """Return the status, the text, and the reasons of the workers."""
    cause = problem.__cause__ if isinstance(problem, PublishFailed) else problem
    if isinstance(cause, OSError):
        text = f"the repository or the run folder cannot be written: {cause.strerror or cause}. Nothing was published"
        return (507 if cause.errno in _FULL else 500), text, ()
    text = str(problem) if isinstance(problem, TablesideError) else f"{type(problem).__name__}: {problem}"
    if isinstance(problem, MemoryError):
        text = "it takes more memory than an upload may have, three quarters of this machine's. Nothing was published"
    return STATUS.get(type(problem), 400), text, problem.reasons if isinstance(problem, Conflict) else ()


def summary(contract: Contract) -> dict[str, object]:
    """Return what an operation says of a published version."""
    return {
        "name": contract.name, "version": contract.version, "estimator": contract.estimator,
        "sha256": contract.artifact.sha256, "columns": len(contract.input.columns),
        "outputs": [output.name for output in contract.outputs], "golden_rows": len(contract.golden.rows),
        "size_bytes": contract.size_bytes,
    }  # fmt: skip


if __name__ == "__main__":
    main()
