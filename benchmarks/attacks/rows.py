"""The rows of the table: what each attack cost, and whether that is allowed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.soak.measured import Sent, Window, within

PEAK_RATIO, FREE_PEAK_BYTES = 50, 64 << 20
"""A request may take 64 MB, and 50 times its body."""
REFUSED_CPU_MS = 5.0
INFLATING_MS_PER_MB = 10.0
"""CPU that receiving, inflating and hashing a megabyte may take."""
CPU_MARGIN = 3.0
"""How many times its CPU limit a request may take here: other programs share the caches."""


@dataclass
class Limits:
    """What an attack may do. peak_bytes: growth of a worker's memory. cpu_ms: of all workers; None: not judged.

    lost: workers. neighbours_may_fail: whether the steady client may get errors; the reason stands in the table's note.
    """

    peak_bytes: int = FREE_PEAK_BYTES
    cpu_ms: float | None = None
    lost: int = 0
    neighbours_may_fail: bool = False


@dataclass
class Row:
    """One attack. cpu_ms: of one request; None where the workers that did the work have ended.

    peak_bytes: the most memory that a worker took beside what it had; kept_bytes: what it still has of it afterwards.
    status: what it got. is_right: whether that is what it must get. test: the test that sends it.
    """

    name: str
    bytes_sent: int
    before: str
    status: str
    is_right: bool
    window: Window
    limits: Limits
    test: str = ""
    cpu_ms: float | None = None
    peak_bytes: int = 0
    kept_bytes: int = 0
    lost: int = 0
    requests: int = 0
    failed: int = 0
    stall_ms: float = 0.0
    said: list[str] = field(default_factory=list)

    def observe(self, sent: Sequence[Sent]) -> None:
        """Count what the steady client saw beside it. sent: all its requests."""
        beside = within(sent, self.window)
        self.requests = len(beside)
        self.failed = sum(each.outcome != "ok" for each in beside)
        self.stall_ms = max((each.latency_s * 1e3 for each in beside), default=0.0)
        self.said = sorted({each.outcome[:100] for each in beside if each.outcome != "ok"})

    def problems(self) -> list[str]:
        """Return what is not allowed."""
        found = []
        if not self.is_right:
            found.append(f"it got {self.status}")
        if self.lost > self.limits.lost:
            found.append(f"{self.lost} workers died, and {self.limits.lost} may")
        if self.failed and not self.limits.neighbours_may_fail:
            found.append(f"{self.failed} other requests failed: {'; '.join(self.said)}")
        for size, did in ((self.peak_bytes, "grew by"), (self.kept_bytes, "kept")):
            if size > self.limits.peak_bytes:
                found.append(f"a worker {did} {mb(size)} MB, and {mb(self.limits.peak_bytes)} MB are allowed")
        most_ms = self.limits.cpu_ms
        if most_ms is not None and self.cpu_ms is not None and self.cpu_ms > most_ms * CPU_MARGIN:
            found.append(f"it took {self.cpu_ms:.0f} ms of CPU, and {most_ms:.0f} ms are allowed")
        return found


def refused(body_bytes: int, inflated_bytes: int, inspect_ms: float = 0.0) -> Limits:
    """Return the limits of a request that is refused. inspect_ms: what reading its footer or header may take."""
    cpu_ms = REFUSED_CPU_MS + inspect_ms + INFLATING_MS_PER_MB * (body_bytes + inflated_bytes) / 1e6
    return Limits(PEAK_RATIO * body_bytes + FREE_PEAK_BYTES, cpu_ms)


def mb(size: int) -> str:
    """Return a size in megabytes as text."""
    return f"{size / 1e6:.1f}" if size < 10e6 else f"{size / 1e6:.0f}"


def size_text(size: int) -> str:
    """Return a size with its unit."""
    if size < 1000:
        return f"{size} B"
    return f"{size / 1e3:.1f} kB" if size < 1e6 else f"{mb(size)} MB"


def table(rows: Sequence[Row]) -> str:
    """Return the rows as a Markdown table."""
    head = (
        "attack", "bytes sent", "before", "now", "CPU, ms", "peak growth, MB", "kept, MB", "longest wait of others, ms",
        "workers lost", "others failed", "test",
    )  # fmt: skip
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        cpu = "" if row.cpu_ms is None else f"{row.cpu_ms:.1f}"
        cells = (
            row.name, size_text(row.bytes_sent), row.before, row.status, cpu, mb(row.peak_bytes), mb(row.kept_bytes),
            f"{row.stall_ms:.0f}", row.lost, f"{row.failed} of {row.requests}", f"`{row.test}`" if row.test else "",
        )  # fmt: skip
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return "\n".join(lines)
