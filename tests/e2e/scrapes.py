"""A monitoring system that scrapes `/metrics` without a pause, and notes what must not happen."""

from __future__ import annotations

import re
import subprocess
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

from tests.e2e.conftest import Stack

COUNT = re.compile(r"^(tableside_\w+_(?:total|bucket|count|sum)(?:\{.*\})?) (\S+)$", re.MULTILINE)


@dataclass
class Scrapes:
    """A stream of scrapes, one after the other, from entering the context until leaving it.

    backwards: counters that were smaller than before, or gone, with both values.
    """

    stack: Stack
    outcomes: Counter[str] = field(default_factory=Counter)
    backwards: list[tuple[str, float, float | None]] = field(default_factory=list)
    slowest_s: float = 0.0
    text: str = ""
    _counts: dict[str, float] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Scrapes:
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(120)

    def _run(self) -> None:
        while not self._stop.is_set():
            began_s = time.monotonic()
            try:
                status, text, _ = self.stack.call("/metrics", admin=True)
            except OSError as problem:
                self.outcomes[repr(problem)] += 1
                continue
            self.slowest_s = max(self.slowest_s, time.monotonic() - began_s)
            self.outcomes[str(status)] += 1
            if status == 200:
                self._compare({name: float(value) for name, value in COUNT.findall(text)})
                self.text = text

    def _compare(self, counts: dict[str, float]) -> None:
        self.backwards += [
            (name, before, counts.get(name)) for name, before in self._counts.items() if counts.get(name, -1.0) < before
        ]
        self._counts = counts


def complaints(text: str) -> str:
    """What promtool finds wrong with the names, texts and format of a scrape. Empty if nothing."""
    checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=60)
    said = checked.stdout + checked.stderr
    return said or ("" if checked.returncode == 0 else f"status {checked.returncode}")
