"""What a contract knows of the cells of training: the range of numbers, and the categories of open columns."""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tableside.contracts.array_type import Array
    from tableside.contracts.schema import Cell, Column


class Watched:
    """Made once for each input schema."""

    def __init__(self, columns: tuple[Column, ...]) -> None:
        self._columns = columns

    @cached_property
    def categories(self) -> dict[str, frozenset[Cell]]:
        """The trained categories of each column that has some and does not refuse others, and None, a missing cell."""
        open_columns = [each for each in self._columns if not each.closed]
        return {each.name: frozenset((*each.categories, None)) for each in open_columns if each.categories is not None}

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        """The columns in which a cell may be no trained category, or lie outside of the sample, and yet be accepted."""
        return tuple(each for each in self._columns if each.name in self.categories or _has_range(each))

    @cached_property
    def limits(self) -> tuple[list[float], list[float]] | None:
        """The smallest and largest number of each column in the sample; None if no column has a range."""
        if not any(map(_has_range, self._columns)):
            return None
        low = [-math.inf if column.minimum is None else column.minimum for column in self._columns]
        high = [math.inf if column.maximum is None else column.maximum for column in self._columns]
        return low, high

    @cached_property
    def ranges(self) -> tuple[Array, Array] | None:
        """`limits` as arrays, each of shape [columns]."""
        if self.limits is None:
            return None
        import numpy as np  # commands that read contracts only do not pay for it

        low, high = self.limits
        return np.array(low), np.array(high)


def _has_range(column: Column) -> bool:
    return column.minimum is not None and column.maximum is not None
