"""Reports the states of versions in the metrics and the log, and unloads what is not served any more."""

from __future__ import annotations

from tableside.errors import FailureKind
from tableside.serving.catalog import Model
from tableside.serving.lifecycle import State
from tableside.serving.servable import Servable
from tableside.telemetry import logs
from tableside.telemetry.metrics import Metrics

REMOVED = "no longer in the repository"
"""The reason of a version whose folder has been removed."""
log = logs.get_logger("registry")


class VersionReports:
    """What was reported last of each version, so that only changes are reported."""

    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics
        self._reported: dict[tuple[str, int], tuple[State, FailureKind, str]] = {}

    def report(self, before: Model | None, now: Model | None) -> None:
        """Unload what a model does not serve any more, and report the states that have changed."""
        old = {servable.version: servable for servable in before.servables} if before is not None else {}
        for servable in now.servables if now is not None else ():
            known = old.pop(servable.version, None)
            if known is not None and known is not servable:
                known.drop_cache()
                if servable.state is State.UNAVAILABLE:
                    _unload(known)
            self._report_state(servable, is_new=known is not servable and servable.state is State.READY)
        for servable in old.values():
            _unload(servable)
            servable.report_problem(REMOVED, FailureKind.NONE)
            self._report_state(servable)

    def _report_state(self, servable: Servable, is_new: bool = False) -> None:
        """Write a version's state to the metrics and the log if it has changed since the last report."""
        key, now = (servable.name, servable.version), (servable.state, servable.failure_kind, servable.reason)
        before, self._reported[key] = self._reported.get(key), now
        if before == now and not is_new:
            return
        state, failure_kind, reason = now
        labels = (servable.name, str(servable.version))
        for possible in State:
            self.metrics.model_state.labels(*labels, possible.value).set(1.0 if possible is state else 0.0)
        for problem in {before[1] if before else FailureKind.NONE, failure_kind} - {FailureKind.NONE}:
            self.metrics.model_problem.labels(*labels, problem.value).set(1.0 if problem is failure_kind else 0.0)
        self.metrics.load_seconds.labels(*labels).set(servable.load_s)
        if state is State.LOADING and not reason:
            return
        write = log.info if state in (State.READY, State.LOADING) and not failure_kind else log.warning
        write(
            "model_state",
            model=servable.name,
            version=servable.version,
            state=state.value,
            failure_kind=failure_kind.value,
            reason=reason,
            load_s=round(servable.load_s, 3),
        )


def _unload(servable: Servable) -> None:
    if servable.state is State.READY:
        servable.unload()
