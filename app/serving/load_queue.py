"""The order in which a worker loads versions: those that a request waits for first, then the given order."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable
from typing import Generic, TypeVar

Item = TypeVar("Item")
Key = tuple[str, int]
"""A model's name and a version's number."""


class LoadQueue(Generic[Item]):
    """The versions that one reload loads.

    They are announced, offered when they may be loaded (when their preflight is over), taken once, and done. Only
    threads of one kind may use a queue: greenlets of one thread, or threads of the standard library.
    """

    def __init__(self, announced: Iterable[Key]) -> None:
        """announced: the versions that will be offered, in the order to load them if no request waits for one."""
        self._rank = {key: rank for rank, key in enumerate(announced)}
        self._missing = {key: threading.Event() for key in self._rank}
        self._asked: dict[Key, None] = {}
        self._offered: dict[Key, Item] = {}
        self._taken: set[Key] = set()
        self._closed = False
        self._changed = threading.Condition()

    def offer(self, items: Iterable[tuple[Key, Item]]) -> None:
        """Let these versions be taken."""
        with self._changed:
            self._offered.update(items)
            self._changed.notify_all()

    def close(self) -> None:
        """Say that no more versions will be offered."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def ask(self, key: Key) -> threading.Event | None:
        """Put a version before those that nobody has asked for.

        Returns the event of its end; None if it is done or was not announced.
        """
        ended = self._missing.get(key)
        if ended is not None and key not in self._asked:
            with self._changed:
                self._asked[key] = None
                self._changed.notify_all()
        return ended

    @property
    def asked(self) -> tuple[Key, ...]:
        """The versions that requests wait for, in the order in which they were asked for."""
        return tuple(key for key in tuple(self._asked) if key in self._missing)

    def take(self, among: Collection[Key], only_asked: bool = False) -> tuple[Key, Item] | None:
        """Wait for the next of these versions and return it; None when there will be no more of them.

        only_asked: take only versions that requests wait for.
        """
        with self._changed:
            while True:
                key = self._next(among, only_asked)
                if key is not None:
                    self._taken.add(key)
                    return key, self._offered.pop(key)
                if self._closed and not any(each in among for each in self._offered):
                    return None
                self._changed.wait()

    def _next(self, among: Collection[Key], only_asked: bool) -> Key | None:
        for key in self._asked:
            if key in self._offered and key in among:
                return key
        offered = () if only_asked else (each for each in self._offered if each in among)
        return min(offered, key=self._rank.__getitem__, default=None)

    def done(self, key: Key) -> None:
        """Report that a version that was taken is loaded, or refused."""
        with self._changed:
            self._taken.discard(key)
            self._missing.pop(key).set()
            self._changed.notify_all()

    def finish(self) -> list[Key]:
        """Wait until all versions that were offered are done. Returns those that were never offered.

        Call `done` for them when they have been given up, so that requests for them stop waiting.
        """
        with self._changed:
            while self._taken or self._offered:
                self._changed.wait()
            return list(self._missing)
