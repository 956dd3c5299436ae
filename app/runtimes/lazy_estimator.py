"""An estimator that stays on disk while the shared-memory backend computes its predictions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tableside.contracts.answers import MethodAnswer
from tableside.contracts.table import Table
from tableside.process import offload
from tableside.runtimes.base import Runtime


class LazyEstimator:
    """A runtime that loads its estimator at the first call that the stub cannot refuse, and keeps it from then on."""

    platform = "scikit-learn_skops"

    def __init__(self, stub: Runtime, load: Callable[[], Runtime]) -> None:
        """Start without the estimator.

        stub: a copy of the estimator with its input checks and without its trees. It runs first, so that input which
        the estimator refuses is refused without loading anything. load: loads the estimator; it may take seconds, and
        what it raises is raised by `run`.
        """
        self._stub = stub
        self._load = load
        self._load_lock = offload.native_lock()
        self._estimator: Runtime | None = None
        self.is_logged = False

    @property
    def is_loaded(self) -> bool:
        """Whether the estimator is in memory."""
        return self._estimator is not None

    def prepare(self, table: Table) -> Any:
        """Convert the table as the estimator takes it."""
        return self._stub.prepare(table)

    def run(self, method: str, data: Any) -> MethodAnswer:
        """Run `method` with the estimator, after loading it in a native thread if this is the first call."""
        estimator = self._estimator
        if estimator is None:
            self._stub.run(method, data)
            estimator = offload.run_native(self._fetch)
        return estimator.run(method, data)

    def _fetch(self) -> Runtime:
        with self._load_lock:
            if self._estimator is None:
                self._estimator = self._load()
            return self._estimator
