"""The response cache: never a wrong answer, never more memory than it was given, and off until model.toml says so."""

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

from tableside.batching.batcher import RequestLimits
from tableside.batching.queue import BatchPolicy
from tableside.contract.digest import digest_of
from tableside.contract.schema import Column, Input, Output
from tableside.contract.table import Table
from tableside.errors import ContractBroken, ModelNotReady, Overloaded
from tableside.repository import model_toml
from tableside.repository.model_toml import CacheConfig
from tableside.serving.cache import LARGEST_SHARE, MOST_TABLE_BYTES, NoCacheMetrics, ResponseCache, size_bytes
from tableside.serving.policy import Policy
from tableside.serving.servable import Prediction, Servable
from tests.fakes import RecordingBatchMetrics, HereOffload, SumRuntime, numbers, sum_contract

ON = CacheConfig(1 << 20)
INLINE = BatchPolicy(shares_calls=False, inline_below_s=1.0)
AB = numbers("a", "b")
TEXTS = Input("frame", (Column("s", "BYTES", "object"), Column("t", "BYTES", "object")))


class CountingCache:
    """Remembers what a cache said."""

    def __init__(self) -> None:
        self.looks: list[bool] = []
        self.bytes = 0

    def looked(self, hit: bool) -> None:
        self.looks.append(hit)

    def held(self, more_bytes: int) -> None:
        self.bytes += more_bytes


class BitsRuntime(SumRuntime):
    """Answers with what tells two inputs apart: the bits of each row's first cell, and the size of its table."""

    def run(self, method: str, data: Any) -> Any:
        super().run(method, data)
        table = np.ascontiguousarray(data, dtype=np.float64)
        bits = table[:, :1].copy().view(np.int64)
        return np.column_stack([bits, np.full(len(bits), len(bits))]) if method == "transform" else bits[:, 0]


class HeldRuntime(SumRuntime):
    """Answers when it is let go."""

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


def served(rules: CacheConfig = ON, runtime: Any = None, version: int = 1) -> tuple[Servable, Any, CountingCache]:
    servable, meter = Servable("sums", version, sum_contract(version=version)), CountingCache()
    runtime = runtime or SumRuntime()
    servable.ready(runtime, 0.0)
    servable.adopt(Policy(batching=INLINE, cache_bytes=rules.max_bytes))
    servable.renew_cache(lambda: meter)
    return servable, runtime, meter


def ask(servable: Servable, table: Table, *outputs: str) -> Prediction:
    return servable.predict(table, servable.outputs(outputs), HereOffload(), RequestLimits(time.monotonic() + 30))


def key(table: Table, *names: str) -> bytes:
    found = digest_of(table, names or ("predict",), MOST_TABLE_BYTES)
    assert found is not None
    return found


def test_it_is_off_by_default() -> None:
    """Without a word in model.toml nothing is kept: each request is asked of the estimator."""
    servable, runtime, meter = served(CacheConfig())
    for _ in range(3):
        assert not ask(servable, matrix([1, 2])).cached
    assert servable.cache is None
    assert (len(runtime.seen), meter.looks) == (3, [])


def test_the_same_request_is_answered_once() -> None:
    """The second time the answer is the first one's, to the bit, and the estimator is not asked."""
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
    """Where the estimator is given one array of doubles it is the same array, however the request spelled it."""
    assert key(matrix([1, 2], [3, 4])) == key(columns(a=[1, 3], b=[2, 4]))
    fortran = Table(AB, 2, None, np.asfortranarray([[1.0, 2.0], [3.0, 4.0]]))
    assert key(fortran) == key(matrix([1, 2], [3, 4]))


def test_another_layout_of_a_frame_is_another_key() -> None:
    """BLAS may add up another layout in another order, so a frame's answers are told apart by it."""
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
    """Signed zeros, two NaN, the order of rows, shape, dtype, where a text ends, what a missing value is: all count."""
    assert key(one) != key(other)
    assert key(one) == key(one.take(0, one.rows))


def test_a_gap_in_a_column_of_integers_is_told_apart() -> None:
    """The estimator is given doubles where a cell is missing: the other rows' numbers are not enough."""
    schema = Input("frame", (Column("i", "INT64", "int64", nullable=True),))
    whole = Table(schema, 2, {"i": np.array([1, 2])})
    wide = Table(schema, 2, {"i": np.array([1.0, 2.0])})
    is_missing = Table(schema, 2, {"i": np.array([1.0, np.nan])})
    assert len({key(whole), key(wide), key(is_missing)}) == 3


def test_outputs_are_in_the_key() -> None:
    """An answer to one output is no answer to another, nor to both; their names do not run together."""
    servable, runtime, _ = served()
    for wanted in (["predict"], ["transform"], ["predict", "transform"]):
        assert not ask(servable, matrix([1, 2]), *wanted).cached
        assert list(ask(servable, matrix([1, 2]), *wanted).arrays) == wanted
    assert len(runtime.seen) == 4
    assert key(matrix([1, 2]), "ab", "c") != key(matrix([1, 2]), "a", "bc")


def test_what_a_contract_does_not_know_is_not_looked_up() -> None:
    """Half a surrogate pair, an integer past 64 bits, an object of another type: asked of the estimator each time."""
    for cell in ("\ud800", 2**64, b"a", np.str_("a")):
        assert digest_of(columns(TEXTS, s=[cell], t=["a"]), ["predict"], MOST_TABLE_BYTES) is None


