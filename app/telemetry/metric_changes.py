"""What changed between two answers of `/metrics`: increases of counters, and quantiles of histograms.

Counters begin again at 0 when a stack is started anew. A counter that has become smaller is taken to have begun again,
as Prometheus's increase() does (https://prometheus.io/docs/prometheus/latest/querying/functions/#increase).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import pairwise

from prometheus_client.parser import text_string_to_metric_families

Labels = tuple[tuple[str, str], ...]
"""Names and values of labels, ordered by name."""
Samples = Mapping[tuple[str, Labels], float]
"""The samples of one answer of `/metrics`, by name and labels."""
Bucket = tuple[float, float]
"""The upper bound of a bucket of a histogram, and how many observations are not above it."""


def parse(text: str, families: Collection[str]) -> Samples:
    """Return the samples of these metric families. text: in Prometheus's text format.

    families: names without `_total`. The rest of the text is not looked at, because parsing all of it takes 0.2 s where
    there are many models. Raises ValueError for text of another format.
    """
    wanted = "\n".join(line for line in text.split("\n") if _family(line) in families) + "\n"
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(wanted)
        for sample in family.samples
    }


def _family(line: str) -> str:
    if line.startswith("# "):
        line = line.split(" ", 3)[2] if line.count(" ") > 2 else ""
    name = line.partition("{")[0].partition(" ")[0]
    for suffix in ("_bucket", "_count", "_sum", "_total"):
        name = name.removesuffix(suffix)
    return name


def increase(before: float, after: float) -> float:
    """Return by how much a counter has grown. One that is smaller than before has begun again at 0."""
    return after - before if after >= before else after


def counted(before: Samples, after: Samples, name: str) -> Iterator[tuple[Labels, float]]:
    """Yield the labels and the increase of each sample of a counter. name: with `_total`."""
    for (found, labels), value in after.items():
        if found == name:
            yield labels, increase(before.get((found, labels), 0.0), value)


def buckets(before: Samples, after: Samples, name: str) -> dict[Labels, dict[float, float]]:
    """Return the increase of each bucket of a histogram, by its upper bound, for each set of the other labels.

    If the count of a set of labels is smaller than before, all of its buckets have begun again.
    """
    found: dict[Labels, dict[float, float]] = {}
    for (sample, labels), value in after.items():
        if sample != f"{name}_bucket":
            continue
        rest = tuple(each for each in labels if each[0] != "le")
        count = (f"{name}_count", rest)
        is_new = after.get(count, 0.0) < before.get(count, 0.0)
        bound = float(dict(labels)["le"])
        start = 0.0 if is_new else before.get((sample, labels), 0.0)
        found.setdefault(rest, {})[bound] = max(0.0, value - start)
    return found


def summed(histograms: Sequence[Mapping[float, float]]) -> list[Bucket]:
    """Return the buckets of several histograms as those of one, ordered by their upper bound."""
    total: dict[float, float] = {}
    for each in histograms:
        for bound, count in each.items():
            total[bound] = total.get(bound, 0.0) + count
    return sorted(total.items())


def quantile(share: float, ordered: Sequence[Bucket]) -> float | None:
    """Return the quantile of a histogram: the value that this share of the observations does not exceed.

    It is what Prometheus's histogram_quantile() returns: observations are taken to lie evenly in their bucket, the
    first bucket begins at 0, and a quantile in the last bucket, which has no upper bound, is the bound below it
    (https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile).

    share: above 0, up to 1. Returns None without observations, and without a bucket that has no upper bound.
    """
    if len(ordered) < 2 or ordered[-1][0] != math.inf or not ordered[-1][1]:
        return None
    rank = share * ordered[-1][1]
    for (lower, below), (upper, count) in pairwise([(0.0, 0.0), *ordered]):
        if upper == math.inf:
            return lower
        if count >= rank and count > below:
            return lower + (upper - lower) * ((rank - below) / (count - below))
    return None
