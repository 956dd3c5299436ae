"""Records the answers of golden rows at publish, and replays them at every load."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from tableside.contract import answers
from tableside.contract.answers import Run
from tableside.contract.array_type import Array
from tableside.contract.schema import Cell, Contract, Golden, Output, plain
from tableside.contract.table import Table
from tableside.decoding.json_tables import from_rows
from tableside.errors import ContractBroken

RELATIVE_TOLERANCE = 1e-9
"""The largest relative difference of a number at load; BLAS adds in another order on another processor."""


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


def replay(contract: Contract, run: Run, prepare: Prepare = Table.to_input) -> int:
    """Compute every golden answer again and compare it with the recorded one.

    prepare: converts the table to what `run` takes. Returns the number of golden rows. Raises ContractBroken at the
    first difference, with the row, the output and both values.
    """
    table = golden_table(contract)
    answered = answers.collect(contract.outputs, run, prepare(table))
    for name, array in answered.items():
        _compare(name, contract.golden.answers[name], cells_of(array))
    return table.rows


def _compare(name: str, expected: tuple[tuple[Cell, ...], ...], got: tuple[tuple[Cell, ...], ...]) -> None:
    if len(expected) != len(got):
        raise ContractBroken(f"golden rows: {name} answered {len(got)} rows for {len(expected)}")
    for row, (old, new) in enumerate(zip(expected, got, strict=True)):
        if len(old) != len(new):
            raise ContractBroken(f"golden row {row}: {name} has {len(new)} columns, at publish {len(old)}")
        for column, (was, now) in enumerate(zip(old, new, strict=True)):
            if not agree(was, now):
                raise ContractBroken(f"golden row {row}: {name}[{column}] is {now!r}, at publish {was!r}")


def agree(was: Cell, now: Cell) -> bool:
    """Whether two answers of one cell agree.

    Floats agree within RELATIVE_TOLERANCE of the larger magnitude (at least of 1e-3); labels, integers and booleans
    must be equal.
    """
    if isinstance(was, float) and isinstance(now, (float, int)):
        return abs(was - now) <= RELATIVE_TOLERANCE * max(abs(was), abs(now), 1e-3)
    return was == now and isinstance(was, bool) == isinstance(now, bool)


def all_agree(answers: Sequence[Sequence[Cell]], others: Sequence[Sequence[Cell]]) -> bool:
    """Whether two answers of the same rows have the same shape, and each cell agrees with the other's."""
    return len(answers) == len(others) and all(
        len(row) == len(other) and all(agree(was, now) for was, now in zip(row, other, strict=True))
        for row, other in zip(answers, others, strict=True)
    )
