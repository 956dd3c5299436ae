"""What was counted of a version that is tried: beside another one as canary, or behind it as shadow.

Each worker counts in memory and writes a file of its slot at most once a second; readers add up the files of all slots.
A worker that takes a slot later goes on with the counts of its file, so that nothing is lost when workers are replaced.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Literal

import msgspec

from tableside.repository.model_toml import ModelConfig
from tableside.serving.log_histogram import LogHistogram

FOLDER = "comparisons"
"""In the run folder: a file for each worker slot."""
Kind = Literal["canary", "shadow"]


class ComparisonId(msgspec.Struct, frozen=True):
    """Which comparison something was counted for. since: when it began, as text; empty if model.toml does not say."""

    model: str
    version: int
    kind: Kind
    since: str = ""


class Side(msgspec.Struct, omit_defaults=True):
    """What one side did. errors: requests that failed on the server's side (5xx), or replays that raised.

    seconds: the requests' latency for a canary, the calls' for a shadow.
    """

    requests: int = 0
    rows: int = 0
    errors: int = 0
    seconds: LogHistogram = msgspec.field(default_factory=LogHistogram)

    def merge(self, other: Side) -> None:
        """Add what another one has counted."""
        self.requests += other.requests
        self.rows += other.rows
        self.errors += other.errors
        self.seconds.merge(other.seconds)


class Counts(msgspec.Struct, omit_defaults=True):
    """The counts of one comparison. candidate: the version that is tried. others: what answered beside or before it.

    flips: rows that got another label, or a number in place of none. deltas: by output, the absolute differences of
    numbers; those within the contract's tolerance count as zero. dropped: requests that were chosen and not replayed,
    by reason. cpu_s: seconds of CPU time of all replays.
    """

    id: ComparisonId
    candidate: Side = msgspec.field(default_factory=Side)
    others: Side = msgspec.field(default_factory=Side)
    flips: int = 0
    deltas: dict[str, LogHistogram] = {}
    dropped: dict[str, int] = {}
    cpu_s: float = 0.0

    def of_output(self, output: str) -> LogHistogram:
        """Return the differences of an output's numbers."""
        return self.deltas.setdefault(output, LogHistogram())

    def merge(self, other: Counts) -> None:
        """Add what another one has counted."""
        self.candidate.merge(other.candidate)
        self.others.merge(other.others)
        self.flips += other.flips
        self.cpu_s += other.cpu_s
        for output, deltas in other.deltas.items():
            self.of_output(output).merge(deltas)
        for reason, count in other.dropped.items():
            self.dropped[reason] = self.dropped.get(reason, 0) + count


def ids(name: str, config: ModelConfig) -> dict[Kind, ComparisonId]:
    """Return the comparisons that a model's file asks for."""
    found: dict[Kind, ComparisonId] = {}
    if config.canary is not None:
        found["canary"] = _id(name, "canary", config.canary.version, config.canary.since)
    if config.shadow is not None:
        found["shadow"] = _id(name, "shadow", config.shadow.version, config.shadow.since)
    return found


def _id(name: str, kind: Kind, version: int, since: object) -> ComparisonId:
    return ComparisonId(name, version, kind, "" if since is None else str(since))


def write(folder: Path, slot: int, counts: Iterable[Counts]) -> None:
    """Replace the file of a slot. On a full disk it stays as it is: what is counted is in the worker's memory."""
    file = folder / f"{slot}.json"
    temporary = file.with_suffix(f".{os.getpid()}.tmp")
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(msgspec.json.encode(list(counts)))
            temporary.replace(file)
        finally:
            temporary.unlink(missing_ok=True)


def read(folder: Path, slot: int | str) -> list[Counts]:
    """Return what the file of a slot says. A file that is missing, or has another form, says nothing."""
    try:
        return msgspec.json.decode((folder / f"{slot}.json").read_bytes(), type=list[Counts])
    except (OSError, msgspec.MsgspecError):
        return []


def merged(folder: Path, wanted: Iterable[ComparisonId]) -> Mapping[ComparisonId, Counts]:
    """Return the sums over all workers of the host, also of those that have ended, for each wanted comparison."""
    found = {each: Counts(each) for each in wanted}
    for file in folder.glob("*.json") if found else ():
        for counts in read(folder, file.stem):
            if counts.id in found:
                found[counts.id].merge(counts)
    return found
