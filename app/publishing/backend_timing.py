"""Times one call of a backend or of the estimator, to choose the faster one at publish."""

from __future__ import annotations

import time
import warnings

from tableside.contracts.schema import Output
from tableside.contracts.table import Table
from tableside.publishing.effort import Effort
from tableside.runtimes.fast.backend import FastRuntime
from tableside.runtimes.sklearn import SklearnRuntime


def repeated(table: Table, size: int) -> Table:
    """Return `size` rows: those of the table, repeated as often as needed."""
    return Table.concat([table] * (size // table.rows + 1)).take(0, size)


def best_s(runtime: SklearnRuntime | FastRuntime, output: Output, table: Table, effort: Effort) -> float:
    """Return the seconds of the shortest call among those that fit into the effort's time, at least one."""
    best, deadline_at_s = float("inf"), time.perf_counter() + effort.timing_s
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        while time.perf_counter() < deadline_at_s or best == float("inf"):
            began_s = time.perf_counter()
            runtime.run(output.source, runtime.prepare(table))
            best = min(best, time.perf_counter() - began_s)
    return best
