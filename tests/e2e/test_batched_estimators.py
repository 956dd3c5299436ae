"""A request that shares a batch with others gets the answer it would have got alone, for every estimator."""

from __future__ import annotations

import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import numpy as np
import pytest

from tableside.batching.limits import RequestLimits
from tableside.contracts import answers, tolerances
from tableside.contracts.schema import Contract
from tableside.contracts.table import Table
from tableside.decoding.json_tables import from_rows
from tableside.errors import PublishFailed
from tableside.process.offload import ThreadOffload
from tableside.publishing import sample
from tableside.publishing.contract_learning import learn_contract
from tableside.repository.model_toml import ModelConfig
from tableside.runtimes.sklearn import SklearnRuntime
from tableside.serving.policy import make_policy
from tableside.serving.servable import Servable
from tableside.settings import Predict, Settings
from tests import estimator_zoo

pytestmark = pytest.mark.e2e


class Watched(SklearnRuntime):
    """Remembers the number of rows of each call. Each call is slow, so that other requests arrive meanwhile."""

    def __init__(self, estimator: Any) -> None:
        super().__init__(estimator)
        self.sizes: list[int] = []

    def run(self, method: str, data: Any) -> Any:
        self.sizes.append(len(data))
        time.sleep(0.002)
        return super().run(method, data)


def cases() -> Iterator[estimator_zoo.Case]:
    for _, case in estimator_zoo.plain_cases():
        if isinstance(case, estimator_zoo.Case):
            yield case
    yield from estimator_zoo.composed_cases()


def predict_at_once(servable: Servable, tables: list[Table], offload: ThreadOffload) -> list[Any]:
    """Return the answers of every output for each table. All tables are sent at the same time."""
    assert servable.contract is not None
    outputs = servable.contract.outputs
    gate = threading.Barrier(len(tables))

    def ask(table: Table) -> Any:
        gate.wait(60)
        return servable.predict(table, outputs, offload, RequestLimits(time.monotonic() + 60)).arrays

    with ThreadPoolExecutor(len(tables)) as pool:
        return list(pool.map(ask, tables))


def largest_difference(contract: Contract, answers_: Any, expected: Any) -> float:
    assert list(answers_) == list(expected)
    return max(
        tolerances.ulp_difference(answers_[name], expected[name], tolerances.scale(contract.golden.answers[name]))
        for name in expected
    )


@pytest.mark.timeout(600)
def test_every_estimator_answers_in_a_crowd_as_alone(record_property: Callable[[str, object], None]) -> None:
    """Answers in a batch are bit for bit equal for `exact` and within the bound for `ulp`; `none` is never batched."""
    kinds: Counter[str] = Counter()
    dependent, offload, shared = [], ThreadOffload(2), 0
    chance = np.random.default_rng(1)
    for case in cases():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                frame = sample.as_frame(case.rows, None)
                contract = learn_contract(case.name, SklearnRuntime(case.estimator), frame)
            except PublishFailed:
                continue
            kinds[contract.batch_invariance or ""] += 1
            dependent += [case.name] if contract.batch_invariance == "none" else []
            runtime, alone = Watched(case.estimator), SklearnRuntime(case.estimator)
            servable = Servable(case.name, 1, contract)
            servable.ready(runtime, 0.0)
            servable.adopt(make_policy(ModelConfig(), contract, Settings(predict=Predict(inline_below_ms=0.0))))
            rows = [list(row) for row in contract.golden.rows]
            picks = [chance.integers(0, len(rows), chance.integers(1, 7)) for _ in range(12)]
            tables = [from_rows([rows[at] for at in pick], contract.input) for pick in picks]
            for table, got in zip(tables, predict_at_once(servable, tables, offload), strict=True):
                expected = answers.collect(contract.outputs, alone.run, table.to_input())
                off = largest_difference(contract, got, expected)
                assert off <= (contract.batch_tolerance_ulp if contract.batch_invariance == "ulp" else 0.0), (
                    case.name,
                    contract.batch_invariance,
                    off,
                )
            largest = max(len(table.to_input()) for table in tables)
            shared += max(runtime.sizes) > largest
            if contract.batch_invariance == "none":
                assert max(runtime.sizes) <= largest, case.name
    record_property("said", f"{dict(kinds)}; {shared} shared calls; dependent: {', '.join(dependent)}")
    assert sum(kinds.values()) > 200
    assert kinds["exact"] > kinds["none"]
    assert shared > 0.8 * (kinds["exact"] + kinds["ulp"])


def test_the_contract_says_what_was_measured() -> None:
    """A contract holds batch_invariance; a contract without the field is read as not measured."""
    frame, label = estimator_zoo._mixed()
    contract = learn_contract("m", SklearnRuntime(next(iter(estimator_zoo._tables())).estimator), frame)
    text = msgspec.json.encode(contract)
    assert b'"batch_invariance":"' in text
    old = msgspec.json.decode(text)
    del old["batch_invariance"]
    assert msgspec.convert(old, Contract).batch_invariance is None
    assert len(label) == len(frame)
