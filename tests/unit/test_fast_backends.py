"""Fast backends: the estimator's own answers to the bit, or the estimator itself; and nothing unproved is used."""

from __future__ import annotations

import time
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tableside.batching.limits import RequestLimits
from tableside.contracts.schema import Column, Input, Route
from tableside.decoding.json_tables import from_matrix, from_rows
from tableside.errors import FailureKind
from tableside.preflight.checks import check_version
from tableside.publishing import equivalence, missing_cells, outputs, sample, sample_files, sample_rows
from tableside.publishing.publish import publish
from tableside.runtimes.fast.backend import BACKENDS, FastRuntime, build
from tableside.runtimes.fast.numerics import EstimatorRequired, Unsupported, check_finite
from tableside.runtimes.fast.trees import as_cells
from tableside.runtimes.router import RoutedRuntime, allowed_difference, build_router, difference
from tableside.runtimes.sklearn import SklearnRuntime
from tableside.serving import verification
from tableside.serving.model_metrics import count_from_zero
from tableside.serving.policy import Policy
from tableside.serving.servable import Servable
from tableside.settings import Repository
from tableside.telemetry import metrics
from tests import estimator_zoo
from tests.fakes import HereOffload

pytestmark = pytest.mark.no_greenlets

SIZES = (1, 7, 40)


@cache
def cases() -> dict[str, estimator_zoo.Case]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain = [case for _, case in estimator_zoo.plain_cases() if isinstance(case, estimator_zoo.Case)]
        return {case.name: case for case in [*plain, *estimator_zoo.composed_cases()]}


def described(case: estimator_zoo.Case) -> tuple[Any, Input]:
    frame, form = sample.align(sample.as_frame(case.rows, None), case.estimator)
    fitted = sample.fitted_categories(case.estimator)
    known = sample_files.by_text(sample_files.known_columns(case.estimator, list(frame.columns)))
    return frame, sample.describe(missing_cells.as_fitted(frame, known), form, fitted)


def ways_of(case: estimator_zoo.Case) -> list[tuple[str, FastRuntime, Input, Any]]:
    frame, schema = described(case)
    found = []
    for backend in BACKENDS:
        try:
            found.append((backend, build(SklearnRuntime(case.estimator), schema, backend), schema, frame))
        except Unsupported:
            continue
    return found


@pytest.mark.slow
@pytest.mark.every_blas
def test_every_backend_over_the_zoo_is_equal_to_the_bit() -> None:
    """Wherever a backend is known, for one row and for many, all its methods answer as the estimator does."""
    tried = 0
    for name, case in cases().items():
        if name in estimator_zoo.NOT_SERVED:
            continue
        try:
            found = ways_of(case)
        except Exception:
            continue
        for backend, direct, schema, frame in found:
            rows = sample_rows.rows_as_cells(frame.iloc[: SIZES[-1]], schema)
            for size in SIZES:
                table = from_rows(rows[:size], schema)
                for method in direct.methods:
                    own = SklearnRuntime(case.estimator).run(method, table.to_input())
                    assert difference(own, direct.methods[method](table)) == 0, (name, backend, method, size)  # type: ignore[arg-type]
            tried += 1
    assert tried >= 60


@cache
def cancer() -> tuple[Any, Any]:
    data = load_breast_cancer()
    return data.data, data.target


FITTED = {
    "linear": lambda X, y: make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(X, y),
    "forest": lambda X, y: RandomForestClassifier(12, random_state=0).fit(X, y),
    "boosting": lambda X, y: HistGradientBoostingClassifier(max_iter=12, random_state=0).fit(X, y),
}


def unproved(name: str) -> tuple[SklearnRuntime, Input, Any]:
    table, target = cancer()
    case = estimator_zoo.Case(name, FITTED[name](table, target), table)
    frame, schema = described(case)
    return SklearnRuntime(case.estimator), schema, frame


