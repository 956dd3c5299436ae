"""How publish tells what it does: a function that is called with the name of each step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

Progress = Callable[[str], None]


@runtime_checkable
class ShowsShare(Protocol):
    """A receiver of steps that also shows how much of the current step is done."""

    def show_share(self, share: float) -> None:
        """Show the share of the current step that is done, from 0 to 1."""


def show_share(progress: Progress, done: int, total: int) -> None:
    """Tell that `done` of `total` parts of the current step are done, if the receiver shows that."""
    if total and isinstance(progress, ShowsShare):
        progress.show_share(done / total)


def silent(step: str) -> None:
    """Show nothing."""
