"""Counts by model and version what was answered between two looks at a stack."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from tableside.cli.top import samples
from tableside.cli.top.samples import Sample
from tableside.cli.top.view import Numbers
from tableside.telemetry import metric_changes
from tableside.telemetry.metric_changes import Labels


class Counted:
    """What was counted of one version."""

    def __init__(self) -> None:
        self.requests = self.client_errors = self.server_errors = self.queue_rows = 0.0
        self.buckets: dict[float, float] = {}


class Counts:
    """What was counted between two looks. before: None with the first look, of which only gauges can be known.

    by_model: versions by the name of their model. seconds: between the looks; 0 with the first.
    """

    def __init__(self, before: Sample | None, after: Sample) -> None:
        self.seconds = after.metrics_at_s - before.metrics_at_s if before else 0.0
        self.by_model: defaultdict[str, defaultdict[str, Counted]] = defaultdict(lambda: defaultdict(Counted))
        self._in_flight: dict[str, int] = {}
        for (name, rest), value in after.metrics.items():
            if name == samples.QUEUE_ROWS:
                self._of(rest).queue_rows = value
            elif name == samples.IN_FLIGHT:
                self._in_flight[dict(rest)["model"]] = int(value)
        if before is not None:
            self._add_changes(before, after)

    def _add_changes(self, before: Sample, after: Sample) -> None:
        for rest, count in metric_changes.counted(before.metrics, after.metrics, f"{samples.REQUESTS}_total"):
            each, code = self._of(rest), dict(rest)["code"]
            each.requests += count
            each.client_errors += count if code.startswith("4") else 0
            each.server_errors += count if code >= "500" else 0
        for rest, by_bound in metric_changes.buckets(before.metrics, after.metrics, samples.REQUEST_SECONDS).items():
            self._of(rest).buckets = by_bound

    def _of(self, labels: Labels) -> Counted:
        by_name = dict(labels)
        return self.by_model[by_name["model"]][by_name["version"]]

    def busy(self) -> set[str]:
        """Return the names of the models that have answered something."""
        return {name for name, versions in self.by_model.items() if any(each.requests for each in versions.values())}

    def busy_versions(self, name: str) -> set[str]:
        """Return the versions of a model that have answered something."""
        return {version for version, each in self.by_model[name].items() if each.requests}

    def of_version(self, name: str, version: str) -> Numbers:
        """Return the numbers of a version. Requests in flight are counted by model only."""
        return self._numbers([self.by_model[name][version]], None)

    def of_model(self, name: str) -> Numbers:
        """Return the numbers of a model: those of its versions, and its requests in flight."""
        return self._numbers(self.by_model[name].values(), self._in_flight.get(name, 0))

    def total(self) -> Numbers:
        """Return the numbers of all models, with the requests that named none."""
        every = [each for versions in self.by_model.values() for each in versions.values()]
        return self._numbers(every, sum(self._in_flight.values()))

    def _numbers(self, versions: Iterable[Counted], in_flight: int | None) -> Numbers:
        counted = list(versions)
        queue_rows = int(sum(each.queue_rows for each in counted))
        if self.seconds <= 0:
            return Numbers(queue_rows=queue_rows, in_flight=in_flight)
        requests = sum(each.requests for each in counted)
        buckets = metric_changes.summed([each.buckets for each in counted])
        return Numbers(
            requests=round(requests),
            requests_per_s=requests / self.seconds,
            client_errors=round(sum(each.client_errors for each in counted)),
            server_errors=round(sum(each.server_errors for each in counted)),
            p50_s=metric_changes.quantile(0.5, buckets),
            p95_s=metric_changes.quantile(0.95, buckets),
            p99_s=metric_changes.quantile(0.99, buckets),
            queue_rows=queue_rows,
            in_flight=in_flight,
        )
