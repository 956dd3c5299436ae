"""An estimator that is left on disk while a shared way answers for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from app.concurrency import offload
from app.contract.answers import Answer
from app.contract.table import Table
from app.runtimes.base import Runtime


class Shelved:
    """Refuses what the estimator refuses; loads it when it would answer, once, and keeps it then."""

    platform = "scikit-learn_skops"

    def __init__(self, hollow: Runtime, load: Callable[[], Runtime]) -> None:
        """hollow: has the estimator's checks and none of its nodes. load: may take long; what it raises is raised."""
        self._hollow = hollow
        self._load = load
        self._one_at_a_time = offload.native_lock()
        self._whole: Runtime | None = None
        self.is_told = False

    @property
    def is_loaded(self) -> bool:
        """Whether the estimator is in memory."""
        return self._whole is not None

    def prepare(self, table: Table) -> Any:
        """See `Runtime.prepare`."""
        return self._hollow.prepare(table)

    def run(self, method: str, data: Any) -> Answer:
        """See `Runtime.run`; `data` is what `prepare` made."""
        whole = self._whole
        if whole is None:
            self._hollow.run(method, data)
            whole = offload.aside(self._fetch)
        return whole.run(method, data)

    def _fetch(self) -> Runtime:
        with self._one_at_a_time:
            if self._whole is None:
                self._whole = self._load()
            return self._whole