def proved(name: str) -> tuple[SklearnRuntime, Input, Any, equivalence.EquivalenceReport]:
    original, schema, frame = unproved(name)
    found, _ = outputs.find(original, cancer()[0][:50])
    return original, schema, frame, equivalence.check_backends(original, schema, found, frame)


@pytest.mark.parametrize(
    ("name", "possible"),
    [("linear", {"linear"}), ("forest", {"tree_walk", "sklearn_trees"}), ("boosting", {"tree_walk", "sklearn_trees"})],
)
def test_an_equal_backend_is_used(name: str, possible: set[str]) -> None:
    """Compared on more than ten thousand rows, equal to the bit, and many times faster for one row."""
    _, _, _, found = proved(name)
    checks = {each.backend: each for each in found.equivalence_checks}
    used = {backend for backend, each in checks.items() if each.outcome == "used"}
    assert used
    assert used <= possible | {"treelite"}
    for backend in possible:
        assert checks[backend].rows >= 10_000
        assert checks[backend].largest_difference == 0
    assert max(checks[backend].speed_up["1"] for backend in used) > 1.5
    assert [backend.up_to_rows for backend in found.routes][-1] == 0
    assert {each.backend for each in found.equivalence_checks} == set(equivalence.ALL_BACKENDS)


class Rounding(FastRuntime):
    """Computes in single precision, as a converted model would."""

    def __init__(self, original: SklearnRuntime) -> None:
        super().__init__(original, {"predict": self._predict})

    def _predict(self, table: Any) -> Any:
        model = self.original.estimator
        narrow = table.to_input().astype(np.float32) @ model.coef_.astype(np.float32)
        return (narrow + np.float32(model.intercept_)).astype(np.float64)


@pytest.mark.parametrize("tolerance", [0.0, 1e-6])
def test_single_precision_over_large_numbers_is_rejected(monkeypatch: pytest.MonkeyPatch, tolerance: float) -> None:
    """Seconds since 1970 in float32 are minutes apart: such a backend is refused, also where 1e-6 would be allowed."""
    seconds = np.linspace(1.7e9, 1.7e9 + 86400, 200)
    frame = pd.DataFrame({"when": seconds, "id": np.arange(200) + 123456789.0})
    fitted = LinearRegression().fit(frame.to_numpy(), (seconds - 1.7e9) / 60)
    original = SklearnRuntime(fitted)
    schema = Input("matrix", tuple(Column(name, "FP64", "float64") for name in frame.columns))
    found, _ = outputs.find(original, frame.to_numpy())
    monkeypatch.setattr(equivalence, "build", lambda original, schema, backend, order: Rounding(original))
    result = equivalence.check_backends(original, schema, found, frame, tolerance)
    rounding = [
        each for each in result.equivalence_checks if each.backend != "onnx"
    ]  # that one computes in double precision
    assert not {backend.backend for backend in result.routes} - {"onnx"}
    assert {each.outcome for each in rounding} == {"differs"}
    assert all("differs by" in each.reason for each in rounding)


def test_an_unusual_row_is_the_estimators_own_matter() -> None:
    """What it refuses is refused in its words; nothing is answered that it would not answer."""
    original, schema, _, found = proved("linear")
    planned = RoutedRuntime(original, [(0, build(original, schema, found.routes[0].backend))])
    table = from_matrix(np.full((2, 30), np.inf), schema)
    with pytest.raises(ValueError, match="infinity"):
        planned.run("predict", planned.prepare(table))


def test_ranges_wishes_and_retirement() -> None:
    """By rows; not at all where the operator says so; never again once retired."""
    original, schema, _, _ = proved("forest")
    walk, ask = build(original, schema, "tree_walk"), build(original, schema, "sklearn_trees")
    planned = RoutedRuntime(original, [(8, walk), (256, ask), (0, None)])
    assert [planned.pick(rows) for rows in (1, 8, 9, 256, 257)] == [walk, walk, ask, ask, None]
    planned.wanted = False
    assert planned.pick(1) is None
    planned.wanted = True
    assert planned.is_fast
    planned.retire()
    assert planned.pick(1) is None
    assert not planned.is_fast
    planned.wanted = True
    assert not planned.is_fast


