"""A constant stream of POSTs from many clients. Every answer is checked."""

from __future__ import annotations

import http.client
import itertools
import json
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Traffic:
    """A stream of requests, from entering the context until leaving it.

    Half of the clients keep their connection, half open a new one for each request.
    more: further requests that are sent in turn with the first: path, body and expected answer.
    longest_silence_s: the longest time in which no client got an answer.
    """

    port: int
    path: str
    body: Any
    expected: Any
    clients: int = 8
    pause_s: float = 0.04
    more: list[tuple[str, Any, Any]] = field(default_factory=list)
    answered: int = 0
    failures: list[str] = field(default_factory=list)
    cut: list[str] = field(default_factory=list)
    """Requests on a kept connection that ended without an answer. `failures` has them too."""
    outcomes: Counter[str] = field(default_factory=Counter)
    """The number of requests by status or by exception."""
    slowest_s: float = 0.0
    longest_silence_s: float = 0.0
    _answered_at_s: float = 0.0
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Traffic:
        for number in range(self.clients):
            thread = threading.Thread(target=self._client, args=(number % 2 == 0,))
            thread.start()
            self._threads.append(thread)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def _client(self, keep: bool) -> None:
        requests = [(self.path, self.body, self.expected), *self.more]
        turns = itertools.cycle([(path, json.dumps(body), expected) for path, body, expected in requests])
        connection: http.client.HTTPConnection | None = None
        while not self._stop.is_set():
            started, is_kept = time.monotonic(), connection is not None
            path, body, expected = next(turns)
            try:
                connection = connection or http.client.HTTPConnection("127.0.0.1", self.port, timeout=40)
                connection.request("POST", path, body)
                answer = connection.getresponse()
                content = answer.read()
                if answer.status != 200 or json.loads(content) != expected:
                    self.failures.append(f"{answer.status} {content[:200]!r}")
                self._count()
                self.outcomes[str(answer.status)] += 1
            except (OSError, http.client.HTTPException) as problem:
                self.failures.append(repr(problem))
                self.outcomes[type(problem).__name__] += 1
                if is_kept and not isinstance(problem, TimeoutError):
                    self.cut.append(repr(problem))
                if connection is not None:
                    connection.close()
                connection = None
            self.slowest_s = max(self.slowest_s, time.monotonic() - started)
            if not keep and connection is not None:
                connection.close()
                connection = None
            time.sleep(self.pause_s)
        if connection is not None:
            connection.close()

    def _count(self) -> None:
        now_s = time.monotonic()
        if self.answered:
            self.longest_silence_s = max(self.longest_silence_s, now_s - self._answered_at_s)
        self.answered, self._answered_at_s = self.answered + 1, now_s

    def wait_for_more(self, count: int, timeout_s: float = 300) -> None:
        """Wait until `count` more requests have been answered."""
        goal, give_up_at = self.answered + count, time.monotonic() + timeout_s
        while self.answered < goal:
            assert time.monotonic() < give_up_at, f"only {self.answered} of {goal} answered; {self.failures[:3]}"
            time.sleep(0.02)
