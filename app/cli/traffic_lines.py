"""The report of a model's traffic as lines for people."""

from __future__ import annotations

from collections.abc import Iterator

from tableside.serving.traffic_report import ComparisonReport, SideReport, TrafficReport


def lines(report: TrafficReport) -> list[str]:
    """Return what is in force, the counts, and the judgements."""
    return [*_comparisons(report), *_ends(report)]


def _comparisons(report: TrafficReport) -> Iterator[str]:
    if report.canary is not None:
        canary = report.canary
        sticky = f", the same callers by {canary.sticky}" if canary.sticky else ", by chance"
        yield f"canary {report.name}/{canary.version}: {canary.percent:g} % of the requests{sticky}{_since(canary)}"
        yield from _sides(canary, "canary", "others")
    if report.shadow is not None:
        shadow = report.shadow
        share = f"at most {100 * (shadow.cpu_share or 0):g} % of a core"
        yield f"shadow {report.name}/{shadow.version}: {shadow.percent:g} % of the requests, {share}{_since(shadow)}"
        yield from _sides(shadow, "shadow", "answered")
        yield from _differences(shadow)
    if report.canary is report.shadow is None:
        yield f"{report.name}: no canary and no shadow; version {report.default or 'latest'} answers"


def _since(report: ComparisonReport) -> str:
    return f", since {report.since}" if report.since else ""


def _sides(report: ComparisonReport, candidate: str, others: str) -> Iterator[str]:
    yield f"  {candidate:9}{_side(report.candidate)}"
    yield f"  {others:9}{_side(report.others)}"
    if report.p99_ratio is not None:
        yield f"  p99 ratio {report.p99_ratio:.2f}"


def _side(side: SideReport) -> str:
    latency = f", p50 {side.p50_ms:g} ms, p99 {side.p99_ms:g} ms" if side.p50_ms is not None else ""
    return f"{side.requests} requests, {side.rows} rows, {side.errors} errors{latency}"


def _differences(shadow: ComparisonReport) -> Iterator[str]:
    yield f"  flips    {shadow.flips} rows ({100 * (shadow.flip_share or 0):.2g} %)"
    for output, deltas in shadow.deltas.items():
        yield (
            f"  {output}: {deltas.differing} of {deltas.numbers} numbers differ; |delta| p50 {deltas.p50:.3g}, p99 "
            f"{deltas.p99:.3g}, largest {deltas.largest:.3g}"
        )
    dropped = ", ".join(f"{reason} {count}" for reason, count in sorted(shadow.dropped.items()))
    yield f"  dropped  {dropped or 'none'}; CPU {shadow.cpu_s:g} s"


def _ends(report: TrafficReport) -> Iterator[str]:
    for judgement in report.judgements:
        yield f"{report.name}/{judgement.version}: {judgement.text}"
    if report.rolled_back is not None:
        yield (
            f"{report.name}/{report.rolled_back.version}: canary rolled back at {report.rolled_back.time[:16]}: "
            f"{report.rolled_back.reason}"
        )
