"""Runs in the environment where an estimator was trained, and writes down what a server must know of it.

Pure Python for Python 3.8 and scikit-learn 1.0 upwards, without dependencies of its own. Nothing here imports
tableside, so that the package can be installed beside any scikit-learn; tableside imports it.

    from tableside_contract import contract
    contract(estimator, sample, "record")

`contract` is imported when it is first used, because a server that needs only the facts should not import scikit-learn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tableside_contract.errors import RecordFailed

if TYPE_CHECKING:
    from tableside_contract.record import contract

__all__ = ["RecordFailed", "contract"]


def __getattr__(name: str) -> Any:
    if name == "contract":
        from tableside_contract.record import contract

        return contract
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
