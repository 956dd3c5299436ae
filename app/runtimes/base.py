"""The interface between serving and the libraries that compute predictions."""

from __future__ import annotations

from typing import Any, Protocol

from tableside.contracts.answers import MethodAnswer
from tableside.contracts.table import Table
from tableside_contract.facts import Facts


class Runtime(Protocol):
    """A loaded artifact. Several native threads may call its methods at the same time."""

    platform: str
    """`<project>_<format>`, for example `scikit-learn_skops`; the V2 model metadata shows it."""

    def prepare(self, table: Table) -> Any:
        """Convert the table to what `run` takes. Called once for each batch, also when several methods run on it."""

    def run(self, method: str, data: Any) -> MethodAnswer:
        """Run `method` (`predict`, `transform`, ...) on `data`, which `prepare` returned.

        Returns an array of shape [rows] or [rows, width]; a list of such arrays, one for each target, where the
        estimator's method returns one.
        """


class DescribedRuntime(Runtime, Protocol):
    """A runtime whose estimator says what it takes and answers, from which publish learns a contract."""

    @property
    def facts(self) -> Facts:
        """What the fitted estimator says of itself."""
