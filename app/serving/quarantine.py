"""Shows in the states of versions that their model is stopped because its requests have ended workers."""

from __future__ import annotations

from tableside.errors import FailureKind
from tableside.process.worker_hand import WorkerHand
from tableside.serving.catalog import Catalog
from tableside.serving.version_reports import VersionReports

REASON = (
    "stopped: several of its requests have each ended two workers. The log has their digests; "
    "`tableside reload` starts it again"
)


class QuarantineReports:
    """What was reported last, so that only changes are reported."""

    def __init__(self, hand: WorkerHand, reports: VersionReports) -> None:
        self._hand, self._reports = hand, reports
        self._shown: frozenset[str] = frozenset()

    def update(self, catalog: Catalog) -> bool:
        """Report models that were stopped or started again since the last call. Return whether there were any."""
        stopped = self._hand.stopped_models()
        if stopped == self._shown:
            return False
        for name in stopped ^ self._shown:
            model = catalog.models.get(name)
            for servable in model.servables if model is not None else ():
                if name in stopped:
                    servable.report_problem(REASON, FailureKind.QUARANTINED)
                elif servable.failure_kind is FailureKind.QUARANTINED:
                    servable.report_warning()
            self._reports.report(model, model)
        self._shown = stopped
        return True
