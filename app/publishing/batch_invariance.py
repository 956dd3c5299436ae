"""Measures how far an estimator's answer for a row depends on the other rows of the same call.

The result, `exact`, `ulp` or `none`, decides whether rows of several requests may be batched.
"""

from __future__ import annotations

import math
import time
from collections.abc import Hashable, Mapping, Sequence
from typing import Literal

import numpy as np

from tableside.contracts import answers, tolerances
from tableside.contracts.answers import Run
from tableside.contracts.array_type import Array
from tableside.contracts.schema import Cell, Golden, Input, Output
from tableside.contracts.table import Table
from tableside.decoding.json_tables import from_rows
from tableside.publishing.effort import FULL, Effort

SIZES = (2, 3, 4, 5, 8, 1024, 13, 2, 3, 4, 6, 7, 16, 31, 64, 100, 256, 5, 8, 12)
"""Rows of the batches that are compared: around such sizes BLAS and scikit-learn change their algorithms."""
MIXED_ROWS = 16
MAX_ULP = 32.0
"""Another order of summation explains differences up to about this size. A larger one means `none`."""
_MIN_SIZES = 6
"""Batch sizes that are compared whatever time they take."""
_MIN_SINGLE_ROWS = 12
"""Single rows that are answered whatever time they take."""

ProbeRow = tuple[Table, bool]
"""A table of one row, and whether it is a golden row. If not, each of its cells comes from a random golden row."""
InvarianceKind = Literal["exact", "ulp", "none"]
Invariance = tuple[InvarianceKind, float]
Answers = Mapping[str, Array]


def measure(
    run: Run, schema: Input, recorded: Golden, outputs: Sequence[Output], effort: Effort = FULL
) -> Invariance:  # fmt: skip
    """Return how far answers depend on the other rows of a call, and the tolerance in units in the last place.

    Golden rows, and rows mixed from their cells, are answered one by one and then in batches of the sizes in SIZES, at
    random positions among random other rows. The result is `none` when a batch raises, when a label differs or when a
    number differs by more than MAX_ULP. The effort's time limits hold for slow estimators.
    """
    rng = np.random.default_rng(0)
    groups = _groups(schema, recorded.rows, rng)
    scales = {output.name: tolerances.scale(recorded.answers[output.name]) for output in outputs}
    largest = 0.0
    deadline_at_s = time.monotonic() + effort.batch_s
    try:
        for group in groups:
            tables, single_answers = _answer_singly(group, run, outputs, effort.single_s)
            if not tables:
                continue
            for index, size in enumerate(SIZES):
                if index >= _MIN_SIZES and time.monotonic() > deadline_at_s:
                    break
                picks = rng.integers(0, len(tables), size)
                merged = Table.concat([tables[pick] for pick in picks])
                answered = answers.collect(outputs, run, merged.to_input())
                largest = max(largest, _largest_difference(answered, [single_answers[pick] for pick in picks], scales))
                if largest > MAX_ULP:
                    return "none", 0.0
    except Exception:  # noqa: BLE001 - an estimator that raises here is never batched, whatever it raised
        return "none", 0.0
    if not largest:
        return "exact", 0.0
    # Two batches may differ in opposite directions, and rows not measured here by more: at least four times the largest
    # difference, rounded up to a power of two.
    return "ulp", float(2 ** math.ceil(math.log2(4 * max(largest, 1.0))))


def widen(
    batch: InvarianceKind | None, batch_tolerance_ulp: float, difference: float
) -> tuple[InvarianceKind | None, float]:
    """Return the measured invariance, widened for fast backends that differ from the estimator.

    difference: the largest relative difference of a fast backend in use. Two rows of one batch may be answered by
    backends that differ from each other by twice that, so the tolerance must cover it.
    """
    if not difference or batch not in ("exact", "ulp"):
        return batch, batch_tolerance_ulp
    return "ulp", max(batch_tolerance_ulp, math.ceil(2 * difference / np.finfo(np.float64).eps))


def _answer_singly(
    group: Sequence[ProbeRow], run: Run, outputs: Sequence[Output], single_s: float
) -> tuple[list[Table], list[Answers]]:
    """Return the rows that are answered on their own, with those answers.

    The estimator may reject a mixed row, which no client would send; such a row is left out. For a golden row the
    estimator's exception is raised.
    """
    tables: list[Table] = []
    single_answers: list[Answers] = []
    deadline_at_s = time.monotonic() + single_s
    for table, is_golden in group:
        if len(tables) >= _MIN_SINGLE_ROWS and time.monotonic() > deadline_at_s:
            break
        try:
            single_answers.append(answers.collect(outputs, run, table.to_input()))
            tables.append(table)
        except Exception:
            if is_golden:
                raise
    return tables, single_answers


def _largest_difference(answered: Answers, single_answers: Sequence[Answers], scales: Mapping[str, float]) -> float:
    expected = {name: np.concatenate([single[name] for single in single_answers]) for name in answered}
    return max(tolerances.ulp_difference(answered[name], expected[name], scales[name]) for name in answered)


def _groups(schema: Input, rows: Sequence[Sequence[Cell]], rng: np.random.Generator) -> list[list[ProbeRow]]:
    """Return golden and mixed rows in random order, grouped by batch key: only rows of one group may share a call."""
    probe_rows = [(list(row), True) for row in rows] + [(_mixed_row(rows, rng), False) for _ in range(MIXED_ROWS)]
    groups: dict[Hashable, list[ProbeRow]] = {}
    for index in rng.permutation(len(probe_rows)):
        row, is_golden = probe_rows[index]
        table = from_rows([row], schema, label="golden")
        groups.setdefault(table.batch_key(), []).append((table, is_golden))
    return list(groups.values())


def _mixed_row(rows: Sequence[Sequence[Cell]], rng: np.random.Generator) -> list[Cell]:
    return [rows[index][column] for column, index in enumerate(rng.integers(0, len(rows), len(rows[0])))]
