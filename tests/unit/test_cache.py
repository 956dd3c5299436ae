"""The response cache: no wrong answers, no more memory than its limit, and off unless model.toml turns it on."""

from __future__ import annotations

import gc
import threading
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tableside.batching.limits import RequestLimits
from tableside.batching.queue import BatchPolicy
from tableside.contracts.digest import digest_of
from tableside.contracts.schema import Column, Input, Output
from tableside.contracts.table import Table
from tableside.errors import ContractBroken, Overloaded, RequestRejected
from tableside.repository import model_toml
from tableside.repository.model_toml import CacheConfig
from tableside.serving.cache import LARGEST_SHARE, MAX_TABLE_BYTES, NoCacheMetrics, ResponseCache, size_bytes
from tableside.serving.policy import Policy
from tableside.serving.servable import Prediction, Servable
from tests.fakes import HereOffload, RecordingBatchMetrics, RecordingCacheMetrics, SumRuntime, numbers, sum_contract

ON = CacheConfig(1 << 20)
INLINE = BatchPolicy(shares_calls=False, inline_below_s=1.0)
AB = numbers("a", "b")
TEXTS = Input("frame", (Column("s", "BYTES", "object"), Column("t", "BYTES", "object")))


class BitsRuntime(SumRuntime):
    """A runtime whose answers tell inputs apart: the bits of each row's first cell, and the number of rows."""

    def run(self, method: str, data: Any) -> Any:
        super().run(method, data)
        table = np.ascontiguousarray(data, dtype=np.float64)
        bits = table[:, :1].copy().view(np.int64)
        return np.column_stack([bits, np.full(len(bits), len(bits))]) if method == "transform" else bits[:, 0]


