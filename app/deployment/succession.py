"""Decides when an instance is started, when it counts as ready, and when earlier ones end. It does nothing itself.

An instance that serves is ended only after its successor has become ready. Time comes in as a value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

SETTLED_S = 10.0
"""If the master of an instance that has been ready for this long dies, the next one is started at once."""
FIRST_RETRY_S, LONGEST_RETRY_S = 1.0, 30.0
"""Seconds before another attempt while nothing serves. The time doubles with each failure."""
FIRST_RETRY_SERVED_S, LONGEST_RETRY_SERVED_S = 10.0, 300.0
"""The same while an earlier instance serves."""


class Seen(NamedTuple):
    """What was seen of an instance. has_master: whether its master lives. ready: its workers that are ready.

    wanted: how many workers it is to have; 0 if none has said so yet. progress: a number that grows while it loads.
    """

    has_master: bool
    ready: int = 0
    wanted: int = 0
    progress: int = 0

    @property
    def is_ready(self) -> bool:
        """Whether as many workers are ready as it is to have."""
        return self.has_master and 0 < self.wanted <= self.ready


class Do(StrEnum):
    """What is to be done: start an instance; end one gracefully; kill one; tell that the attempt is over."""

    START = "start"
    END = "end"
    KILL = "kill"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class Action(NamedTuple):
    """One thing to do. name: the instance. reason: a sentence, for FAILED."""

    do: Do
    name: str = ""
    reason: str = ""


class Phase(StrEnum):
    """IDLE: an instance is to be started at a certain time. STARTING: one was. SERVING: it has become ready."""

    IDLE = "idle"
    STARTING = "starting"
    SERVING = "serving"


@dataclass
class Succession:
    """The state between two looks. stall_s: how long a new instance may make no progress while an earlier one serves.

    grace_s: how long an instance that is ended may take.
    """

    stall_s: float
    grace_s: float
    phase: Phase = Phase.IDLE
    current: str = ""
    _since_s: float = 0.0
    """When the current instance was started, had its last progress, or became ready."""
    _progress: int = -1
    _failures: int = 0
    _failed_at_s: float = float("-inf")

    def __post_init__(self) -> None:
        self._kill_at_s: dict[str, float] = {}

    def started(self, name: str, now_s: float) -> None:
        """Take note of an instance that was started, or that is taken over from another process."""
        self.phase, self.current, self._since_s, self._progress = Phase.STARTING, name, now_s, -1

    def replace(self) -> None:
        """Ask for a new instance at once. One that is still starting is given up if an earlier one serves."""
        self.phase, self._failures, self._failed_at_s = Phase.IDLE, 0, float("-inf")

    def cancel(self, name: str) -> None:
        """Ask for no new instance: this one, which was ready, goes on."""
        self.phase, self.current, self._failures = Phase.SERVING, name, 0

    def give_up(self, reason: str, now_s: float) -> list[Action]:
        """End the instance that was started last, for a reason that is not seen from its workers' number."""
        return [*self._end([self.current], now_s), *self._fail(reason, now_s)]

    def abandoned(self, seen: Mapping[str, Seen]) -> str:
        """Return the instance that a keeper which ends gives up: one that still starts while others serve."""
        return self.current if self.phase is Phase.STARTING and self.is_served_by_others(seen) else ""

    def step(self, now_s: float, seen: Mapping[str, Seen]) -> list[Action]:
        """Return what is to be done now. seen: all instances that exist, by name."""
        actions = self._end_overdue(now_s, seen)
        if self.phase is Phase.STARTING:
            actions += self._watch_start(now_s, seen)
        elif self.phase is Phase.SERVING:
            actions += self._watch(now_s, seen)
        if self.phase is Phase.IDLE and now_s >= self._retry_at_s(seen):
            if self.current in seen and self.is_served_by_others(seen) and not seen[self.current].is_ready:
                actions += self._end([self.current], now_s)
            self.current = ""
            actions.append(Action(Do.START))
        return actions

    def is_served_by_others(self, seen: Mapping[str, Seen]) -> bool:
        """Whether a worker of another instance than the current one is ready."""
        return any(each.ready for name, each in seen.items() if name != self.current)

    def _watch_start(self, now_s: float, seen: Mapping[str, Seen]) -> list[Action]:
        mine = seen.get(self.current)
        if mine is None or not mine.has_master:
            return self._fail("its gunicorn ended before it was ready", now_s)
        if mine.is_ready:
            self.phase, self._since_s, self._failures = Phase.SERVING, now_s, 0
            others = [name for name in seen if name != self.current]
            return [Action(Do.SUCCEEDED, self.current), *self._end(others, now_s)]
        if mine.progress > self._progress or not self.is_served_by_others(seen):
            self._progress, self._since_s = max(mine.progress, self._progress), now_s
        elif now_s - self._since_s >= self.stall_s:
            given_up = self._end([self.current], now_s)
            reason = (
                f"only {mine.ready} of its {mine.wanted or 'unknown number of'} workers were ready, and it has made "
            )
            return [*given_up, *self._fail(f"{reason}no progress for {self.stall_s:g} s", now_s)]
        return []

    def _watch(self, now_s: float, seen: Mapping[str, Seen]) -> list[Action]:
        mine = seen.get(self.current)
        if mine is not None and mine.has_master:
            return self._end([name for name in seen if name != self.current], now_s)
        settled = now_s - self._since_s >= SETTLED_S
        self.phase, self._failures = Phase.IDLE, 0 if settled else self._failures + 1
        self._failed_at_s = float("-inf") if settled else now_s
        return []

    def _fail(self, reason: str, now_s: float) -> list[Action]:
        self.phase, self._failures, self._failed_at_s = Phase.IDLE, self._failures + 1, now_s
        return [Action(Do.FAILED, self.current, reason)]

    def _retry_at_s(self, seen: Mapping[str, Seen]) -> float:
        if not self._failures:
            return self._failed_at_s
        is_served = any(each.has_master and each.ready for each in seen.values())
        first_s, longest_s = (
            (FIRST_RETRY_SERVED_S, LONGEST_RETRY_SERVED_S) if is_served else (FIRST_RETRY_S, LONGEST_RETRY_S)
        )
        return self._failed_at_s + min(longest_s, first_s * 2.0 ** min(self._failures - 1, 16))

    def _end(self, names: list[str], now_s: float) -> list[Action]:
        fresh = [name for name in names if name not in self._kill_at_s]
        self._kill_at_s |= {name: now_s + self.grace_s for name in fresh}
        return [Action(Do.END, name) for name in fresh]

    def _end_overdue(self, now_s: float, seen: Mapping[str, Seen]) -> list[Action]:
        self._kill_at_s = {name: at_s for name, at_s in self._kill_at_s.items() if name in seen}
        return [Action(Do.KILL, name) for name, at_s in self._kill_at_s.items() if now_s >= at_s]

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is being started or ended: the current instance serves alone."""
        return self.phase is Phase.SERVING and not self._kill_at_s
