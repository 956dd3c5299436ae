"""Each metric has one name, which follows Prometheus's rules: https://prometheus.io/docs/practices/naming/

metrics.md lists every metric; test_docs.py holds it equal to the code. So the names are read from there.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from tableside.deployment import stack_metrics
from tableside.telemetry import metric_files, metrics
from tableside.telemetry.metric_entries import kind_of
from tableside.telemetry.metrics import Metrics

PROJECT = Path(__file__).parents[2]
LISTED: dict[str, tuple[str, tuple[str, ...]]] = {
    name: (kind, tuple(filter(None, labels.split(", "))))
    for name, kind, labels in re.findall(
        r"^\| `(tableside_\w+)` \| (\w+) \| ([\w, ]*?) ?\| ",
        (PROJECT / "docs/reference/metrics.md").read_text(),
        re.MULTILINE,
    )
}
"""Type and labels of each metric in metrics.md."""
UNITS = ("seconds", "bytes", "ratio")
"""Base units: never milliseconds, megabytes or percent."""
COUNTED = ("rows", "inodes", "files", "processes", "processes_up", "requests_in_flight")
"""What a gauge or a histogram may count instead."""
STATES = {
    "tableside_model_state": "workers", "tableside_model_problem": "workers", "tableside_workers_wanted": "workers",
    "tableside_workers_ready": "workers", "tableside_generation": "a number", "tableside_build_info": "always 1",
    "tableside_release_ready": "0 or 1", "tableside_release_failing": "0 or 1",
    "tableside_open_files_limit": "open files", "tableside_drained": "0 or 1",
}  # fmt: skip
"""Gauges whose name says a state and not a unit, with what their value is."""
OLD_UNITS = re.compile(r"_(ms|us|ns|millis\w*|micros\w*|minutes|hours|kb|mb|gb|percent|pct|share)(_|$)")


def exposed() -> dict[str, str]:
    """The help text of each metric, by the name that a scrape shows."""
    registry = CollectorRegistry()
    Metrics(registry)
    of_stack = {f"{name}_total": text for name, (text, _) in stack_metrics.COUNTERS.items()}
    of_stack |= {name: text for name, (text, _) in stack_metrics.GAUGES.items()}
    return of_stack | {
        each.name + "_total" * (each.type == "counter"): each.documentation for each in registry.collect()
    }


def test_the_list_is_read() -> None:
    """metrics.md has every metric, as test_docs.py says too."""
    assert exposed().keys() == LISTED.keys()


@pytest.mark.parametrize("name", LISTED)
def test_a_name_says_what_and_in_which_unit(name: str) -> None:
    """Small letters; counters and no others end in _total; a base unit, or what is counted, stands at the end."""
    kind, labels = LISTED[name]
    assert re.fullmatch(r"tableside(_[a-z]+)+", name)
    assert kind in ("counter", "gauge", "histogram")
    assert (kind == "counter") == name.endswith("_total")
    assert not name.endswith(("_count", "_sum", "_bucket", "_created")), "a scrape shows such names for histograms"
    assert not OLD_UNITS.search(name)
    if kind != "counter":
        assert name.endswith((*UNITS, *COUNTED)) != (name in STATES)
    for label in labels:
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", label)
        assert label not in ("le", "quantile", "job", "instance"), "Prometheus sets these itself"


def test_one_thing_has_one_name() -> None:
    """No two metrics differ only in the unit or the ending."""
    ending = re.compile(r"(_total|_seconds|_bytes|_ratio|_count)+$")
    things = [ending.sub("", name) for name in LISTED]
    assert len(things) == len(set(things))
    assert LISTED.keys() >= STATES.keys(), "one that is not listed any more"


@pytest.mark.parametrize(("name", "text"), exposed().items())
def test_a_help_text_is_a_sentence(name: str, text: str) -> None:
    """It begins with a capital letter and ends with a full stop, and is not the name once more."""
    assert re.fullmatch(r"[A-Z][^\n]{15,}\.", text), name


def expressions() -> Iterator[str]:
    """Every query of the rules and the dashboard."""
    for file in sorted((PROJECT / "deploy").glob("prometheus/rules/*.yml")):
        for group in yaml.safe_load(file.read_text())["groups"]:
            yield from (rule["expr"] for rule in group["rules"])
    dashboard = json.loads((PROJECT / "deploy/grafana/dashboard.json").read_text())
    for panel in dashboard["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))
    for variable in dashboard["templating"]["list"]:
        yield json.dumps(variable.get("query", ""))


def test_deployed_queries_name_existing_metrics() -> None:
    """Rules, alerts and panels use names of metrics.md; an endless quiet alert would be the result otherwise."""
    used = {name for query in expressions() for name in re.findall(r"(?<![:\w])tableside_\w+(?![:\w])", query)}
    samples = LISTED.keys() | {
        f"{name}_{part}"
        for name, (kind, _) in LISTED.items()
        if kind == "histogram"
        for part in ("bucket", "sum", "count")
    }
    assert len(used) > 10
    assert used <= samples


def test_every_metric_is_of_a_kind_that_is_read_and_has_reserved_space(tmp_path: Path) -> None:
    """The modes `all` and `liveall` are not read by `metric_reader`; `MetricFiles` reserves what TYPES names."""
    pid = os.fork()
    if not pid:
        status = 1
        try:
            assert metrics.use_worker_slot(7, tmp_path)
            for metric in vars(metrics.make()).values():
                if isinstance(metric, (Counter, Gauge, Histogram)):
                    name = metric.describe()[0].name
                    labels = (LISTED.get(name) or LISTED[f"{name}_total"])[1]
                    child = metric.labels(**dict.fromkeys(labels, "x")) if labels else metric
                    child.observe(0) if isinstance(metric, Histogram) else child.inc(0)
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    files = {file.name for file in tmp_path.iterdir()}
    assert files == {f"{kind}_7.db" for kind in metric_files.TYPES}
    assert all(kind_of(name) for name in files)
