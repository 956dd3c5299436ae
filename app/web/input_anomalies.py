"""The labels under which the input anomalies of a request (tableside.decoding.anomalies) are counted."""

from __future__ import annotations

from collections import Counter

from tableside.contracts.table import Anomalies, Table

MOST_COLUMNS = 100
"""The most columns of a version that have a label of their own: each label takes memory for good."""
OTHER_COLUMNS = "(other columns)"


def by_label(table: Table) -> Anomalies:
    """Return the anomalies of a table, those of its columns after the first 100 as those of `(other columns)`."""
    columns = table.schema.columns
    if len(columns) <= MOST_COLUMNS:
        return table.anomalies
    labelled = {column.name for column in columns[:MOST_COLUMNS]}
    counts: Counter[tuple[str, str]] = Counter()
    for (column, kind), cells in table.anomalies.items():
        counts[column if column in labelled else OTHER_COLUMNS, kind] += cells
    return counts
