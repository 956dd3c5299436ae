"""Work that goes on in a thread of its own when nobody waits for it any more."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Result = TypeVar("Result")


class InThread(Generic[Result]):
    """Runs `work` in a new thread; under gevent in a greenlet."""

    def __init__(self, work: Callable[[], Result]) -> None:
        self._work = work
        self._found: list[Result] = []
        self._problem: BaseException | None = None
        self._over = threading.Event()
        threading.Thread(target=self._run, name="work", daemon=True).start()

    def _run(self) -> None:
        try:
            self._found.append(self._work())
        except BaseException as problem:  # noqa: BLE001 - `result` raises it
            self._problem = problem
        finally:
            self._over.set()

    def wait(self, timeout_s: float) -> bool:
        """Wait up to `timeout_s` for the end of the work. Return whether it is over."""
        return self._over.wait(timeout_s)

    def result(self) -> Result:
        """Return what the work has returned, after `wait` has returned True. Raises what it has raised."""
        if self._problem is not None:
            raise self._problem
        return self._found[0]
