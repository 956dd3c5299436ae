"""The judgement of a version that is tried, from what was counted and the rules in model.toml. It changes nothing.

`tableside list`, the admin API, the metric `tableside_release_ready` and `tableside promote --if-ready` all ask here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from enum import StrEnum

import msgspec

from tableside.repository.model_toml import ModelConfig
from tableside.repository.traffic_config import RulesConfig
from tableside.serving.comparisons import ComparisonId, Counts, Kind, Side, ids

LATENCY_FLOOR_S = 0.002
"""A 99 % quantile that is higher by less than this never fails: for a call of 50 us the ratio is noise."""
MIN_LATENCIES = 100
"""A 99 % quantile of fewer requests is not judged."""
LEAST_REQUESTS = 50
"""A canary is not rolled back before it has answered so many requests."""
TIMES_USUAL = 2.0
"""A canary that fails as often as the others, times this, does not fail too often."""
CHANCE = 0.001
"""A rate is certainly over its limit if chance alone gives so many events no more often than this. Workers look every
second, so it is small.
"""


class Outcome(StrEnum):
    """What a judgement comes to."""

    READY = "ready to promote"
    COLLECTING = "collecting"
    FAILING = "failing"


class Judgement(msgspec.Struct, frozen=True):
    """The judgement of one version. kinds: as what it is tried. text: the outcome with its reason, in one line."""

    version: int
    kinds: tuple[Kind, ...]
    outcome: Outcome
    text: str

    @property
    def is_ready(self) -> bool:
        """Whether every rule holds."""
        return self.outcome is Outcome.READY


def judge_all(name: str, config: ModelConfig, found: Mapping[ComparisonId, Counts]) -> list[Judgement]:
    """Judge the versions of a model that are tried: one, or two if canary and shadow are different versions.

    found: see `comparisons.merged`.
    """
    wanted = ids(name, config)
    versions = dict.fromkeys(each.version for each in wanted.values())
    return [
        judge(
            config.rules, {kind: found.get(each, Counts(each)) for kind, each in wanted.items() if each.version == of}
        )
        for of in versions
    ]


def judge(rules: RulesConfig, found: Mapping[Kind, Counts]) -> Judgement:
    """Judge one version by its comparisons, at least one: it fails if one fails, and is ready if all are."""
    version = next(iter(found.values())).id.version
    failures = [failure for kind, counts in found.items() for failure in _failures(rules, kind, counts)]
    if failures:
        return _judgement(version, found, Outcome.FAILING, ", ".join(dict.fromkeys(failures)))
    rows = min(counts.candidate.rows for counts in found.values())
    if rows < rules.rows:
        return _judgement(version, found, Outcome.COLLECTING, f"{rows} of {rules.rows} rows")
    return _judgement(version, found, Outcome.READY, "")


def _judgement(version: int, found: Mapping[Kind, Counts], outcome: Outcome, why: str) -> Judgement:
    return Judgement(version, tuple(found), outcome, f"{outcome.value}: {why}" if why else outcome.value)


def _failures(rules: RulesConfig, kind: Kind, counts: Counts) -> Iterator[str]:
    """The rules that do not hold. Before there are enough rows, a rate must be beyond its limit with certainty."""
    candidate, others = counts.candidate, counts.others
    is_complete = candidate.rows >= rules.rows
    if kind == "shadow" and _is_over(counts.flips, candidate.rows, rules.flips, is_complete):
        yield f"flips {_percent(counts.flips / candidate.rows)} (limit {_percent(rules.flips)})"
    if _is_over(candidate.errors, candidate.requests, rules.errors, is_complete):
        yield f"errors {_percent(candidate.errors / candidate.requests)} (limit {_percent(rules.errors)})"
    if is_complete:
        ratio = p99_ratio(candidate, others)
        if ratio is not None and ratio > rules.p99_ratio:
            yield f"p99 {ratio:.2f} times the other's (limit {rules.p99_ratio:g})"
        if rules.delta is not None:
            yield from _deltas_over(counts, rules.delta)


def _deltas_over(counts: Counts, limit: float) -> Iterator[str]:
    for output, deltas in counts.deltas.items():
        delta = deltas.quantile(0.99)
        if delta is not None and delta > limit:
            yield f"delta of {output} {delta:.3g} at 99 % (limit {limit:g})"


def _is_over(count: int, total: int, limit: float, is_complete: bool) -> bool:
    if not total:
        return False
    return count / total > limit if is_complete else is_certainly_over(count, total, limit)


def p99_ratio(candidate: Side, others: Side) -> float | None:
    """Return the candidate's 99 % quantile of latency divided by the others'.

    None if it cannot be told from few requests; 1.0 if it is higher by less than LATENCY_FLOOR_S.
    """
    if min(candidate.seconds.count, others.seconds.count) < MIN_LATENCIES:
        return None
    mine, theirs = candidate.seconds.quantile(0.99) or 0.0, others.seconds.quantile(0.99) or 0.0
    if mine - theirs < LATENCY_FLOOR_S:
        return min(1.0, mine / theirs) if theirs else 1.0
    return mine / theirs if theirs else math.inf


def fails_too_often(rules: RulesConfig, counts: Counts) -> str:
    """Return with figures that a canary fails clearly more often than it may, and than the others; or an empty text.

    It must be certain, so that a few errors at the start end no canary.
    """
    candidate, others = counts.candidate, counts.others
    if candidate.requests < LEAST_REQUESTS:
        return ""
    usual = others.errors / others.requests if others.requests else 0.0
    if not is_certainly_over(candidate.errors, candidate.requests, max(rules.errors, TIMES_USUAL * usual)):
        return ""
    return (
        f"errors {_percent(candidate.errors / candidate.requests)} of {candidate.requests} requests (limit "
        f"{_percent(rules.errors)}; the others {_percent(usual)} of {others.requests})"
    )


def is_certainly_over(count: int, total: int, limit: float) -> bool:
    """Return whether a rate of `count` in `total` is over the limit by more than chance.

    Chernoff's bound: at a true rate of `limit`, so many events have a probability of exp(-total * D) at most, where D
    is the divergence of the two rates. Wilson's interval would take one in ten for certain at a limit of 0.2 %.
    """
    if not total or count <= limit * total or limit >= 1:
        return False
    if not limit:
        return True
    rate = count / total
    divergence = rate * math.log(rate / limit)
    if rate < 1:
        divergence += (1 - rate) * math.log((1 - rate) / (1 - limit))
    return math.exp(-total * divergence) <= CHANCE


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.995 else f"{100 * share:.0f} %"
