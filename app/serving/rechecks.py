"""A share of the answers of a proved way is asked of the estimator again, after the client has its answer.

What proof at publish could not see, a request may: then the fast way is taken out of service, counted and logged.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

from app import logs
from app.concurrency.offload import Offload
from app.contract.cells import Array
from app.contract.schema import Output
from app.contract.table import Table
from app.errors import Trouble
from app.metrics import Metrics
from app.runtimes.planned import PlannedRuntime, disagreement, tolerated
from app.runtimes.shelved import Shelved
from app.serving.servable import Servable

log = logs.get("rechecks")


def maybe(
    servable: Servable, table: Table, outputs: Sequence[Output], said: Mapping[str, Array], one_in: int,
    offload: Offload, metrics: Metrics,
) -> threading.Thread | None:  # fmt: skip
    """Start a recheck of this answer when it is the turn of one: every `one_in`-th of a servable; 0 is never.

    None of an estimator that is left on disk: loading it would cost every worker the memory that sharing saves.
    """
    runtime = servable.runtime
    if not isinstance(runtime, PlannedRuntime):
        return None
    if isinstance(runtime.original, Shelved):
        _tell_loaded(servable, runtime.original)
    if not one_in:
        return None
    servable.answered += 1
    if servable.answered % one_in or not runtime.is_fast or not runtime.is_whole:
        return None
    work = (servable, runtime, table, outputs, said, offload, metrics)
    thread = threading.Thread(target=_recheck, args=work, name="recheck", daemon=True)
    thread.start()
    return thread


def _tell_loaded(servable: Servable, original: Shelved) -> None:
    """Log, once, that this worker has loaded an estimator it had left on disk; native threads must not log."""
    if original.is_loaded and not original.is_told:
        original.is_told = True
        log.warning("estimator_loaded", model=servable.name, version=servable.version)


def _recheck(
    servable: Servable, runtime: PlannedRuntime, table: Table, outputs: Sequence[Output], said: Mapping[str, Array],
    offload: Offload, metrics: Metrics,
) -> None:  # fmt: skip
    labels = (servable.name, str(servable.version))
    try:
        apart = offload.call(lambda: disagreement(runtime, table, outputs, said))
    except Exception as problem:  # noqa: BLE001 - the client has its answer; that the estimator refuses is a difference
        apart = float("inf")
        log.warning("recheck_failed", model=labels[0], version=labels[1], error=type(problem).__name__)
    agreed = servable.contract is not None and apart <= tolerated(servable.contract)
    metrics.rechecks.labels(*labels, "agreed" if agreed else "differed").inc()
    if agreed:
        return
    runtime.retire()
    servable.renew_cache()
    reason = f"its fast way disagreed with the estimator by {apart:.2g} and is out of service; publish it again"
    servable.complain(reason, Trouble.OTHER)
    log.error("fast_way_retired", model=labels[0], version=labels[1], difference=apart)
