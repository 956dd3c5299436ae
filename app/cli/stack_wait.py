"""Waits until the workers of the running stack serve a change of the repository."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import click
import msgspec

from tableside.cli import step_progress
from tableside.cli.options import served_elsewhere
from tableside.cli.reload import ReloadedModel, ReloadedWorker, ask, find_stack, result_of
from tableside.deployment import running_stack
from tableside.deployment.running_stack import RunningStack
from tableside.errors import StackError
from tableside.settings import Settings

POLL_S = 0.2
TIMEOUT_S = 120.0
"""How long to wait beyond `repository.load_timeout_s`, in which every worker reads the repository."""
Objection = Callable[[ReloadedWorker], str]
"""Why a worker that has read the repository does not serve the change; an empty string if it does."""


def check_stack(settings: Settings, elsewhere: str) -> None:
    """Raise StackError unless a stack runs and serves the repository.

    elsewhere: from `served_elsewhere`, which repository it serves instead.
    """
    if elsewhere:
        raise StackError(elsewhere)
    if running_stack.find(settings) is None:
        raise StackError(f"no stack runs in {settings.run_dir}: {running_stack.start_hint(settings)}")


def nobody_follows(root: Path, settings: Settings) -> str:
    """Return in a sentence why no running stack follows the repository; an empty string if one does."""
    elsewhere = served_elsewhere(root, settings)
    if elsewhere:
        return f"NO running server follows this change: {elsewhere}"
    if running_stack.find(settings) is None:
        return f"NO running server follows this change: no stack runs in {settings.run_dir}. The next start serves it"
    return ""


def wait_until_served(settings: Settings, name: str, version: int) -> int:
    """Make the running stack read the repository, and wait until each of its workers serves this version.

    Returns the number of workers. Raises StackError with the reason when the stack cannot serve it.
    """
    return wait_for(settings, f"{name}/{version}", lambda worker: not_served(worker, name, version))


def wait_for(settings: Settings, what: str, objection: Objection) -> int:
    """Make the running stack read the repository, and wait until each of its workers has and none objects.

    what: is served then, for messages. Returns the number of workers. Raises StackError with the reason.
    """
    stack = find_stack(settings)
    content, _ = ask(settings, stack)
    generation = result_of(content).generation
    deadline_at_s = time.monotonic() + settings.repository.load_timeout_s + TIMEOUT_S
    while True:
        workers = workers_of(stack)
        if workers and all(worker.generation >= generation for worker in workers):
            for reason in map(objection, workers):
                if reason:
                    raise StackError(reason)
            return len(workers)
        if time.monotonic() > deadline_at_s:
            late = sum(worker.generation < generation for worker in workers)
            raise StackError(
                f"{late} of {len(workers)} workers do not serve {what} yet; `tableside list` shows its state"
            )
        time.sleep(POLL_S)


def wait_shown(settings: Settings, what: str, objection: Objection) -> int:
    """Do as `wait_for`, and show that on standard error."""
    with step_progress.progress() as step:
        step(f"waiting until every worker serves {what}")
        return wait_for(settings, what, objection)


def not_served(worker: ReloadedWorker, name: str, version: int) -> str:
    """Return why a worker does not serve a version; an empty string if it does."""
    found = state_in(worker, name, version)
    if found is None:
        return f"{name}/{version} is not served: `versions` or `retired` in model.toml leaves it out"
    if found.state != "READY" or not found.current:
        return f"{name}/{version} is {found.state} in the running stack: {found.reason}"
    return ""


def workers_of(stack: RunningStack) -> Sequence[ReloadedWorker]:
    """Return the status of every worker of the stack."""
    from tableside.process import worker_slots

    statuses = worker_slots.statuses(Path(stack.run_dir) / "worker_slots")
    return msgspec.convert(statuses, list[ReloadedWorker], strict=False)


def state_in(worker: ReloadedWorker, name: str, version: int) -> ReloadedModel | None:
    """Return the state of a version in a worker; None if it does not know the version."""
    return next((model for model in worker.models if (model.name, model.version) == (name, version)), None)


def say_loudly(sentence: str) -> None:
    """Print a line on standard error that nobody overlooks."""
    click.secho(f"warning: {sentence}", err=True, bold=True, fg="yellow")
