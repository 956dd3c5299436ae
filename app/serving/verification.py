"""Sampled verification: compares a share of a fast backend's answers with the estimator's, after they have been sent.

The equivalence check at publish covers the sample; requests may hold values that the sample did not. After the first
difference beyond the tolerance the fast backend is taken out of service, which is counted and logged.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

from tableside.contracts.array_type import Array
from tableside.contracts.schema import Output
from tableside.contracts.table import Table
from tableside.errors import FailureKind
from tableside.process.offload import Offload
from tableside.runtimes.lazy_estimator import LazyEstimator
from tableside.runtimes.router import RoutedRuntime, allowed_difference, difference_from_estimator
from tableside.serving.servable import Servable
from tableside.telemetry import logs
from tableside.telemetry.metrics import Metrics

log = logs.get_logger("verification")


def maybe_verify(
    servable: Servable, table: Table, outputs: Sequence[Output], answered: Mapping[str, Array], one_in: int,
    offload: Offload, metrics: Metrics,
) -> threading.Thread | None:  # fmt: skip
    """Verify every `one_in`-th answer of a servable in a new thread. Return that thread; None if nothing is verified.

    answered: the arrays that the client got, by output name. one_in: 0 turns verification off.
    Answers are not verified while the estimator is left on disk (LazyEstimator): loading it would cost every worker the
    memory that the shared store saves.
    """
    runtime = servable.runtime
    if not isinstance(runtime, RoutedRuntime):
        return None
    if isinstance(runtime.original, LazyEstimator):
        _log_loaded(servable, runtime.original)
    if not one_in:
        return None
    servable.answered += 1
    if servable.answered % one_in or not runtime.is_fast or not runtime.is_whole:
        return None
    work = (servable, runtime, table, outputs, answered, offload, metrics)
    thread = threading.Thread(target=_verify, args=work, name="verification", daemon=True)
    thread.start()
    return thread


def _log_loaded(servable: Servable, original: LazyEstimator) -> None:
    """Log once that this worker has loaded the estimator. The load runs in a native thread, which must not log."""
    if original.is_loaded and not original.is_logged:
        original.is_logged = True
        log.warning("estimator_loaded", model=servable.name, version=servable.version)


def _verify(
    servable: Servable, runtime: RoutedRuntime, table: Table, outputs: Sequence[Output], answered: Mapping[str, Array],
    offload: Offload, metrics: Metrics,
) -> None:  # fmt: skip
    labels = (servable.name, str(servable.version))
    try:
        difference = offload.call(lambda: difference_from_estimator(runtime, table, outputs, answered))
    except Exception as problem:  # noqa: BLE001 - the fast backend answered and the estimator raised: they differ
        difference = float("inf")
        log.warning("verification_failed", model=labels[0], version=labels[1], error=type(problem).__name__)
    agreed = servable.contract is not None and difference <= allowed_difference(servable.contract)
    metrics.verifications.labels(*labels, "agreed" if agreed else "differed").inc()
    if agreed:
        return
    runtime.retire()
    servable.renew_cache()
    reason = (
        f"the fast backend is out of service: an answer differed from the estimator's by {difference:.2g}; using "
        "scikit-learn until the model is published again"
    )
    servable.report_problem(reason, FailureKind.OTHER)
    log.error("fast_backend_retired", model=labels[0], version=labels[1], difference=difference)
