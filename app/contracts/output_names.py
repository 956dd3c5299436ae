"""Names of outputs: those of methods of estimators. Fast backends are generated from them."""

from __future__ import annotations

import msgspec

from tableside_contract.facts import METHODS


def check(name: str, method: str, part: int | None) -> None:
    """Check the name of an output of a method; part: of the answer, if that is a list. Raises ValidationError."""
    suffix = "" if part is None else f"_{part}"
    if method not in METHODS or name != f"{method}{suffix}" or (part or 0) < 0:
        raise msgspec.ValidationError(
            f"the output {name[:80]!r} is no method of an estimator; there are {', '.join(METHODS)}"
        )
