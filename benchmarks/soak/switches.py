"""Changes of the models, once a second, while a soak runs: they too must fail no request."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from benchmarks.soak.stack import Stack
from tableside.errors import TablesideError
from tableside.repository import release_edits
from tableside.serving import changes
from tableside.settings import load
from tableside.telemetry import logs

EVERY_S = 1.0
ALIAS = "soak"


class Switches:
    """Sets and removes an alias of a model in turn. made: how many changes all workers have made."""

    def __init__(self, stack: Stack, name: str, troubles: list[str]) -> None:
        self.made = 0
        self._settings, self._name, self._troubles = load(stack.environ), name, troubles
        self._stop = threading.Event()

    def run(self) -> None:
        """Make changes until `stop`."""
        root = self._settings.repository_path
        is_set = False
        while not self._stop.wait(EVERY_S):
            edit = (
                partial(release_edits.remove_alias, root, self._name, ALIAS)
                if is_set
                else partial(release_edits.move_alias, root, self._name, ALIAS, 1)
            )
            try:
                changes.apply(self._settings, self._name, edit, "a switch of the soak")
                self.made, is_set = self.made + 1, not is_set
            except (TablesideError, OSError) as problem:
                self._troubles.append(f"switch: {problem}")

    def stop(self) -> None:
        """End after the change that is being made."""
        self._stop.set()


@contextmanager
def switching(stack: Stack, name: str, troubles: list[str]) -> Iterator[Switches]:
    """Make changes of a model in a thread. troubles: gets a line for each that was refused."""
    logs.configure("text", "warning")  # a line for each would hide the progress
    made = Switches(stack, name, troubles)
    thread = threading.Thread(target=made.run)
    thread.start()
    try:
        yield made
    finally:
        made.stop()
        thread.join(300)