class HeldRuntime(SumRuntime):
    """A SumRuntime that waits in each call until `go` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()

    def run(self, method: str, data: Any) -> Any:
        assert self.go.wait(30)
        return super().run(method, data)


def matrix(*rows: Any, schema: Input = AB) -> Table:
    array = np.array(rows, dtype=np.float64)
    return Table(schema, len(array), None, array)


def columns(schema: Input = AB, **cells: Any) -> Table:
    found = {name: np.array(cells[name], dtype=object if c.dtype == "object" else c.dtype) for name, c in
             zip(cells, schema.columns, strict=True)}  # fmt: skip
    return Table(schema, len(next(iter(found.values()))), found)


def served(
    rules: CacheConfig = ON, runtime: Any = None, version: int = 1
) -> tuple[Servable, Any, RecordingCacheMetrics]:
    servable, meter = Servable("sums", version, sum_contract(version=version)), RecordingCacheMetrics()
    runtime = runtime or SumRuntime()
    servable.ready(runtime, 0.0)
    servable.adopt(Policy(batching=INLINE, cache_bytes=rules.max_bytes))
    servable.renew_cache(lambda: meter)
    return servable, runtime, meter


def ask(servable: Servable, table: Table, *outputs: str) -> Prediction:
    return servable.predict(table, servable.outputs(outputs), HereOffload(), RequestLimits(time.monotonic() + 30))


def key(table: Table, *names: str) -> bytes:
    found = digest_of(table, names or ("predict",), MAX_TABLE_BYTES)
    assert found is not None
    return found


def test_it_is_off_by_default() -> None:
    """Without `[cache]` in model.toml there is no cache, and the runtime computes every request."""
    servable, runtime, meter = served(CacheConfig())
    for _ in range(3):
        assert not ask(servable, matrix([1, 2])).cached
    assert servable.cache is None
    assert (len(runtime.seen), meter.looks) == (3, [])


def test_the_same_request_is_answered_once() -> None:
    """The second answer equals the first in every bit, and the runtime is not called again."""
    servable, runtime, meter = served()
    first = ask(servable, matrix([1, 2], [3, 4]))
    again = ask(servable, matrix([1, 2], [3, 4]))
    assert (first.cached, again.cached, again.queue_s) == (False, True, 0.0)
    assert len(runtime.seen) == 1
    np.testing.assert_array_equal(again.arrays["predict"], first.arrays["predict"], strict=True)
    assert meter.looks == [False, True]
    assert servable.cache is not None
    assert meter.bytes == servable.cache.size_bytes > 0


def test_rows_of_columns_and_a_matrix_share_answers() -> None:
    """Rows and columns of the same numbers have the same key where the estimator takes one array of doubles."""
    assert key(matrix([1, 2], [3, 4])) == key(columns(a=[1, 3], b=[2, 4]))
    fortran = Table(AB, 2, None, np.asfortranarray([[1.0, 2.0], [3.0, 4.0]]))
    assert key(fortran) == key(matrix([1, 2], [3, 4]))


def test_another_layout_of_a_frame_is_another_key() -> None:
    """The memory layout of a frame is in the key, because BLAS may add up another layout in another order."""
    frame = numbers("a", "b", form="frame")
    array = np.array([[1.0, 2.0], [3.0, 4.0]])
    tables = [Table(frame, 2, None, array), Table(frame, 2, None, np.asfortranarray(array)),
              columns(frame, a=[1, 3], b=[2, 4])]  # fmt: skip
    assert len({key(table) for table in tables}) == 3


NAN = np.array([0x7FF8000000000000, 0x7FF8000000000001], dtype=np.uint64).view(np.float64)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (matrix([0.0, 1.0]), matrix([-0.0, 1.0])),
        (matrix([NAN[0], 1.0]), matrix([NAN[1], 1.0])),
        (matrix([1, 2], [3, 4]), matrix([3, 4], [1, 2])),
        (matrix([1, 2], [3, 4]), matrix([1, 3], [2, 4])),
        (matrix([1, 2], [3, 4]), matrix([1, 2, 3, 4])),
        (matrix([1, 2]), Table(AB, 1, None, np.array([[1.0, 2.0]], dtype=np.float32))),
        (columns(TEXTS, s=["ab"], t=["c"]), columns(TEXTS, s=["a"], t=["bc"])),
        (columns(TEXTS, s=["a", "bc"], t=["", ""]), columns(TEXTS, s=["ab", "c"], t=["", ""])),
        (columns(TEXTS, s=["a\0"], t=["b"]), columns(TEXTS, s=["a"], t=["\0b"])),
        (columns(TEXTS, s=[None], t=["a"]), columns(TEXTS, s=["None"], t=["a"])),
        (columns(TEXTS, s=[None], t=["a"]), columns(TEXTS, s=[float("nan")], t=["a"])),
        (columns(TEXTS, s=[1], t=["a"]), columns(TEXTS, s=[1.0], t=["a"])),
        (columns(TEXTS, s=[1], t=["a"]), columns(TEXTS, s=[True], t=["a"])),
        (columns(TEXTS, s=["1"], t=["a"]), columns(TEXTS, s=[1], t=["a"])),
    ],
)
def test_tables_that_look_alike_are_told_apart(one: Table, other: Table) -> None:
    """Signed zeros, kinds of NaN, order, shape, dtype, ends of texts and kinds of missing values are in the key."""
    assert key(one) != key(other)
    assert key(one) == key(one.take(0, one.rows))


def test_a_missing_value_in_a_column_of_integers_is_told_apart() -> None:
    """A column of integers with a missing cell becomes doubles, and has another key than one without."""
    schema = Input("frame", (Column("i", "INT64", "int64", nullable=True),))
    whole = Table(schema, 2, {"i": np.array([1, 2])})
    wide = Table(schema, 2, {"i": np.array([1.0, 2.0])})
    is_missing = Table(schema, 2, {"i": np.array([1.0, np.nan])})
    assert len({key(whole), key(wide), key(is_missing)}) == 3


def test_outputs_are_in_the_key() -> None:
    """Each combination of outputs has its own key, and names cannot run together."""
    servable, runtime, _ = served()
    for wanted in (["predict"], ["transform"], ["predict", "transform"]):
        assert not ask(servable, matrix([1, 2]), *wanted).cached
        assert list(ask(servable, matrix([1, 2]), *wanted).arrays) == wanted
    assert len(runtime.seen) == 4
    assert key(matrix([1, 2]), "ab", "c") != key(matrix([1, 2]), "a", "bc")


def test_what_a_contract_does_not_know_is_not_looked_up() -> None:
    """A table with half a surrogate pair, an integer past 64 bits or an object of another type has no key."""
    for cell in ("\ud800", 2**64, b"a", np.str_("a")):
        assert digest_of(columns(TEXTS, s=[cell], t=["a"]), ["predict"], MAX_TABLE_BYTES) is None


def test_a_large_table_is_not_looked_up() -> None:
    """A table past MAX_TABLE_BYTES has no key, whether numbers, cells of text or one long text make it large."""
    small = np.zeros((MAX_TABLE_BYTES // 16, 2))
    assert digest_of(Table(AB, len(small), None, small), ["predict"], MAX_TABLE_BYTES) is not None
    large = np.zeros((MAX_TABLE_BYTES // 16 + 1, 2))
    assert digest_of(Table(AB, len(large), None, large), ["predict"], MAX_TABLE_BYTES) is None
    for texts in (["a"] * 5000, ["a" * (MAX_TABLE_BYTES // 2)]):
        assert digest_of(columns(TEXTS, s=texts, t=texts), ["predict"], MAX_TABLE_BYTES) is None
    servable, _, meter = served()
    for _ in range(2):
        ask(servable, Table(AB, len(large), None, large))
    assert meter.looks == [False, False]


def test_what_was_kept_cannot_be_changed() -> None:
    """Changing the first answer does not change the kept one, and later answers are read-only."""
    servable, _, _ = served()
    ask(servable, matrix([1, 2])).arrays["predict"][:] = 99
    again = ask(servable, matrix([1, 2])).arrays["predict"]
    np.testing.assert_array_equal(again, [3.0])
    with pytest.raises(ValueError, match="read-only"):
        again[:] = 99


def test_a_part_of_a_batch_does_not_hold_the_batch() -> None:
    """The kept array is a copy of its rows, and does not keep the arrays of a whole batch in memory."""
    cache, batch = ResponseCache(1 << 16, NoCacheMetrics()), np.zeros(1000)
    cache.keep(b"k", {"predict": batch[3:4]})
    found = cache.find(b"k")
    assert found is not None
    assert found["predict"].base is None


def test_another_version_starts_empty() -> None:
    """Each servable has its own cache."""
    one, _, _ = served()
    other, _, _ = served(version=2, runtime=BitsRuntime())
    ask(one, matrix([1, 2]))
    assert not ask(other, matrix([1, 2])).cached


def test_the_bound_holds_and_the_oldest_goes_first() -> None:
    """The size never exceeds the limit, and the least recently used answers go first."""
    meter = RecordingCacheMetrics()
    cache = ResponseCache(1 << 16, meter)
    cache.keep(b"used", {"predict": np.zeros(4)})
    for at in range(500):
        cache.keep(b"%d" % at, {"predict": np.zeros(at % 40)})
        assert meter.bytes == cache.size_bytes <= 1 << 16
        assert cache.find(b"used") is not None
    assert cache.find(b"0") is None
    assert cache.find(b"499") is not None


def test_an_answer_past_its_share_is_not_kept() -> None:
    """An answer that takes 1/8 of the limit or more is not kept."""
    cache = ResponseCache(1 << 16, NoCacheMetrics())
    cache.keep(b"k", {"predict": np.zeros((1 << 16) // LARGEST_SHARE // 8)})
    assert cache.size_bytes == 0


def test_text_in_an_answer_counts() -> None:
    """The size of an array of objects includes the objects."""
    texts = np.array(["x" * 1000] * 3, dtype=object)
    assert size_bytes({"predict": texts}) > 3000


@pytest.mark.parametrize("outputs", [1, 3])
def test_the_overhead_is_honest(outputs: int) -> None:
    """A full cache of small answers allocates at most its limit, and more than 70 % of it."""
    bound, answers = 4 << 20, {f"output_{at}": np.zeros(1) for at in range(outputs)}
    cache = ResponseCache(bound, NoCacheMetrics())
    gc.collect()
    tracemalloc.start()
    try:
        for at in range(10_000):
            cache.keep(at.to_bytes(32, "big"), answers)
        gc.collect()
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert cache.size_bytes > bound * 0.99
    assert bound * 0.7 < taken < bound


def test_a_hit_needs_no_room() -> None:
    """While the queue is full a cached answer is returned, and a new request is refused."""
    servable, runtime, _ = served(runtime=HeldRuntime())
    runtime.go.set()
    ask(servable, matrix([1, 2]))
    runtime.go.clear()
    meter = RecordingBatchMetrics()
    servable.adopt(Policy(batching=BatchPolicy(1, 1, 1, shares_calls=False), cache_bytes=ON.max_bytes))
    servable.count(meter)

    def ask_new(cell: float) -> Prediction:
        return ask(servable, matrix([cell, 0.0]))

    others = [threading.Thread(target=ask_new, args=(cell,)) for cell in (5.0, 6.0)]
    for at, thread in enumerate(others):
        thread.start()
        while len(meter.waited) < 2 + at:  # the first is taken from the queue, the second stays there
            time.sleep(0.001)
    try:
        servable.check_room(RequestLimits(time.monotonic() + 30))
        assert ask(servable, matrix([1, 2])).cached
        with pytest.raises(Overloaded):
            ask_new(7.0)
    finally:
        runtime.go.set()
        for thread in others:
            thread.join(30)


def test_unloading_forgets() -> None:
    """After `unload` the memory of the cache is free. A request that has found the version before is computed."""
    servable, _, meter = served()
    ask(servable, matrix([1, 2]))
    servable.unload()
    assert (servable.cache, meter.bytes) == (None, 0)
    assert not ask(servable, matrix([1, 2])).cached


def test_a_renewal_forgets_only_where_something_changed() -> None:
    """An unchanged policy keeps the answers, a new size starts an empty cache, and 0 removes it."""
    servable, _, meter = served()
    ask(servable, matrix([1, 2]))
    servable.renew_cache()
    assert ask(servable, matrix([1, 2])).cached
    servable.adopt(Policy(cache_bytes=1 << 21))
    servable.renew_cache()
    assert meter.bytes == 0
    assert not ask(servable, matrix([1, 2])).cached
    servable.adopt(Policy())
    servable.renew_cache()
    assert (servable.cache, meter.bytes) == (None, 0)


def test_a_call_that_began_before_leaves_nothing_behind() -> None:
    """An answer that was being computed while the cache was renewed is returned and not kept."""
    servable, _, meter = served()

    class Renewing(SumRuntime):
        def run(self, method: str, data: Any) -> Any:
            servable.adopt(Policy(cache_bytes=1 << 22))
            servable.renew_cache()
            return super().run(method, data)

    servable.runtime = Renewing()
    np.testing.assert_array_equal(ask(servable, matrix([1, 2])).arrays["predict"], [3.0])
    assert servable.cache is not None
    assert (servable.cache.size_bytes, meter.bytes) == (0, 0)


def test_many_at_once_get_their_own_answers() -> None:
    """Threads (or greenlets) that send the same few rows at once get the answers to their own rows."""
    servable, _, meter = served(CacheConfig(1 << 16))
    wrong: list[Any] = []

    def caller(seed: int) -> None:
        chance = np.random.default_rng(seed)
        for _ in range(150):
            row = chance.integers(0, 120, 2).astype(float)
            if ask(servable, matrix(row)).arrays["predict"][0] != row.sum():
                wrong.append(row)
            time.sleep(0)

    threads = [threading.Thread(target=caller, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []
    assert servable.cache is not None
    assert meter.bytes == servable.cache.size_bytes <= 1 << 16


CELL = st.sampled_from([0.0, -0.0, 1.0, float(NAN[0]), float(NAN[1]), float("inf")])
REQUEST = st.tuples(
    st.lists(st.tuples(CELL, CELL), min_size=1, max_size=3), st.sampled_from([(), ("transform",), ("predict",)])
)


@given(requests=st.lists(REQUEST, max_size=30))
def test_with_a_cache_answers_are_the_same(requests: list[Any]) -> None:
    """For any sequence of requests, the answers with a cache equal those without in every bit."""
    cached, _, _ = served(CacheConfig(1 << 16), BitsRuntime())
    plain, _, _ = served(CacheConfig(), BitsRuntime())
    for rows, wanted in requests:
        one, other = (ask(servable, matrix(*rows), *wanted).arrays for servable in (cached, plain))
        assert list(one) == list(other)
        for name, array in one.items():
            np.testing.assert_array_equal(array, other[name], strict=True)


@pytest.mark.parametrize("value", ["-1", "1", "65535", str(2**41), '"64 MB"', "1.5", "true"])
def test_a_bad_size_is_named(tmp_path: Path, value: str) -> None:
    """The error for a wrong `max_bytes` names the file and the field."""
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "model.toml").write_text(f"[cache]\nmax_bytes = {value}\n")
    with pytest.raises(ContractBroken, match=r"^m/model.toml: .*\$\.cache") as broken:
        model_toml.read(tmp_path, "m")
    assert "max_bytes" in str(broken.value)


def test_a_good_size_is_read(tmp_path: Path) -> None:
    """A file without `max_bytes` means 0; underscores in a number are allowed by TOML."""
    (tmp_path / "m").mkdir()
    file = tmp_path / "m" / "model.toml"
    for text, expected in (("", 0), ("[cache]\n", 0), ("[cache]\nmax_bytes = 64_000_000\n", 64_000_000)):
        file.write_text(text)
        assert model_toml.read(tmp_path, "m").cache.max_bytes == expected


def test_outputs_of_one_name_are_one_key() -> None:
    """The key depends on the names of the outputs and on no other field of theirs."""
    cache = ResponseCache(1 << 16, NoCacheMetrics())
    assert cache.key(matrix([1, 2]), [Output("predict", "FP64", 1, True)]) == key(matrix([1, 2]))


def test_a_cached_answer_has_no_queue_time() -> None:
    """A hit reports 0 s in the queue and the seconds of the look-up."""
    servable, _, _ = served()
    ask(servable, matrix([1, 2]))
    hit = ask(servable, matrix([1, 2]))
    assert (hit.cached, hit.queue_s) == (True, 0.0)
    assert hit.predict_s >= 0.0


def test_a_closed_cache_keeps_nothing() -> None:
    """After `close` the cache is empty, and `keep` does nothing."""
    meter = RecordingCacheMetrics()
    cache = ResponseCache(1 << 16, meter)
    cache.keep(b"k", {"predict": np.zeros(2)})
    assert meter.bytes == cache.size_bytes > 0
    cache.close()
    cache.keep(b"k", {"predict": np.zeros(2)})
    assert (cache.find(b"k"), cache.size_bytes, meter.bytes) == (None, 0, 0)


def test_a_table_without_a_key_is_a_miss() -> None:
    """The key None is counted as a miss, and nothing is kept under it."""
    meter = RecordingCacheMetrics()
    cache = ResponseCache(1 << 16, meter)
    cache.keep(None, {"predict": np.zeros(2)})
    assert cache.find(None) is None
    assert (meter.looks, cache.size_bytes) == ([False], 0)


def test_a_new_answer_replaces_the_old_one() -> None:
    """Keeping another answer under the same key changes the size by the difference."""
    meter = RecordingCacheMetrics()
    cache = ResponseCache(1 << 16, meter)
    cache.keep(b"k", {"predict": np.zeros(8)})
    cache.keep(b"k", {"predict": np.ones(2)})
    found = cache.find(b"k")
    assert found is not None
    assert found["predict"].tolist() == [1.0, 1.0]
    assert meter.bytes == cache.size_bytes == size_bytes({"predict": np.ones(2)})


def test_an_error_is_not_cached() -> None:
    """A request that fails is computed again the next time."""

    class FailsOnce(SumRuntime):
        def run(self, method: str, data: Any) -> Any:
            answer = super().run(method, data)
            if len(self.seen) == 1:
                raise ValueError("the first call")
            return answer

    servable, runtime, _ = served(runtime=FailsOnce())
    with pytest.raises(RequestRejected):
        ask(servable, matrix([1, 2]))
    assert ask(servable, matrix([1, 2])).arrays["predict"].tolist() == [3.0]
    assert ask(servable, matrix([1, 2])).cached
    assert len(runtime.seen) == 2
