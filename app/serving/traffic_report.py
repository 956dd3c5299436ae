"""What is in force of a model's traffic, what was counted, and the judgement: for commands and the admin API."""

from __future__ import annotations

from pathlib import Path

import msgspec

from tableside.repository.model_toml import ModelConfig
from tableside.repository.paths import DEFAULT
from tableside.repository.traffic_config import CanaryConfig, ShadowConfig
from tableside.serving import canary_rollback, comparisons
from tableside.serving.canary_rollback import RolledBack
from tableside.serving.comparisons import FOLDER, Counts, Kind, Side, ids
from tableside.serving.judgement import Judgement, judge_all, p99_ratio


class SideReport(msgspec.Struct, frozen=True):
    """One side in figures. error_share: of its requests. p50_ms, p99_ms: None if there is no latency."""

    requests: int
    rows: int
    errors: int
    error_share: float
    p50_ms: float | None
    p99_ms: float | None


class DeltaReport(msgspec.Struct, frozen=True):
    """The absolute differences of an output's numbers. differing: how many were beyond the tolerance."""

    numbers: int
    differing: int
    p50: float
    p99: float
    largest: float


class ComparisonReport(msgspec.Struct, frozen=True, omit_defaults=True):
    """One comparison: what model.toml says, and the counts of all workers of this host since it began."""

    version: int
    percent: float
    since: str
    candidate: SideReport
    others: SideReport
    p99_ratio: float | None
    sticky: str = ""
    cpu_share: float | None = None
    flips: int | None = None
    flip_share: float | None = None
    deltas: dict[str, DeltaReport] = {}
    dropped: dict[str, int] = {}
    cpu_s: float | None = None


class TrafficReport(msgspec.Struct, frozen=True):
    """The traffic of one model. default: what answers the other requests. rolled_back: the last canary that
    failed too often, if no other has begun since.
    """

    name: str
    default: int | None
    canary: ComparisonReport | None
    shadow: ComparisonReport | None
    judgements: list[Judgement]
    rolled_back: RolledBack | None

    def of_version(self, version: int) -> str:
        """Return in a line as what a version is tried, with the judgement; empty if it is not."""
        lines = []
        tried = [f"{kind} {report.percent:g} %" for kind, report in self._reports() if report.version == version]
        for judgement in self.judgements:
            if judgement.version == version:
                lines.append(f"{', '.join(tried)}: {judgement.text}")
        if self.rolled_back is not None and self.rolled_back.version == version:
            lines.append(f"canary rolled back at {self.rolled_back.time[:16]}: {self.rolled_back.reason}")
        return "; ".join(lines)

    def _reports(self) -> list[tuple[Kind, ComparisonReport]]:
        found: list[tuple[Kind, ComparisonReport]] = []
        if self.canary is not None:
            found.append(("canary", self.canary))
        if self.shadow is not None:
            found.append(("shadow", self.shadow))
        return found


def report(run_dir: Path, name: str, config: ModelConfig) -> TrafficReport:
    """Return what is in force by a model's file, with the counts of the host to which this run folder belongs."""
    wanted = ids(name, config)
    found = comparisons.merged(run_dir / FOLDER, wanted.values())
    rolled_back = canary_rollback.last(run_dir, name) if config.canary is None else None
    if rolled_back is not None and rolled_back.version == config.aliases.get(DEFAULT):
        rolled_back = None  # it was promoted nevertheless
    return TrafficReport(
        name,
        config.aliases.get(DEFAULT),
        _canary(config.canary, found[wanted["canary"]]) if config.canary is not None else None,
        _shadow(config.shadow, found[wanted["shadow"]]) if config.shadow is not None else None,
        judge_all(name, config, found),
        rolled_back,
    )


def judgement_of(run_dir: Path, name: str, version: int, config: ModelConfig) -> Judgement | None:
    """Return the judgement of a version; None if it is not tried."""
    found = comparisons.merged(run_dir / FOLDER, ids(name, config).values())
    return next((each for each in judge_all(name, config, found) if each.version == version), None)


def _canary(config: CanaryConfig, counts: Counts) -> ComparisonReport:
    return ComparisonReport(
        config.version, config.percent, counts.id.since, _side(counts.candidate), _side(counts.others),
        p99_ratio(counts.candidate, counts.others), sticky=config.sticky,
    )  # fmt: skip


def _shadow(config: ShadowConfig, counts: Counts) -> ComparisonReport:
    rows = counts.candidate.rows
    return ComparisonReport(
        config.version, config.percent, counts.id.since, _side(counts.candidate), _side(counts.others),
        p99_ratio(counts.candidate, counts.others), cpu_share=config.cpu_share, flips=counts.flips,
        flip_share=counts.flips / rows if rows else 0.0,
        deltas={output: _deltas(counts, output) for output in counts.deltas},
        dropped=counts.dropped, cpu_s=round(counts.cpu_s, 4),
    )  # fmt: skip


def _side(side: Side) -> SideReport:
    return SideReport(
        side.requests, side.rows, side.errors, side.errors / side.requests if side.requests else 0.0,
        _milliseconds(side.seconds.quantile(0.5)), _milliseconds(side.seconds.quantile(0.99)),
    )  # fmt: skip


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)


def _deltas(counts: Counts, output: str) -> DeltaReport:
    deltas = counts.deltas[output]
    p50, p99, largest = (deltas.quantile(share) or 0.0 for share in (0.5, 0.99, 1.0))
    return DeltaReport(deltas.count, deltas.count - deltas.zeros, p50, p99, largest)
