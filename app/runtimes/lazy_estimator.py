"""An estimator that is left on disk while a shared-memory backend answers for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tableside.contract.answers import MethodAnswer
from tableside.contract.table import Table
from tableside.process import offload
from tableside.runtimes.base import Runtime


class LazyEstimator:
    """Refuses what the estimator refuses; loads it when it would answer, once, and keeps it then."""

    platform = "scikit-learn_skops"

    def __init__(self, stub: Runtime, load: Callable[[], Runtime]) -> None:
        """stub: has the estimator's checks and none of its nodes. load: may take long; what it raises is raised."""
        self._stub = stub
        self._load = load
        self._one_at_a_time = offload.native_lock()
        self._whole: Runtime | None = None
        self.is_logged = False

    @property
    def is_loaded(self) -> bool:
        """Whether the estimator is in memory."""
        return self._whole is not None

    def prepare(self, table: Table) -> Any:
        """See `Runtime.prepare`."""
        return self._stub.prepare(table)

    def run(self, method: str, data: Any) -> MethodAnswer:
        """See `Runtime.run`; `data` is what `prepare` made."""
        whole = self._whole
        if whole is None:
            self._stub.run(method, data)
            whole = offload.run_native(self._fetch)
        return whole.run(method, data)

    def _fetch(self) -> Runtime:
        with self._one_at_a_time:
            if self._whole is None:
                self._whole = self._load()
            return self._whole
