"""Running an estimator's methods to get its outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from tableside.contracts.array_type import Array
from tableside.contracts.schema import Output

MethodAnswer = Array | list[Array]
"""What a method returns: an array of shape [rows] or [rows, width], or a list of those, one for each target."""
Run = Callable[[str, Any], MethodAnswer]
"""`run(method, data)` calls a method of the estimator. Each runtime has its own type of `data`."""


def collect(outputs: Iterable[Output], run: Run, data: Any) -> dict[str, Array]:
    """Return the array of each output by its name. A method that several outputs share is run once.

    Raises what `run` raises, and TypeError if a method returns a list where the contract has one array.
    """
    by_method: dict[str, MethodAnswer] = {}
    arrays: dict[str, Array] = {}
    for output in outputs:
        method = output.source
        if method not in by_method:
            by_method[method] = run(method, data)
        answer = by_method[method]
        part = answer if output.part is None else answer[output.part]
        if isinstance(part, list):
            raise TypeError(f"output {output.name!r}: {method} returned a list of arrays, the contract has one array")
        arrays[output.name] = part
    return arrays