def test_a_large_table_is_not_looked_up() -> None:
    """Its digest would hold up the event loop: by numbers, by cells of text, or by one long text."""
    small = np.zeros((MOST_TABLE_BYTES // 16, 2))
    assert digest_of(Table(AB, len(small), None, small), ["predict"], MOST_TABLE_BYTES) is not None
    large = np.zeros((MOST_TABLE_BYTES // 16 + 1, 2))
    assert digest_of(Table(AB, len(large), None, large), ["predict"], MOST_TABLE_BYTES) is None
    for texts in (["a"] * 5000, ["a" * (MOST_TABLE_BYTES // 2)]):
        assert digest_of(columns(TEXTS, s=texts, t=texts), ["predict"], MOST_TABLE_BYTES) is None
    servable, _, meter = served()
    for _ in range(2):
        ask(servable, Table(AB, len(large), None, large))
    assert meter.looks == [False, False]


def test_what_was_kept_cannot_be_changed() -> None:
    """Neither the caller who has the first answer nor one who has a later one can change what others are given."""
    servable, _, _ = served()
    ask(servable, matrix([1, 2])).arrays["predict"][:] = 99
    again = ask(servable, matrix([1, 2])).arrays["predict"]
    np.testing.assert_array_equal(again, [3.0])
    with pytest.raises(ValueError, match="read-only"):
        again[:] = 99


def test_a_part_of_a_batch_does_not_hold_the_batch() -> None:
    """An answer that is a view of a large call's is kept as a copy of its own rows."""
    cache, batch = ResponseCache(1 << 16, NoCacheMetrics()), np.zeros(1000)
    cache.keep(b"k", {"predict": batch[3:4]})
    found = cache.find(b"k")
    assert found is not None
    assert found["predict"].base is None


def test_another_version_starts_empty() -> None:
    """Each servable has a cache of its own, so no answer of one is ever another's."""
    one, _, _ = served()
    other, _, _ = served(version=2, runtime=BitsRuntime())
    ask(one, matrix([1, 2]))
    assert not ask(other, matrix([1, 2])).cached


def test_the_bound_holds_and_the_oldest_goes_first() -> None:
    """However many answers come, the sum stays below; what was asked for again stays longer."""
    meter = CountingCache()
    cache = ResponseCache(1 << 16, meter)
    cache.keep(b"dear", {"predict": np.zeros(4)})
    for at in range(500):
        cache.keep(b"%d" % at, {"predict": np.zeros(at % 40)})
        assert meter.bytes == cache.size_bytes <= 1 << 16
        assert cache.find(b"dear") is not None
    assert cache.find(b"0") is None
    assert cache.find(b"499") is not None


def test_an_answer_past_its_share_is_not_kept() -> None:
    """One large answer would drive out many small ones."""
    cache = ResponseCache(1 << 16, NoCacheMetrics())
    cache.keep(b"k", {"predict": np.zeros((1 << 16) // LARGEST_SHARE // 8)})
    assert cache.size_bytes == 0


def test_text_in_an_answer_counts() -> None:
    """An array of objects holds more than its pointers."""
    texts = np.array(["x" * 1000] * 3, dtype=object)
    assert size_bytes({"predict": texts}) > 3000


@pytest.mark.parametrize("outputs", [1, 3])
def test_the_overhead_is_honest(outputs: int) -> None:
    """What Python allocates for a full cache of small answers is no more than the bound, and not much less."""
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
    """While one request runs and another fills the queue, a known answer is given at once; what is new is refused."""
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
    """The memory is free at once, and the version answers nothing, not even what it knew."""
    servable, _, meter = served()
    ask(servable, matrix([1, 2]))
    servable.unload()
    assert (servable.cache, meter.bytes) == (None, 0)
    with pytest.raises(ModelNotReady):
        ask(servable, matrix([1, 2]))


def test_a_renewal_forgets_only_where_something_changed() -> None:
    """The same words keep the answers; other ones begin an empty cache, and 0 ends it."""
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
    """An answer computed while the cache was renewed, by other backends perhaps, is given and not kept."""
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
    """Threads, or greenlets where the process is patched, that ask the same few rows at once never mix them up."""
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
    """Whatever is asked in whatever order: every answer is the one without a cache, to the bit."""
    cached, _, _ = served(CacheConfig(1 << 16), BitsRuntime())
    plain, _, _ = served(CacheConfig(), BitsRuntime())
    for rows, wanted in requests:
        one, other = (ask(servable, matrix(*rows), *wanted).arrays for servable in (cached, plain))
        assert list(one) == list(other)
        for name, array in one.items():
            np.testing.assert_array_equal(array, other[name], strict=True)


@pytest.mark.parametrize("value", ["-1", "1", "65535", str(2**41), '"64 MB"', "1.5", "true"])
def test_a_bad_size_is_named(tmp_path: Path, value: str) -> None:
    """A size that is none, or no sensible one, is refused with the file and the field."""
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "model.toml").write_text(f"[cache]\nmax_bytes = {value}\n")
    with pytest.raises(ContractBroken, match=r"^m/model.toml: .*\$\.cache") as broken:
        model_toml.read(tmp_path, "m")
    assert "max_bytes" in str(broken.value)


def test_a_good_size_is_read(tmp_path: Path) -> None:
    """0 is off, as is a file that says nothing of it; underscores are TOML's own."""
    (tmp_path / "m").mkdir()
    file = tmp_path / "m" / "model.toml"
    for text, expected in (("", 0), ("[cache]\n", 0), ("[cache]\nmax_bytes = 64_000_000\n", 64_000_000)):
        file.write_text(text)
        assert model_toml.read(tmp_path, "m").cache.max_bytes == expected


def test_outputs_of_one_name_are_one_key() -> None:
    """The cache asks an output for its name only."""
    cache = ResponseCache(1 << 16, NoCacheMetrics())
    assert cache.key(matrix([1, 2]), [Output("predict", "FP64", 1, True)]) == key(matrix([1, 2]))
