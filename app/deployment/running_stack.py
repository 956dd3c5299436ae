"""The stack that runs in a run folder: which repository it serves and where it listens, for the commands.

`tableside run` records that in the run folder. Without the record, the settings of a running stack could not be known:
it may have been started with other environment variables than the command that asks.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import msgspec

from tableside.deployment import stack_processes
from tableside.process import worker_slots
from tableside.process.instance_names import RUN_DIR
from tableside.setting_variables import FOLDER_VARIABLE
from tableside.settings import Settings

RECORD = "stack.json"
_RUN_DIR_VARIABLE = f"{RUN_DIR}=".encode()


class RunningStack(msgspec.Struct, frozen=True):
    """A running stack. run_dir, repository: absolute paths. listen, admin_listen: HOST:PORT of its two planes.

    folder: where relative paths in its settings count from; empty in the record of an older release.
    """

    run_dir: str
    repository: str
    listen: str
    admin_listen: str
    folder: str = ""


def record(settings: Settings) -> None:
    """Write the record of the stack that is about to start in the run folder. Raises OSError."""
    path = settings.run_dir / RECORD
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(msgspec.json.format(msgspec.json.encode(of_settings(settings))) + b"\n")
    temporary.replace(path)


def of_settings(settings: Settings) -> RunningStack:
    """Return the stack that these settings describe, whether or not it runs."""
    server = settings.server
    folder = os.environ.get(FOLDER_VARIABLE) or os.getcwd()
    return RunningStack(
        str(settings.run_dir), str(settings.repository_path), server.listen, server.admin_listen, folder
    )


def find(settings: Settings) -> RunningStack | None:
    """Return the stack that runs in the run folder of the settings, None if none runs.

    What its workers report counts more than the record, and for a stack without a record the settings count.
    """
    run_dir = settings.run_dir
    workers = worker_slots.statuses(run_dir / "worker_slots")
    if not workers and not supervisor_pid(run_dir):
        return None
    stack = _read(run_dir) or of_settings(settings)
    reported = next((path for worker in workers if isinstance(path := worker.get("repository"), str)), None)
    return msgspec.structs.replace(stack, repository=reported or stack.repository)


def _read(run_dir: Path) -> RunningStack | None:
    try:
        return msgspec.json.decode((run_dir / RECORD).read_bytes(), type=RunningStack)
    except (OSError, msgspec.DecodeError, msgspec.ValidationError):
        return None


def others(settings: Settings) -> list[RunningStack]:
    """Return the stacks of this user on this host that run in other run folders and have a record.

    They are found by the environment of their supervisord. Only a user's own processes show theirs.
    """
    found: dict[str, RunningStack] = {}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if b"supervisor" not in (process / "cmdline").read_bytes():
                continue
            variables = (process / "environ").read_bytes().split(b"\0")
            named = next((line for line in variables if line.startswith(_RUN_DIR_VARIABLE)), None)
            run_dir = Path(os.fsdecode(named.removeprefix(_RUN_DIR_VARIABLE))) if named else settings.run_dir
            if (
                run_dir != settings.run_dir
                and supervisor_pid(run_dir) == int(process.name)
                and (stack := _read(run_dir))
            ):
                found[stack.run_dir] = stack
    return [found[run_dir] for run_dir in sorted(found)]


def supervisor_pid(run_dir: Path) -> int:
    """Return the pid of supervisord if a stack runs in this run folder, otherwise 0.

    The file may be from another container, or from before a restart of the host: the pid in it may be that of another
    supervisord, which must have this run folder in its environment to count. Other users' cannot be read, and count.
    """
    try:
        pid = int((run_dir / "supervisord.pid").read_text())
    except (OSError, ValueError):
        return 0
    if pid == os.getpid() or not command_has(pid, "supervisor"):
        return 0
    try:
        return pid if stack_processes.has_run_dir(pid, run_dir) else 0
    except PermissionError:
        return pid


def find_supervisors(run_dir: Path) -> set[int]:
    """Return the pids of all supervisord that run for this run folder, also of one whose pid file is missing."""
    named = {supervisor_pid(run_dir)} - {0}
    return named | {process.pid for process in stack_processes.find(run_dir, stack_processes.Role.SUPERVISORD)}


def command_has(pid: int, word: str) -> bool:
    """Return whether the process runs and the word is in its command line."""
    try:
        return word.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def start_hint(settings: Settings) -> str:
    """Return what to do when no stack runs in the run folder; stacks in other run folders are named."""
    elsewhere = [
        f"a stack runs in {other.run_dir}: set TABLESIDE__SERVER__RUN_DIR={other.run_dir}" for other in others(settings)
    ]
    return "; ".join(["start the stack with `tableside run`, or set server.run_dir", *elsewhere])
