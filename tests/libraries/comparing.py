"""Compares the answers of a server with those of the estimator in memory, to the bit."""

from __future__ import annotations

import struct
import warnings
from typing import Any

import numpy as np

from tableside.contracts.schema import Contract
from tests.libraries.zoo import Case


def in_memory(case: Case, rows: Any, contract: Contract) -> dict[str, Any]:
    """The answers of the estimator in memory, by output."""
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for output in contract.outputs:
            answer = getattr(case.estimator, output.source)(rows)
            answer = answer if output.part is None else answer[output.part]
            found[output.name] = np.asarray(answer.toarray() if hasattr(answer, "toarray") else answer)
    return found


def bits(answer: Any, like: Any) -> list[Any]:
    """JSON values in a form in which only equal bits are equal: floats in the width of `like`."""
    flat = np.ravel(np.array(answer, dtype=object)).tolist()
    if like.dtype.kind != "f":
        return flat
    pack = "f" if like.dtype == np.float32 else "d"
    return [None if cell is None else struct.pack(pack, cell) for cell in flat]


def expected_bits(answer: Any) -> list[Any]:
    cells = np.ravel(answer).tolist()
    if answer.dtype.kind != "f":
        return cells
    pack = "f" if answer.dtype == np.float32 else "d"
    return [struct.pack(pack, cell) if cell == cell and abs(cell) != np.inf else None for cell in cells]


def answers_of(reply: Any) -> Any:
    content = reply.get_json()
    if isinstance(content, list):
        return content
    answer = content.get("predictions", content.get("outputs"))
    return answer[0]["data"] if isinstance(answer[0], dict) and "datatype" in answer[0] else answer
