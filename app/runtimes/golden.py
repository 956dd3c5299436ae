"""Records the answers of golden rows at publish, and replays them at every load."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from tableside.contracts import answers
from tableside.contracts.answers import Run
from tableside.contracts.array_type import Array
from tableside.contracts.schema import Cell, Contract, Golden, Output, plain
from tableside.contracts.table import Table
from tableside.decoding.json_tables import from_rows
from tableside.errors import ContractBroken

RELATIVE_TOLERANCE = 1e-9
"""The largest relative difference of a float64 number at load; BLAS adds in another order on another processor."""
FLOAT32_TOLERANCE = 1e-5
"""The same for a float32 number, whose last place is 5e8 times as large: about 80 of its last places."""
ULP_FACTOR = 8
"""Another processor may move an answer by so many times what other rows in the call moved it at publish."""


def cells_of(array: Array) -> tuple[tuple[Cell, ...], ...]:
    """An answer of shape [rows] or [rows, width] as JSON cells; not-finite numbers become None."""
    wide = array.reshape(len(array), -1)
    if wide.dtype.kind == "f" and np.isfinite(wide).all():
        return tuple(map(tuple, wide.astype(np.float64).tolist()))
    return tuple(tuple(plain(cell) for cell in row) for row in wide)


Prepare = Callable[[Table], Any]


def record(run: Run, table: Table, rows: tuple[tuple[Cell, ...], ...], outputs: Iterable[Output]) -> Golden:
    """Compute the golden answers of `rows`, which `table` holds decoded, by running the estimator's methods."""
    answered = answers.collect(outputs, run, table.to_input())
    return Golden(rows, {name: cells_of(array) for name, array in answered.items()})


def golden_table(contract: Contract) -> Table:
    """The golden rows as a table, decoded exactly as rows in a request are."""
    return from_rows([list(row) for row in contract.golden.rows], contract.input, label="golden")


def tolerance_of(contract: Contract, output: Output) -> float:
    """Return the largest relative difference that a number of this output may have on another processor.

    It depends on the answer's dtype, and on how far the estimator's answers moved at publish when BLAS computed the
    same rows in other batches (`batch_tolerance_ulp`).
    """
    is_single = output.datatype == "FP32"
    unit = float(np.finfo(np.float32 if is_single else np.float64).eps)
    measured = ULP_FACTOR * contract.batch_tolerance_ulp * unit
    return max(FLOAT32_TOLERANCE if is_single else RELATIVE_TOLERANCE, measured)


def replay(contract: Contract, run: Run, prepare: Prepare = Table.to_input) -> int:
    """Compute every golden answer again and compare it with the recorded one. Return the number of golden rows.

    The arguments and errors are those of `compare`.
    """
    compare(contract, run, prepare)
    return len(contract.golden.rows)


def compare(contract: Contract, run: Run, prepare: Prepare = Table.to_input) -> tuple[float, dict[str, Array]]:
    """Compute every golden answer again.

    Returns the largest relative difference of a number from the recorded one, and the answers by output name.
    prepare: converts the table to what `run` takes. Raises ContractBroken at the first difference beyond
    `tolerance_of`, with the row, the output and both values.
    """
    answered = answers.collect(contract.outputs, run, prepare(golden_table(contract)))
    largest = 0.0
    for output in contract.outputs:
        expected, got = contract.golden.answers[output.name], cells_of(answered[output.name])
        if _are_equal(expected, got):
            continue
        _compare(output.name, expected, got, tolerance_of(contract, output))
        cells = (pair for old, new in zip(expected, got, strict=True) for pair in zip(old, new, strict=True))
        largest = max(largest, max((_apart(was, now) for was, now in cells), default=0.0))
    return largest, answered


def _are_equal(expected: Sequence[Sequence[Cell]], got: Sequence[Sequence[Cell]]) -> bool:
    """Whether all cells are equal, and none is a boolean, which Python takes for equal to a number."""
    return expected == got and not any(isinstance(cell, bool) for row in (*expected, *got) for cell in row)


def _apart(was: Cell, now: Cell) -> float:
    """The relative difference of two numbers; 0.0 for equal cells of another type."""
    if was == now or not isinstance(was, float) or not isinstance(now, (float, int)):
        return 0.0
    return abs(was - now) / max(abs(was), abs(now), 1e-3)


def _compare(
    name: str, expected: tuple[tuple[Cell, ...], ...], got: tuple[tuple[Cell, ...], ...], tolerance: float
) -> None:
    if len(expected) != len(got):
        raise ContractBroken(f"golden rows: {name} answered {len(got)} rows for {len(expected)}")
    for row, (old, new) in enumerate(zip(expected, got, strict=True)):
        if len(old) != len(new):
            raise ContractBroken(f"golden row {row}: {name} has {len(new)} columns, at publish {len(old)}")
        for column, (was, now) in enumerate(zip(old, new, strict=True)):
            if not agree(was, now, tolerance):
                raise ContractBroken(f"golden row {row}: {name}[{column}] is {now!r}, at publish {was!r}")


def agree(was: Cell, now: Cell, tolerance: float = RELATIVE_TOLERANCE) -> bool:
    """Whether two answers of one cell agree.

    Floats agree within the relative tolerance of the larger magnitude (at least of 1e-3); labels, integers and booleans
    must be equal.
    """
    if isinstance(was, float) and isinstance(now, (float, int)):
        return abs(was - now) <= tolerance * max(abs(was), abs(now), 1e-3)
    return was == now and isinstance(was, bool) == isinstance(now, bool)


def all_agree(answers: Sequence[Sequence[Cell]], others: Sequence[Sequence[Cell]]) -> bool:
    """Whether two answers of the same rows have the same shape, and each cell agrees with the other's."""
    return len(answers) == len(others) and all(
        len(row) == len(other) and all(agree(was, now) for was, now in zip(row, other, strict=True))
        for row, other in zip(answers, others, strict=True)
    )
