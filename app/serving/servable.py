"""One version in one worker: contract, runtime and state; answers tables."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping, Sequence

import msgspec
import numpy as np

from app.batching.batcher import Batcher, Meter, Terms
from app.batching.queue import Limits
from app.concurrency.offload import Offload
from app.contract import answers
from app.contract.cells import Array
from app.contract.rules import Rules
from app.contract.schema import Contract, Output
from app.contract.table import Table
from app.errors import InferenceFailed, ModelNotReady, RequestRejected, TablesideError, Trouble
from app.repository.modelfile import BatchRules, CacheRules, ColumnRules
from app.runtimes.base import Runtime
from app.runtimes.planned import PlannedRuntime
from app.serving.cache import CacheMeter, ResponseCache, SilentCache
from app.serving.lifecycle import State, check
from app.serving.verdicts import Print
from app.settings import Predict

Asked = tuple[Runtime, Table, Sequence[Output]]


class Prediction(msgspec.Struct, frozen=True):
    """arrays: output name to [rows] or [rows, width]. queue_s, predict_s: seconds waited, and computed (for all rows of
    the call, others' too; to look it up, when `cached`: then the arrays were answered before, and are read-only).
    """

    arrays: Mapping[str, Array]
    queue_s: float
    predict_s: float
    cached: bool = False


class Servable:
    """Built in LOADING; `ready` or `fail` decides. `predict` may be called from many greenlets at once."""

    def __init__(self, name: str, version: int, contract: Contract | None = None) -> None:
        self.name = name
        self.version = version
        self.contract = contract
        self.runtime: Runtime | None = None
        self.state = State.LOADING
        self.reason = ""
        self.trouble = Trouble.NONE
        self.warning = ""
        self.load_s = 0.0
        self.fingerprint: Print = None
        self.columns = ColumnRules()
        self._rules: tuple[ColumnRules, Rules] | None = None
        self.answered = 0
        self.batching = BatchRules()
        self.caching = CacheRules()
        self.cache: ResponseCache | None = None
        self._cache_meter: Callable[[], CacheMeter] = SilentCache
        self._cached_for: tuple[CacheRules, bool] = (self.caching, False)
        self._limits: tuple[BatchRules, Limits] | None = None
        self._merged: tuple[BatchRules, bool] | None = None
        self.batcher: Batcher[Asked, Mapping[str, Array]] = Batcher(_answer_all)

    def ready(self, runtime: Runtime, load_s: float, warning: str = "") -> None:
        """The artifact is loaded and its golden rows hold. warning: what differs here from publish all the same."""
        self.runtime, self.load_s, self.warning = runtime, load_s, warning
        self.state = check(self.state, State.READY)
        self.complain(warning, Trouble.ENVIRONMENT if warning else Trouble.NONE)

    def fail(self, reason: str, trouble: Trouble = Trouble.NONE) -> None:
        """It will not be served, because of `reason`."""
        self.state = check(self.state, State.UNAVAILABLE)
        self.complain(reason, trouble)

    def complain(self, reason: str, trouble: Trouble) -> None:
        """Say what is wrong with it, whether it answers or not."""
        self.reason, self.trouble = reason, trouble

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

    @property
    def is_merged(self) -> bool:
        """Whether its requests may share a call: as publish measured, and as model.toml has it."""
        if self._merged is None or self._merged[0] is not self.batching:
            measured = self.contract.batch if self.contract is not None else None
            wanted = ("exact",) if self.batching.require == "exact" else ("exact", "ulp")
            self._merged = (self.batching, self.batching.enabled and measured in wanted)
        return self._merged[1]

    def limits(self, offload: Offload, max_queue_rows: int) -> Limits:
        """How much of its work runs and waits at once. Shared calls go one at a time, others leave a thread to other
        models.
        """
        if self._limits is None or self._limits[0] is not self.batching:
            lanes = 1 if self.is_merged else max(1, offload.threads - 1)
            self._limits = (self.batching, Limits(self.batching.max_batch_rows, max_queue_rows, lanes))
        return self._limits[1]

    def rules(self, policy: Predict) -> Rules:
        """How its tables are read: as model.toml says, and as strictly as the settings do."""
        if self._rules is None or self._rules[0] is not self.columns:
            given = self.columns
            made = Rules(policy.max_cell_errors, policy.show_values, given.missing, given.extra, given.duplicate)
            self._rules = (given, made)
        return self._rules[1]

    def check_room(self, terms: Terms) -> None:
        """Raise Overloaded when no row more could be answered in time: before a body is decoded.

        With a cache the body has to be read first: what was answered before needs no room.
        """
        if self.cache is None:
            self.batcher.check_room(self.is_merged, terms)

    def count(self, meter: Meter) -> None:
        """Say to `meter` from now on what its requests cost."""
        self.batcher.meter = meter

    def renew_cache(self, meter: Callable[[], CacheMeter] | None = None) -> None:
        """Begin an empty cache when model.toml asks for another one, or others answer than when it was begun.

        To be called after `runtime` has changed its ways: a call that began before keeps its answer in the old cache,
        where nobody looks. meter: makes what a cache says its doings to; without it as before.
        """
        self._cache_meter = meter or self._cache_meter
        now = (self.caching, isinstance(self.runtime, PlannedRuntime) and self.runtime.is_fast)
        if now != self._cached_for:
            self.drop_cache()
            self._cached_for = now
        if self.cache is None and self.caching.max_bytes and self.runtime is not None:
            self.cache = ResponseCache(self.caching.max_bytes, self._cache_meter())

    def drop_cache(self) -> None:
        """Forget every answer, those too that are being computed."""
        cache, self.cache = self.cache, None
        if cache is not None:
            cache.close()

    def predict(self, table: Table, outputs: Sequence[Output], offload: Offload, terms: Terms) -> Prediction:
        """Answer a table: from the cache; here when that is known to be cheap, else in a native thread; with others
        when busy.

        Raises RequestRejected when the estimator refuses the values, InferenceFailed when it fails otherwise,
        Overloaded when there is no room, DeadlineExceeded past the deadline, ClientGone when the client left,
        ModelNotReady when it was unloaded meanwhile.
        """
        runtime = self.runtime
        if runtime is None:
            raise ModelNotReady(f"model {self.name}/{self.version} is {self.state}: {self.reason}")
        cache = self.cache
        if cache is None:
            return self._ask(runtime, table, outputs, offload, terms)
        started_s = time.monotonic()
        key = cache.key(table, outputs)
        found = cache.find(key)
        if found is not None:
            return Prediction(found, 0.0, time.monotonic() - started_s, cached=True)
        prediction = self._ask(runtime, table, outputs, offload, terms)
        cache.keep(key, prediction.arrays)
        return prediction

    def _ask(
        self, runtime: Runtime, table: Table, outputs: Sequence[Output], offload: Offload, terms: Terms
    ) -> Prediction:
        key_of = _merge_key if self.is_merged else None
        try:
            answered = self.batcher.ask((runtime, table, outputs), table.rows, key_of, offload, terms)
        except TablesideError:
            raise
        except ValueError as refusal:
            raise RequestRejected("the model refuses these values") from refusal
        except Exception as fault:
            raise InferenceFailed from fault
        return Prediction(answered.result, answered.queue_s, answered.run_s)


def _merge_key(asked: Asked) -> Hashable:
    """Requests of equal keys may share a call."""
    runtime, table, outputs = asked
    return (runtime, tuple(output.name for output in outputs), table.merge_key())


def _answer_all(asked: Sequence[Asked]) -> list[Mapping[str, Array]]:
    """Each request's arrays, by one call for all. Several share runtime, outputs, schema and `merge_key`."""
    runtime, table, outputs = asked[0]
    if len(asked) == 1:
        return [answers.collect(outputs, runtime.run, runtime.prepare(table))]
    merged = Table.concat([each for _, each, _ in asked])
    arrays = answers.collect(outputs, runtime.run, runtime.prepare(merged))
    for name, array in arrays.items():
        if len(array) != merged.rows:
            raise TypeError(f"{name}: {len(array)} answers for {merged.rows} rows")
    found: list[Mapping[str, Array]] = []
    start = 0
    for _, each, _ in asked:
        stop = start + each.rows
        found.append({name: np.ascontiguousarray(array[start:stop]) for name, array in arrays.items()})
        start = stop
    return found
