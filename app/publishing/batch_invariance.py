"""Whether rows of several requests may share a call: the estimator is asked, alone and in company."""

from __future__ import annotations

import math
import time
from collections.abc import Hashable, Mapping, Sequence
from typing import Literal

import numpy as np

from tableside.contract import answers, tolerances
from tableside.contract.answers import Run
from tableside.contract.array_type import Array
from tableside.contract.schema import Cell, Golden, Input, Output
from tableside.contract.table import Table
from tableside.decoding.json_tables import from_rows

SIZES = (2, 3, 4, 5, 8, 1024, 13, 2, 3, 4, 6, 7, 16, 31, 64, 100, 256, 5, 8, 12)
"""Rows of the batches that are tried: BLAS and scikit-learn change their algorithms at such numbers."""
MIXED_ROWS = 16
MOST_ULP = 32.0
"""Past this a difference is not another order of sums any more."""
BUDGET_S = 1.0
_AT_LEAST = 6
ALONE_S = 0.5
_ALONE_AT_LEAST = 12

ProbeRow = tuple[Table, bool]
"""One row, and whether it is a golden one; else its cells come from several."""
InvarianceKind = Literal["exact", "ulp", "none"]
Invariance = tuple[InvarianceKind, float]


def measure(run: Run, schema: Input, recorded: Golden, outputs: Sequence[Output]) -> Invariance:
    """How the answers of `run` depend on the rows beside them, and by how many units in the last place.

    Golden rows, and rows that mix their cells, are asked one by one and then in batches of several sizes, at random
    places among random neighbours, as requests would meet. A batch that fails, or differs by more than MOST_ULP or in a
    label, means `none`. Slow estimators are tried with fewer rows and in fewer sizes: it stops after BUDGET_S.
    """
    chance = np.random.default_rng(0)
    groups = _groups(schema, recorded.rows, chance)
    scales = {output.name: tolerances.scale(recorded.answers[output.name]) for output in outputs}
    worst = 0.0
    give_up_at_s = time.monotonic() + BUDGET_S
    try:
        for group in groups:
            tables, alone = _answer_alone(group, run, outputs)
            if not tables:
                continue
            for at, size in enumerate(SIZES):
                if at >= _AT_LEAST and time.monotonic() > give_up_at_s:
                    break
                picks = chance.integers(0, len(tables), size)
                merged = Table.concat([tables[pick] for pick in picks])
                answered = answers.collect(outputs, run, merged.to_input())
                worst = max(worst, _largest_difference(answered, [alone[pick] for pick in picks], scales))
                if worst > MOST_ULP:
                    return "none", 0.0
    except Exception:  # noqa: BLE001 - what fails in company or alone is served alone
        return "none", 0.0
    # Two batches may lie on either side of the row asked alone, and other rows farther: a power of two beyond both.
    return ("ulp", float(2 ** math.ceil(math.log2(4 * max(worst, 1.0))))) if worst else ("exact", 0.0)


def widen(
    batch: InvarianceKind | None, batch_tolerance_ulp: float, difference: float
) -> tuple[InvarianceKind | None, float]:
    """What was measured, where fast backends lie apart from each other by up to twice `difference`, relative."""
    if not difference or batch not in ("exact", "ulp"):
        return batch, batch_tolerance_ulp
    return "ulp", max(batch_tolerance_ulp, math.ceil(2 * difference / np.finfo(np.float64).eps))


Answers = Mapping[str, Array]


def _answer_alone(group: Sequence[ProbeRow], run: Run, outputs: Sequence[Output]) -> tuple[list[Table], list[Answers]]:
    """The tables that are answered alone, with those answers; a mixture that no client would send may be refused.

    Raises what the estimator raises for a golden row.
    """
    tables: list[Table] = []
    alone: list[Answers] = []
    give_up_at_s = time.monotonic() + ALONE_S
    for table, is_golden in group:
        if len(tables) >= _ALONE_AT_LEAST and time.monotonic() > give_up_at_s:
            break
        try:
            alone.append(answers.collect(outputs, run, table.to_input()))
            tables.append(table)
        except Exception:
            if is_golden:
                raise
    return tables, alone


def _largest_difference(answered: Answers, alone: Sequence[Answers], scales: Mapping[str, float]) -> float:
    expected = {name: np.concatenate([each[name] for each in alone]) for name in answered}
    return max(tolerances.ulp_difference(answered[name], expected[name], scales[name]) for name in answered)


def _groups(schema: Input, rows: Sequence[Sequence[Cell]], chance: np.random.Generator) -> list[list[ProbeRow]]:
    """One-row tables, those together that may share a call."""
    wanted = [(list(row), True) for row in rows] + [(_mix(rows, chance), False) for _ in range(MIXED_ROWS)]
    wanted = [wanted[at] for at in chance.permutation(len(wanted))]
    found: dict[Hashable, list[ProbeRow]] = {}
    for row, is_golden in wanted:
        table = from_rows([row], schema, label="golden")
        found.setdefault(table.batch_key(), []).append((table, is_golden))
    return list(found.values())


def _mix(rows: Sequence[Sequence[Cell]], chance: np.random.Generator) -> list[Cell]:
    """A row of which each cell is some golden row's."""
    return [rows[at][column] for column, at in enumerate(chance.integers(0, len(rows), len(rows[0])))]
