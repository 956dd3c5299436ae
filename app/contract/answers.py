"""An estimator's answers by output name."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from tableside.contract.array_type import Array
from tableside.contract.schema import Output

MethodAnswer = Array | list[Array]
Run = Callable[[str, Any], MethodAnswer]
"""`run(method, input)`: an array of shape [rows] or [rows, width], or a list of those, one a target."""


def collect(outputs: Iterable[Output], run: Run, data: Any) -> dict[str, Array]:
    """Each output's array; a method that several outputs share is asked once. Raises what `run` raises."""
    answered: dict[str, MethodAnswer] = {}
    found: dict[str, Array] = {}
    for output in outputs:
        source = output.source
        answer = answered.get(source)
        if answer is None:
            answer = answered[source] = run(source, data)
        part = answer if output.part is None else answer[output.part]
        if isinstance(part, list):
            raise TypeError(f"{output.name}: a list of arrays where one array was published")
        found[output.name] = part
    return found