@pytest.mark.parametrize(
    ("cells", "finite", "single"),
    [
        ([1.0, -2.0], True, True), ([0.0, -0.0], True, True), ([1e30, 3e38], True, True), ([1e30, -1e39], True, False),
        ([1e300, -1e300], True, False), ([np.nan, 1.0], False, False), ([np.inf, 1.0], False, False),
        ([np.inf, -np.inf], False, False),
    ],
)  # fmt: skip
def test_cells_that_are_no_numbers_are_seen(cells: list[float], finite: bool, single: bool) -> None:
    """Every cell that is no number, and for trees every one that float32 does not hold; no number is taken for one.

    Nothing warns: what warned here would warn of rows that scikit-learn answers or refuses without a word.
    """
    for order in ("C", "F"):
        matrix = np.array([cells, [0.5, 0.25]], order=order)  # type: ignore[call-overload]
        for known, check in ((finite, check_finite), (single, lambda matrix: as_cells(matrix, has_missing=False))):
            if known:
                assert np.array_equal(check(matrix), matrix.astype(check(matrix).dtype))
            else:
                with pytest.raises(EstimatorRequired):
                    check(matrix)


def servable(direct: dict[str, Any] | None = None) -> tuple[Servable, RoutedRuntime, Input]:
    original, schema, frame, found = proved("linear")
    runtime = build(original, schema, "linear")
    if direct is not None:
        runtime = FastRuntime(original, direct)
    contract = msgspec.structs.replace(_contract(schema, original, frame), equivalence_checks=found.equivalence_checks)
    one = Servable("m", 1, contract)
    planned = RoutedRuntime(original, [(0, runtime)])
    one.ready(planned, 0.0)
    return one, planned, schema


def _contract(schema: Input, original: SklearnRuntime, frame: Any) -> Any:
    from tests.fakes import sum_contract

    found, _ = outputs.find(original, frame.to_numpy()[:50])
    return msgspec.structs.replace(sum_contract(schema, name="m"), outputs=found)


def test_the_count_of_differences_begins_at_0() -> None:
    """It is there before the first difference, for a version with a fast backend: an alert asks for its increase."""
    one, _, _ = servable(None)
    counters = metrics.make()
    count_from_zero(counters, one)
    labels = {"model": "m", "version": "1", "result": "differed"}
    assert counters.registry.get_sample_value("tableside_verifications_total", labels) == 0.0


@pytest.mark.parametrize("wrong", [False, True])
def test_a_share_of_the_answers_is_asked_again(wrong: bool) -> None:
    """Every third here: agreement is counted; a difference retires the backend, and says so."""
    lies = {"predict": lambda table: np.ones(table.rows, dtype=int) * 7}
    one, planned, schema = servable(lies if wrong else None)
    assert one.contract is not None
    counters, outs = metrics.make(), one.contract.outputs[:1]
    table = from_matrix(cancer()[0][:4], schema)
    started = []
    for _ in range(7):
        said = {outs[0].name: planned.run("predict", table)}
        started.append(verification.maybe_verify(one, table, outs, said, 3, HereOffload(), counters))  # type: ignore[arg-type]
        if started[-1] is not None:
            started[-1].join(10)
    assert sum(each is not None for each in started) == (1 if wrong else 2)
    assert planned.is_fast is not wrong
    result = "differed" if wrong else "agreed"
    assert counters.verifications.labels("m", "1", result)._value.get() == (1 if wrong else 2)
    assert (one.failure_kind is FailureKind.OTHER and "out of service" in one.reason) is wrong


