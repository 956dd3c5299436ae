"""Counts the input anomalies of a request (tableside.decoding.anomalies) in the metrics."""

from __future__ import annotations

from tableside.contract.schema import Input
from tableside.contract.table import Table
from tableside.telemetry.metrics import Metrics
from tableside.telemetry.request_trace import RequestTrace

MOST_COLUMNS = 100
"""The most columns of a version that have a label of their own: each label takes memory for good."""
OTHER_COLUMNS = "(other columns)"


def count(metrics: Metrics, trace: RequestTrace, table: Table) -> None:
    """Add the anomalies of a request's table to `tableside_input_anomalies_total`."""
    children = metrics.input_anomaly_children
    for (column, kind), cells in table.anomalies.items():
        key = (trace.model, trace.version, column, kind)
        child = children.get(key)
        if child is None:
            label = _label(column, table.schema)
            child = children[key] = metrics.input_anomalies.labels(trace.model, trace.version, label, kind)
        child.inc(cells)


def _label(column: str, schema: Input) -> str:
    columns = schema.columns
    if len(columns) <= MOST_COLUMNS or any(each.name == column for each in columns[:MOST_COLUMNS]):
        return column
    return OTHER_COLUMNS
