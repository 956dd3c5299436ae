"""The keys by which samples are summed up for programs: `metrics.Totals`."""

from __future__ import annotations

from collections.abc import Mapping

TotalKey = tuple[str, str, str]
"""Sample name, model, version."""


def total_key(sample: str, labels: Mapping[str, str]) -> TotalKey | None:
    """Return the key of the sum that a sample belongs to; None if it has no model and version, or is a bucket.

    Two labels stay apart, as a suffix of the name: `tableside_stage_seconds_sum:predict` for the stage and
    `tableside_requests_total:200` for the code 200.
    """
    if "model" not in labels or "version" not in labels or "le" in labels:
        return None
    detail = labels.get("stage") or ("200" if labels.get("code") == "200" else "")
    return (f"{sample}:{detail}" if detail else sample, labels["model"], labels["version"])
