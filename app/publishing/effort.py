"""How much publish compares and measures: FULL, or QUICK for many models at once and for trying things out."""

from __future__ import annotations

from typing import NamedTuple


class Effort(NamedTuple):
    """Sizes of the equivalence check and time limits of measurements.

    rows: compared rows in large calls. sample_rows: rows of the sample that are compared unchanged. small_calls,
    single_row_calls: the numbers of calls of 32 rows and of one row. timing_s: seconds for each speed that is measured.
    batch_s, single_s: seconds for batches and for single rows when batch invariance is measured. converts: whether a
    graph is made with skl2onnx, which may take a minute.
    """

    rows: int = 10_000
    sample_rows: int = 1000
    small_calls: int = 20
    single_row_calls: int = 100
    timing_s: float = 0.08
    batch_s: float = 1.0
    single_s: float = 0.5
    converts: bool = True


FULL = Effort()
QUICK = Effort(
    rows=1000, sample_rows=200, small_calls=4, single_row_calls=16, timing_s=0.01, batch_s=0.1, single_s=0.05,
    converts=False,
)  # fmt: skip
