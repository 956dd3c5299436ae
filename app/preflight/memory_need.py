"""Whether a version fits into memory, by what its load took in the preflight process: measured, not estimated.

Memory that a process has for itself counts once for each worker, because each loads the version; mapped files count
once for the host. The measurement is that of one load: what requests take is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from tableside import machine
from tableside.errors import ContractBroken, FailureKind

FREE_SHARE = 0.05
"""The share of the memory that stays free for requests, and for what else runs."""
BUDGET = "repository.memory_budget_mb"
Key = tuple[str, int]
"""A model's name, and a version's number."""


class Held(msgspec.Struct, frozen=True):
    """Bytes of memory of a process: of its own, and of files and memory that it shares with others."""

    own: int = 0
    shared: int = 0

    def __add__(self, other: Held) -> Held:
        return Held(self.own + other.own, self.shared + other.shared)

    def since(self, before: Held) -> Held:
        """Return what has been added since then; nothing counts less than 0."""
        return Held(max(0, self.own - before.own), max(0, self.shared - before.shared))

    def for_host(self, workers: int) -> int:
        """Return what the host needs if each of so many workers holds this."""
        return workers * self.own + self.shared


def held_now() -> Held:
    """Return the memory of this process; nothing where the kernel does not tell."""
    fields = {}
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name in ("RssAnon", "RssFile", "RssShmem"):
                fields[name] = int(value.split()[0]) * 1024
    except (OSError, ValueError, IndexError):
        return Held()
    return Held(fields.get("RssAnon", 0), fields.get("RssFile", 0) + fields.get("RssShmem", 0))


class Budget:
    """Decides in a preflight process whether versions fit."""

    def __init__(self, workers: int, budget_mb: int = 0, served: Mapping[Key, Held] | None = None) -> None:
        """workers: those of the host; 0 checks nothing. budget_mb: what all versions may take, in millions of bytes; 0
        for what the machine has free. served: what each version takes that was measured before.
        """
        self._workers, self._budget_bytes = workers, budget_mb * 1_000_000
        self._free, self._free_by = machine.free_bytes()
        self._served = dict(served or {})
        self._promised: dict[Key, Held] = {}

    def admit(self, key: Key, need: Held) -> None:
        """Count a version that was loaded here. Raises ContractBroken with the figures if it does not fit.

        What this process has admitted before counts too: workers have not loaded it yet.
        """
        if not self._workers:
            return
        needed = need.for_host(self._workers)
        usable, promised = int(self._free * (1 - FREE_SHARE)), self._sum(self._promised, key)
        if self._free and promised + needed > usable:
            raise self._refused(
                need, f"{self._free_by} has {_mb(usable)} for it", promised, "promised to versions before"
            )
        served = self._sum({**self._served, **self._promised}, key)
        if self._budget_bytes and served + needed > self._budget_bytes:
            raise self._refused(need, f"{BUDGET} allows {_mb(self._budget_bytes)}", served, "taken by other versions")
        self._promised[key] = need

    def _sum(self, versions: Mapping[Key, Held], key: Key) -> int:
        return sum(held.for_host(self._workers) for other, held in versions.items() if other != key)

    def _refused(self, need: Held, limit: str, others: int, whose: str) -> ContractBroken:
        shared = f", and {_mb(need.shared)} are shared" if need.shared >= 1_000_000 else ""
        more = f", of which {_mb(others)} are {whose}" if others else ""
        return ContractBroken(
            f"it does not fit into memory: its load took {_mb(need.own)}, which each of {self._workers} workers "
            f"takes{shared}: {_mb(need.for_host(self._workers))} in all; {limit}{more}. Unload or retire another "
            "version, set server.workers lower, or raise the limit; then `tableside reload`",
            FailureKind.MEMORY,
        )


def _mb(size: int) -> str:
    return f"{size / 1e6:.0f} MB"
