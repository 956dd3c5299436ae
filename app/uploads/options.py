"""What a request says of an upload, beside its body."""

from __future__ import annotations

from typing import Literal

import msgspec


class Options(msgspec.Struct, frozen=True):
    """How an estimator is published, as the options of `tableside publish` of the same names.

    breaking: of a whole version, too.
    """

    target: str = ""
    runtime: Literal["auto", "sklearn"] = "auto"
    tolerance: float = 0.0
    nullable: tuple[str, ...] = ()
    quick: bool = False
    breaking: bool = False
