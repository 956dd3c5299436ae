"""The servable: one version in one worker, with its contract, runtime, batcher, cache and state."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from tableside.batching.batch_metrics import BatchMetrics
from tableside.batching.batcher import Batcher
from tableside.batching.limits import RequestLimits
from tableside.contracts import answers, failure_place
from tableside.contracts.array_type import Array
from tableside.contracts.schema import Contract, Input, Output
from tableside.contracts.table import Table
from tableside.errors import FailureKind, InferenceFailed, ModelNotReady, RequestRejected, TablesideError
from tableside.model_process.remote_runtime import RemoteRuntime
from tableside.preflight.results import Fingerprint
from tableside.process.offload import Offload
from tableside.runtimes.base import Runtime
from tableside.runtimes.router import RoutedRuntime
from tableside.serving.cache import CacheMetrics, NoCacheMetrics, ResponseCache
from tableside.serving.lifecycle import State, check
from tableside.serving.policy import Policy

if TYPE_CHECKING:
    from tableside.serving.traffic import ModelTraffic

IN_THE_LOG = "the server's log has the traceback under this request id"
BatchItem = tuple[Runtime, Table, Sequence[Output], float, int]
"""One request as the batcher sees it: the runtime to call, the table, the outputs to compute, the deadline, and the
generation."""


class Prediction(msgspec.Struct, frozen=True):
    """The answer to one request.

    arrays: output name to an array of shape [rows] or [rows, width]; read-only if `cached`. queue_s: seconds in the
    queue. predict_s: seconds of the call, which may have answered other requests too; if `cached`, of the look-up.
    """

    arrays: Mapping[str, Array]
    queue_s: float
    predict_s: float
    cached: bool = False


class Servable:
    """One version in one worker. It starts as LOADING; `ready` or `fail` ends that state.

    Many greenlets may call `predict` at the same time. policy: how it is served; `adopt` replaces it. reason,
    failure_kind: what is wrong with it, also while it answers. answered: how many answers verification has counted.
    traffic: how the requests of its model are divided, if another version is tried; None for most models.
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
        self.notice = ""
        """What is worth saying of a version that is served as it should be."""
        self.load_s = 0.0
        self.fingerprint: Fingerprint = None
        self.environment = ""
        self.golden_difference = 0.0
        self.answered = 0
        self.policy = Policy()
        self.traffic: ModelTraffic | None = None
        self.cache: ResponseCache | None = None
        self._cache_metrics: Callable[[], CacheMetrics] = NoCacheMetrics
        self._cached_for: tuple[int, bool] = (0, False)
        self.batcher: Batcher[BatchItem, Mapping[str, Array]] = Batcher(_run_batch, _batch_key, self.policy.batching)

    @property
    def is_next(self) -> bool:
        """Whether it is about to be loaded: nothing else has to end before."""
        return self.state is State.LOADING and not self.reason

    @property
    def input(self) -> Input:
        """The columns that requests may have: the model's and the id column. The contract must have been read."""
        if self.policy.input is not None:
            return self.policy.input
        assert self.contract is not None
        return self.contract.input

    def ready(self, runtime: Runtime, load_s: float, warning: str = "") -> None:
        """Become READY with a runtime that has answered its golden rows.

        load_s: the seconds that the load took. warning: what differs from publish on this machine, if anything. Raises
        ValueError unless it is LOADING.
        """
        self.runtime, self.load_s, self.warning = runtime, load_s, warning
        self.state = check(self.state, State.READY)
        self.report_warning()

    def fail(self, reason: str, failure_kind: FailureKind = FailureKind.NONE) -> None:
        """Become UNAVAILABLE because of `reason`. Raises ValueError unless it is LOADING."""
        self.state = check(self.state, State.UNAVAILABLE)
        self.report_problem(reason, failure_kind)

    def report_problem(self, reason: str, failure_kind: FailureKind) -> None:
        """Set what is wrong with it. Its state stays as it is."""
        self.reason, self.failure_kind = reason, failure_kind

    def report_warning(self) -> None:
        """Report what is wrong with a version that answers: its environment, or a setting that does not fit it."""
        kind = FailureKind.ENVIRONMENT if self.warning else FailureKind.NONE
        self.report_problem(self.warning or self.policy.problem or self.notice, kind)

    def unload(self) -> None:
        """Become UNAVAILABLE and release the cache.

        Requests that have found it still get their answers. The estimator is released with the last of them: nothing
        else refers to the servable.
        """
        self.state = check(self.state, State.UNLOADING)
        self.drop_cache()
        self.state, self.reason = check(self.state, State.UNAVAILABLE), "unloaded"

    def outputs(self, wanted: Sequence[str]) -> tuple[Output, ...]:
        """Return the outputs of these names; the default output if there are no names.

        Raises RequestRejected, with the names that exist, for an output that the model does not have.
        """
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
        """Serve new requests by this policy. Requests that are being decoded or computed keep the old one.

        Call it on the event loop's thread, and before `renew_cache`.
        """
        self.policy = policy
        self.batcher.policy = policy.batching
        if policy.problem and not self.reason:
            self.report_problem(policy.problem, FailureKind.NONE)
        if isinstance(self.runtime, RemoteRuntime):
            self.batcher.policy = msgspec.structs.replace(policy.batching, waits=True)
            self.batcher.setbacks = self.runtime.setbacks
            self.runtime.is_brief = partial(_is_brief, self.batcher)
        if isinstance(self.runtime, RoutedRuntime) and self.runtime.wanted is not policy.fast:
            self.runtime.wanted = policy.fast

    def check_room(self, request: RequestLimits) -> None:
        """Raise Overloaded if the queue would refuse a request of one row. Views call it before they decode a body.

        Does nothing with a cache: a cached answer needs no place in the queue, and the key is in the body.
        """
        if self.cache is None:
            self.batcher.check_room(request)

    def count(self, metrics: BatchMetrics) -> None:
        """Report the batcher's events to `metrics` from now on."""
        self.batcher.metrics = metrics

    def renew_cache(self, metrics: Callable[[], CacheMetrics] | None = None) -> None:
        """Start an empty cache if its size in the policy has changed, or whether a fast backend is in use.

        Call it after the runtime has changed its backends: a call that began before then stores its answer in the old
        cache, which is closed. metrics: makes the CacheMetrics of a new cache; None keeps the function given before.
        """
        self._cache_metrics = metrics or self._cache_metrics
        now = (self.policy.cache_bytes, isinstance(self.runtime, RoutedRuntime) and self.runtime.is_fast)
        if now != self._cached_for:
            self.drop_cache()
            self._cached_for = now
        if self.cache is None and self.policy.cache_bytes and self.runtime is not None:
            self.cache = ResponseCache(self.policy.cache_bytes, self._cache_metrics())

    def drop_cache(self) -> None:
        """Close and remove the cache. Answers that are being computed now will not be kept either."""
        cache, self.cache = self.cache, None
        if cache is not None:
            cache.close()

    def predict(self, table: Table, outputs: Sequence[Output], offload: Offload, request: RequestLimits) -> Prediction:
        """Return the answer to a table: from the cache, or from the runtime by way of the batcher.

        Raises RequestRejected if the estimator raises ValueError, InferenceFailed if it raises anything else (the cause
        is chained), Overloaded if the queue is full or too long, DeadlineExceeded past the deadline,
        ClientClosedRequest if the client has left, and ModelNotReady if the version has been unloaded.
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
            batched = self.batcher.submit(
                (runtime, table, outputs, request.deadline_at_s, request.generation), table.rows, offload, request
            )
        except TablesideError:
            raise
        except ValueError as problem:  # its text may quote the client's values, so it is not sent
            raise RequestRejected(
                f"the estimator of model {self.name} raised {failure_place.class_of(problem)} on these values"
                f"{failure_place.find(problem, table)}; {IN_THE_LOG}",
                by_estimator=True,
            ) from problem
        except Exception as problem:
            raise InferenceFailed(
                f"the prediction of model {self.name} raised {failure_place.class_of(problem)}"
                f"{failure_place.find(problem, table)}; {IN_THE_LOG}"
            ) from problem
        return Prediction(batched.result, batched.queue_s, batched.run_s)


def _is_brief(batcher: Batcher[BatchItem, Mapping[str, Array]], rows: int) -> bool:
    """Whether a call is expected to be so cheap that the event loop may wait for it.

    It refers to the batcher and not to the servable, which would otherwise refer to itself and not be released.
    """
    return batcher.cost.least_s(rows) < batcher.policy.inline_below_s


def _batch_key(item: BatchItem) -> Hashable:
    runtime, table, outputs, _, generation = item
    return (runtime, generation, tuple(output.name for output in outputs), table.batch_key())


def _run_batch(items: Sequence[BatchItem]) -> list[Mapping[str, Array]]:
    """Return the arrays of each item, computed by one call. All items have the same runtime, outputs and batch key.

    Raises TypeError if an output has another number of rows than the batch: it could not be split among the items.
    """
    runtime, table, outputs, deadline_at_s, _ = items[0]
    if len(items) == 1:
        run = partial(runtime.run_until, deadline_at_s) if isinstance(runtime, RemoteRuntime) else runtime.run
        return [answers.collect(outputs, run, runtime.prepare(table))]
    batched = Table.concat([item[1] for item in items])
    arrays = answers.collect(outputs, runtime.run, runtime.prepare(batched))
    for name, array in arrays.items():
        if len(array) != batched.rows:
            raise TypeError(f"output {name} has {len(array)} rows for a batch of {batched.rows} rows")
    split: list[Mapping[str, Array]] = []
    start = 0
    for _, table, *_ in items:
        stop = start + table.rows
        split.append({name: np.ascontiguousarray(array[start:stop]) for name, array in arrays.items()})
        start = stop
    return split
