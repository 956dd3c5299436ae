"""The models that hostile bodies are sent to: one for each way in which a table becomes the estimator's input."""

from __future__ import annotations

from typing import Any

import numpy as np

from tableside.contracts.schema import Column, Input
from tableside.contracts.table import Table

HASH_MODULUS = 2**61 - 1
"""Python hashes each multiple of it to 0."""


class ZeroRuntime:
    """A runtime that answers a zero for each row, and keeps nothing of what it is given."""

    platform = "fake_zero"

    def prepare(self, table: Table) -> Any:
        return table.to_input()

    def run(self, method: str, data: Any) -> Any:
        return np.zeros((len(data), 2)) if method == "transform" else np.zeros(len(data))


MODELS: dict[str, Input] = {
    "numbers": Input("matrix", tuple(Column(f"n{at}", "FP64", "float64") for at in range(4))),
    "mixed": Input(
        "frame",
        (
            Column("real", "FP64", "float64", nullable=True),
            Column("count", "INT64", "int64", nullable=True),
            Column("word", "BYTES", "object", nullable=True),
            Column("shade", "BYTES", "object", categories=("red", "pale"), closed=True, nullable=True),
            Column("level", "INT64", "int64", categories=(1, 2, 3), closed=True, nullable=True),
            Column("flag", "BOOL", "bool"),
            Column("day", "BYTES", "datetime64[ns]", nullable=True),
        ),
    ),
    "level": Input("frame", (Column("level", "INT64", "int64", categories=(1, 2, 3), closed=True),)),
    "wide": Input("matrix", tuple(Column(f"w{at}", "FP32", "float32", nullable=True) for at in range(300))),
    "words": Input("frame", tuple(Column(f"t{at}", "BYTES", "object", nullable=True) for at in range(7))),
    "texts": Input("texts", (Column("text", "BYTES", "str"),)),
}