def test_what_a_retired_backend_answered_is_forgotten() -> None:
    """Answers that a backend gave before it was found wrong are not given again."""
    one, planned, schema = servable({"predict": lambda table: np.ones(table.rows, dtype=int) * 7})
    one.adopt(Policy(cache_bytes=1 << 20))
    one.renew_cache()
    assert one.contract is not None
    counters, outs = metrics.make(), one.contract.outputs[:1]
    table = from_matrix(cancer()[0][:4], schema)
    limits = RequestLimits(time.monotonic() + 30)

    def ask() -> Any:
        return one.predict(table, outs, HereOffload(), limits)  # type: ignore[arg-type]

    assert ask().arrays["predict"].tolist() == ask().arrays["predict"].tolist() == [7, 7, 7, 7]
    thread = verification.maybe_verify(one, table, outs, ask().arrays, 1, HereOffload(), counters)  # type: ignore[arg-type]
    assert thread is not None
    thread.join(10)
    again = ask()
    assert not again.cached
    assert again.arrays["predict"].tolist() == planned.original.run("predict", table.to_input()).tolist()


def test_publish_and_load_keep_to_what_was_proved(tmp_path: Path) -> None:
    """The contract names the routes; the server builds them again; `sklearn` never looks for any."""
    table, target = cancer()
    fitted = FITTED["linear"](table, target)
    fast = publish("m", fitted, table[:100], repository=tmp_path)
    assert fast.routes[0].backend == "linear"  # for many rows, a busy machine may time the estimator as fast
    loaded = check_version(tmp_path, "m", 1, Repository())
    assert isinstance(loaded, RoutedRuntime)
    assert allowed_difference(fast) == 0
    slow = publish("m", fitted, table[:100], repository=tmp_path, runtime="sklearn")
    assert (slow.routes, slow.equivalence_checks) == ((), ())
    assert isinstance(check_version(tmp_path, "m", 2, Repository()), SklearnRuntime)


def test_a_backend_that_differs_here_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another processor may add up otherwise: the estimator then answers alone."""
    table, target = cancer()
    publish("m", FITTED["linear"](table, target), table[:100], repository=tmp_path)
    monkeypatch.setattr("tableside.preflight.checks.difference_from_estimator", lambda *_: 1e-16)
    assert isinstance(check_version(tmp_path, "m", 1, Repository()), SklearnRuntime)


def test_a_contract_of_an_unknown_backend_loads_without_it() -> None:
    """A newer release's backend is no reason not to serve."""
    original, schema, frame, found = proved("linear")
    routes = (msgspec.structs.replace(found.routes[0], backend="teleport"),)
    with pytest.raises(Unsupported):
        build_router(original, msgspec.structs.replace(_contract(schema, original, frame), routes=routes), Path())


def test_a_backend_of_several_ranges_is_built_once() -> None:
    """Its routes may differ in what answers where its library is missing."""
    original, schema, frame = unproved("forest")
    walk, ask = Route("tree_walk"), Route("sklearn_trees")
    routes = (
        Route("sklearn_trees", 8, fallback=walk), Route("tree_walk", 16), Route("sklearn_trees", 64),
        Route("tree_walk", 0, order="F"),
    )  # fmt: skip
    contract = msgspec.structs.replace(_contract(schema, original, frame), routes=routes)
    routed = build_router(original, contract, Path())
    assert isinstance(routed, RoutedRuntime)
    assert routed.pick(1) is routed.pick(17) is not routed.pick(9)
    assert routed.pick(9) is not routed.pick(65)
    assert routed.used == {walk.backend, ask.backend}


@pytest.mark.parametrize("name", ["forest", "boosting"])
def test_a_backend_for_many_rows_answers_few_alike(name: str) -> None:
    """What is left out for calls of many rows makes fewer rows slower, and changes no bit."""
    original, schema, frame = unproved(name)
    rows = sample_rows.rows_as_cells(frame, schema)
    for least_rows in (1, 1000, 100_000):
        direct = build(original, schema, "tree_walk", least_rows=least_rows)
        for size in (1, 40, len(rows)):
            table = from_rows(rows[:size], schema)
            for method, answer in direct.methods.items():
                assert difference(original.run(method, table.to_input()), answer(table)) == 0  # type: ignore[arg-type]
