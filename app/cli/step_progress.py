"""Shows the steps of a long command on standard error: with a bar on a terminal, otherwise as lines."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.progress import Progress


class StepLines:
    """Prints each step as one line, for a log or a pipe."""

    def __init__(self, prefix: str = "") -> None:
        self._prefix, self._step = prefix, ""

    def __call__(self, step: str) -> None:
        """Print the step, unless it was the last one."""
        if step != self._step:
            click.echo(f"... {self._prefix}{step}", err=True)
        self._step = step


class StepBar:
    """Shows the current step on a terminal: with a bar and the time that is left where its share is known."""

    def __init__(self, bar: Progress, prefix: str = "") -> None:
        self._bar, self._prefix, self._step = bar, prefix, ""
        self._task = bar.add_task(f"{prefix}starting", total=None)

    def __call__(self, step: str) -> None:
        """Show that a step begins."""
        if step != self._step:
            self._bar.remove_task(self._task)  # a task that has a total cannot lose it
            self._task = self._bar.add_task(f"{self._prefix}{step}", total=None)
        self._step = step

    def show_share(self, share: float) -> None:
        """Show how much of the step is done, from 0 to 1."""
        self._bar.update(self._task, total=1.0, completed=share)


@contextmanager
def progress(prefix: str = "") -> Iterator[Callable[[str], None]]:
    """Yield a function that shows the current step: with a bar on a terminal, otherwise as one line for each step.

    prefix: stands before each step.
    """
    if not sys.stderr.isatty():
        yield StepLines(prefix)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TextColumn("left:"),
        TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(
        *columns, console=Console(stderr=True), transient=True, redirect_stdout=False, redirect_stderr=False
    ) as bar:
        yield StepBar(bar, prefix)
