"""One version in one worker: contract, runtime and state; answers tables."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping, Sequence

import msgspec
import numpy as np

from tableside.batching.batcher import Batcher, BatchMetrics, RequestLimits
from tableside.contract import answers
from tableside.contract.array_type import Array
from tableside.contract.schema import Contract, Input, Output
from tableside.contract.table import Table
from tableside.errors import FailureKind, InferenceFailed, ModelNotReady, RequestRejected, TablesideError
from tableside.preflight.results import Fingerprint
from tableside.process.offload import Offload
from tableside.runtimes.base import Runtime
from tableside.runtimes.router import RoutedRuntime
from tableside.serving.cache import CacheMetrics, NoCacheMetrics, ResponseCache
from tableside.serving.lifecycle import State, check
from tableside.serving.policy import Policy

BatchItem = tuple[Runtime, Table, Sequence[Output]]


class Prediction(msgspec.Struct, frozen=True):
    """arrays: output name to [rows] or [rows, width]. queue_s, predict_s: seconds waited, and computed (for all rows of
    the call, others' too; to look it up, when `cached`: then the arrays were answered before, and are read-only).
    """

    arrays: Mapping[str, Array]
    queue_s: float
    predict_s: float
    cached: bool = False


class Servable:
    """Built in LOADING; `ready` or `fail` decides. `predict` may be called from many greenlets at once.

    policy: how it is served; `adopt` replaces it.
    """

    def __init__(self, name: str, version: int, contract: Contract | None = None) -> None:
        self.name = name
        self.version = version
        self.contract = contract
        self.runtime: Runtime | None = None
        self.state = State.LOADING
        self.reason = ""
        self.failure_kind = FailureKind.NONE
        self.warning = ""
        self.load_s = 0.0
        self.fingerprint: Fingerprint = None
        self.answered = 0
        self.policy = Policy()
        self.cache: ResponseCache | None = None
        self._cache_metrics: Callable[[], CacheMetrics] = NoCacheMetrics
        self._cached_for: tuple[int, bool] = (0, False)
        self.batcher: Batcher[BatchItem, Mapping[str, Array]] = Batcher(_run_batch, _batch_key, self.policy.batching)

    @property
    def input(self) -> Input:
        """The table that it takes. Only of one that has been loaded."""
        assert self.contract is not None
        return self.contract.input

    def ready(self, runtime: Runtime, load_s: float, warning: str = "") -> None:
        """The artifact is loaded and its golden rows hold. warning: what differs here from publish all the same."""
        self.runtime, self.load_s, self.warning = runtime, load_s, warning
        self.state = check(self.state, State.READY)
        self.report_problem(warning, FailureKind.ENVIRONMENT if warning else FailureKind.NONE)

    def fail(self, reason: str, failure_kind: FailureKind = FailureKind.NONE) -> None:
        """It will not be served, because of `reason`."""
        self.state = check(self.state, State.UNAVAILABLE)
        self.report_problem(reason, failure_kind)

    def report_problem(self, reason: str, failure_kind: FailureKind) -> None:
        """Say what is wrong with it, whether it answers or not."""
        self.reason, self.failure_kind = reason, failure_kind

    def unload(self) -> None:
        """Let go of the estimator; requests that hold it finish with it."""
        self.state = check(self.state, State.UNLOADING)
        self.runtime = None
        self.drop_cache()
        self.state, self.reason = check(self.state, State.UNAVAILABLE), "unloaded"

    def outputs(self, wanted: Sequence[str]) -> tuple[Output, ...]:
        """The outputs of those names, the default one for none. Raises RequestRejected naming what there is."""
        assert self.contract is not None
        if not wanted:
            return (self.contract.default_output,)
        found = []
        for name in wanted:
            output = self.contract.output(name)
            if output is None:
                known = ", ".join(output.name for output in self.contract.outputs)
                raise RequestRejected(f"model {self.name} has no output {name!r}; it has {known}")
            found.append(output)
        return tuple(found)

    def adopt(self, policy: Policy) -> None:
        """Serve by this policy from now on; what is being decoded or computed ends by the one it began with.

        On the event loop's thread, and before `renew_cache`.
        """
        self.policy = policy
        self.batcher.policy = policy.batching
        if isinstance(self.runtime, RoutedRuntime) and self.runtime.wanted is not policy.fast:
            self.runtime.wanted = policy.fast

    def check_room(self, request: RequestLimits) -> None:
        """Raise Overloaded when no row more could be answered in time: before a body is decoded.

        With a cache the body has to be read first: what was answered before needs no room.
        """
        if self.cache is None:
            self.batcher.check_room(request)

    def count(self, metrics: BatchMetrics) -> None:
        """Say to `metrics` from now on what its requests cost."""
        self.batcher.metrics = metrics

    def renew_cache(self, metrics: Callable[[], CacheMetrics] | None = None) -> None:
        """Begin an empty cache when the policy asks for another one, or others answer than when it was begun.

        To be called after `runtime` has changed its backends: a call that began before keeps its answer in the old
        cache, where nobody looks. metrics: makes what a cache says its doings to; without it as before.
        """
        self._cache_metrics = metrics or self._cache_metrics
        now = (self.policy.cache_bytes, isinstance(self.runtime, RoutedRuntime) and self.runtime.is_fast)
        if now != self._cached_for:
            self.drop_cache()
            self._cached_for = now
        if self.cache is None and self.policy.cache_bytes and self.runtime is not None:
            self.cache = ResponseCache(self.policy.cache_bytes, self._cache_metrics())

    def drop_cache(self) -> None:
        """Forget every answer, those too that are being computed."""
        cache, self.cache = self.cache, None
        if cache is not None:
            cache.close()

    def predict(self, table: Table, outputs: Sequence[Output], offload: Offload, request: RequestLimits) -> Prediction:
        """Answer a table: from the cache; here when that is known to be cheap, else in a native thread; with others
        when busy.

        Raises RequestRejected when the estimator refuses the values, InferenceFailed when it fails otherwise,
        Overloaded when there is no room, DeadlineExceeded past the deadline, ClientClosedRequest when the client left,
        ModelNotReady when it was unloaded meanwhile.
        """
        runtime = self.runtime
        if runtime is None:
            raise ModelNotReady(f"model {self.name}/{self.version} is {self.state}: {self.reason}")
        cache = self.cache
        if cache is None:
            return self._submit(runtime, table, outputs, offload, request)
        started_s = time.monotonic()
        key = cache.key(table, outputs)
        found = cache.find(key)
        if found is not None:
            return Prediction(found, 0.0, time.monotonic() - started_s, cached=True)
        prediction = self._submit(runtime, table, outputs, offload, request)
        cache.keep(key, prediction.arrays)
        return prediction

    def _submit(
        self, runtime: Runtime, table: Table, outputs: Sequence[Output], offload: Offload, request: RequestLimits
    ) -> Prediction:
        try:
            answered = self.batcher.submit((runtime, table, outputs), table.rows, offload, request)
        except TablesideError:
            raise
        except ValueError as refusal:
            raise RequestRejected("the model refuses these values") from refusal
        except Exception as fault:
            raise InferenceFailed from fault
        return Prediction(answered.result, answered.queue_s, answered.run_s)


def _batch_key(items: BatchItem) -> Hashable:
    """Requests of equal keys may share a call."""
    runtime, table, outputs = items
    return (runtime, tuple(output.name for output in outputs), table.batch_key())


def _run_batch(items: Sequence[BatchItem]) -> list[Mapping[str, Array]]:
    """Each request's arrays, by one call for all. Several share runtime, outputs, schema and `batch_key`."""
    runtime, table, outputs = items[0]
    if len(items) == 1:
        return [answers.collect(outputs, runtime.run, runtime.prepare(table))]
    batched = Table.concat([each for _, each, _ in items])
    arrays = answers.collect(outputs, runtime.run, runtime.prepare(batched))
    for name, array in arrays.items():
        if len(array) != batched.rows:
            raise TypeError(f"{name}: {len(array)} answers for {batched.rows} rows")
    found: list[Mapping[str, Array]] = []
    start = 0
    for _, each, _ in items:
        stop = start + each.rows
        found.append({name: np.ascontiguousarray(array[start:stop]) for name, array in arrays.items()})
        start = stop
    return found
