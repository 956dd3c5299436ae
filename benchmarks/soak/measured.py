"""What the client saw beside each event: counts, quantiles and the failures."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.constant_rate import percentile

BASELINE = "nothing"
"""The name of the time before the first event of a round."""


class Window(NamedTuple):
    """The time of one event, in seconds of the clock, from one second before it until the stack has settled."""

    event: str
    round: int
    begin_s: float
    end_s: float


class Sent(NamedTuple):
    """One request of the client. due_s: seconds of the clock. outcome: `ok`, or what was wrong."""

    due_s: float
    latency_s: float
    model: str
    outcome: str


class Row(NamedTuple):
    """The figures of one event over all rounds; latencies in milliseconds. longest_s: of the event's windows."""

    event: str
    rounds: int
    requests: int
    failed: int
    p50_ms: float
    p99_ms: float
    worst_ms: float
    over_1s: int
    longest_s: float


def read(path: Path) -> list[Sent]:
    """Return the requests of a client's file, in the order in which they were due."""
    lines = path.read_text().splitlines()
    return sorted(Sent(**json.loads(line)) for line in lines)


def within(sent: Sequence[Sent], window: Window) -> list[Sent]:
    """Return the requests that were due in the window."""
    return [request for request in sent if window.begin_s <= request.due_s < window.end_s]


def rows(sent: Sequence[Sent], windows: Sequence[Window]) -> list[Row]:
    """Return a row for each event, in the order of their first windows."""
    found = []
    for event in dict.fromkeys(window.event for window in windows):
        own = [window for window in windows if window.event == event]
        requests = [request for window in own for request in within(sent, window)]
        ordered = sorted(request.latency_s * 1e3 for request in requests)
        failed = sum(request.outcome != "ok" for request in requests)
        over = sum(latency > 1000 for latency in ordered)
        longest_s = max(window.end_s - window.begin_s for window in own)
        quantiles = (percentile(ordered, share) for share in (0.5, 0.99, 1.0))
        found.append(Row(event, len(own), len(requests), failed, *quantiles, over_1s=over, longest_s=longest_s))
    return found


def longest_silence_s(sent: Sequence[Sent], window: Window) -> float:
    """Return the longest time in the window in which no request got an answer. `sent`: of all windows."""
    answered = sorted(request.due_s + request.latency_s for request in sent if request.outcome == "ok")
    inside = [at_s for at_s in answered if window.begin_s <= at_s < window.end_s]
    moments = [window.begin_s, *inside, window.end_s]
    return max(later - earlier for earlier, later in itertools.pairwise(moments))


def failures(sent: Sequence[Sent], windows: Sequence[Window]) -> Counter[tuple[str, str]]:
    """Return how often each failure was seen, by event and text."""
    return Counter(
        (window.event, request.outcome)
        for window in windows
        for request in within(sent, window)
        if request.outcome != "ok"
    )


def table(found: Sequence[Row]) -> str:
    """Return the rows as a Markdown table."""
    lines = ["| event | rounds | requests | failed | p50, ms | p99, ms | worst, ms | over 1 s | window, s |"]
    lines.append("|---|---|---|---|---|---|---|---|---|")
    for row in found:
        cells = (row.event, row.rounds, row.requests, row.failed, f"{row.p50_ms:.0f}", f"{row.p99_ms:.0f}",
                 f"{row.worst_ms:.0f}", row.over_1s, f"{row.longest_s:.0f}")  # fmt: skip
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return "\n".join(lines)
