"""A share of the answers of a fast backend is asked of the estimator again, after the client has its answer.

What the equivalence check at publish could not see, a request may: then the fast backend is taken out of service,
counted and logged.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

from tableside.contract.array_type import Array
from tableside.contract.schema import Output
from tableside.contract.table import Table
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
    """Start a verification of this answer when it is the turn of one: every `one_in`-th of a servable; 0 is never.

    None of an estimator that is left on disk: loading it would cost every worker the memory that sharing saves.
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
    """Log, once, that this worker has loaded an estimator it had left on disk; native threads must not log."""
    if original.is_loaded and not original.is_logged:
        original.is_logged = True
        log.warning("estimator_loaded", model=servable.name, version=servable.version)


def _verify(
    servable: Servable, runtime: RoutedRuntime, table: Table, outputs: Sequence[Output], answered: Mapping[str, Array],
    offload: Offload, metrics: Metrics,
) -> None:  # fmt: skip
    labels = (servable.name, str(servable.version))
    try:
        apart = offload.call(lambda: difference_from_estimator(runtime, table, outputs, answered))
    except Exception as problem:  # noqa: BLE001 - the client has its answer; that the estimator refuses is a difference
        apart = float("inf")
        log.warning("verification_failed", model=labels[0], version=labels[1], error=type(problem).__name__)
    agreed = servable.contract is not None and apart <= allowed_difference(servable.contract)
    metrics.verifications.labels(*labels, "agreed" if agreed else "differed").inc()
    if agreed:
        return
    runtime.retire()
    servable.renew_cache()
    reason = f"its fast backend disagreed with the estimator by {apart:.2g} and is out of service; publish it again"
    servable.report_problem(reason, FailureKind.OTHER)
    log.error("fast_backend_retired", model=labels[0], version=labels[1], difference=apart)
