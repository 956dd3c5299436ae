"""A web keeper executes itself anew: in the code that is on the disk now, or as the keeper of another release."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from tableside.deployment import releases
from tableside.deployment.releases import Release
from tableside.errors import StackError

MODULE, WORK = "tableside.deployment.web_keeper", "tableside.deployment.instance_keeper"
ADOPT = "TABLESIDE_ADOPT"
"""The variable by which a keeper that executes itself anew names the instance that it goes on with."""
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def renew(release: Release, name: str, unheeded: Callable[[], Iterable[signal.Signals]]) -> str:
    """Become the keeper of a release, which goes on with the instance `name`. Return the reason if that fails.

    The release's code is tried first, in a process of its own. unheeded: returns the signals that have arrived
    meanwhile and were not acted upon; the next keeper gets them.
    """
    try:
        releases.run(release, ["-c", f"import {WORK}"], os.environ)
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # they wait until the next program listens to them
        for sign in unheeded():
            os.kill(os.getpid(), sign)
        _execute(release, {ADOPT: name})
    except (OSError, StackError) as problem:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        return str(problem)


def follow_record(run_dir: Path) -> None:
    """Become the keeper of the release in which `web` ran last, if that is not this one. Return if that fails."""
    release, here = releases.recorded(run_dir), os.getcwd()
    if release is not None and not release.is_in_force(os.environ):
        with suppress(OSError):
            _execute(release, {})
        os.chdir(here)


def _execute(release: Release, more: dict[str, str]) -> NoReturn:
    environ = releases.environment(release, os.environ) | more
    os.chdir(release.project)
    os.execve(release.python, [release.python, "-m", MODULE], environ)  # noqa: S606 - becomes the next keeper
