"""Shared forests: their answers equal the estimator's in every bit, or the estimator itself is used."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import ExtraTreesRegressor, GradientBoostingClassifier, RandomForestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from tableside.contracts import answers
from tableside.contracts.schema import Contract
from tableside.contracts.table import Table
from tableside.decoding.json_tables import from_matrix, from_rows
from tableside.errors import ContractBroken, FailureKind
from tableside.preflight import shared_entries
from tableside.preflight.checks import check_version
from tableside.publishing.effort import FULL
from tableside.publishing.publish import publish
from tableside.repository import integrity
from tableside.runtimes.fast import packed_trees
from tableside.runtimes.fast.numerics import Unsupported
from tableside.runtimes.lazy_estimator import LazyEstimator
from tableside.runtimes.router import RoutedRuntime, difference
from tableside.runtimes.shared_store import SharedStore
from tableside.runtimes.sklearn import SklearnRuntime
from tableside.serving import verification
from tableside.serving.catalog import EMPTY
from tableside.serving.loader import load_catalog
from tableside.serving.servable import Servable
from tableside.settings import Repository
from tableside.telemetry import metrics
from tests.conftest import publishing_with
from tests.fakes import HereOffload

POLICY = Repository(shared_memory_above_mb=1)
ROOT = Path(__file__).parents[2]
CHANCE = np.random.default_rng(5)
TABLE = CHANCE.normal(size=(3000, 6))
LABELS = CHANCE.integers(0, 3, 3000)


def forest(seed: int = 0, **more: Any) -> Any:
    return RandomForestClassifier(10, random_state=seed, max_features=1, **more).fit(TABLE, LABELS)


@pytest.fixture(scope="module")
def original() -> Any:
    return forest()


@pytest.fixture(scope="module")
def root(original: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of one forest, published once; no test writes there."""
    folder = tmp_path_factory.mktemp("models")
    with publishing_with(FULL):
        publish("forest", original, TABLE[:200], repository=folder)
    return folder


@pytest.fixture
def contract(root: Path) -> Contract:
    return integrity.read_contract(root, "forest", 1)


def load(root: Path, folder: Path, policy: Repository = POLICY) -> Any:
    return check_version(root, "forest", 1, policy, SharedStore(folder))


def answers_of(runtime: Any, contract: Contract, table: Any) -> dict[str, Any]:
    return dict(answers.collect(contract.outputs, runtime.run, runtime.prepare(table)))


def assert_same(runtime: Any, fitted: Any, contract: Contract, table: Table) -> None:
    own = answers_of(SklearnRuntime(fitted), contract, table)
    for name, array in answers_of(runtime, contract, table).items():
        assert difference(own[name], array) == 0, name


def test_mapped_nodes_answer_to_the_bit(root: Path, original: Any, contract: Contract, tmp_path: Path) -> None:
    """From the first load on, mapped trees give the estimator's answers for any number of rows, without loading it."""
    proved = {each.backend: each for each in contract.equivalence_checks}[packed_trees.SHARED_MEMORY]
    assert (proved.outcome, proved.largest_difference) == ("equal", 0)
    assert proved.rows >= 10_000
    for _ in range(2):
        runtime = load(root, tmp_path)
        assert shared_entries.is_shared(runtime)
        for rows in (1, 33, 3000):
            assert_same(runtime, original, contract, from_matrix(TABLE[:rows] * 1.01, contract.input))
        assert not runtime.is_whole


def frame() -> tuple[pd.DataFrame, Any]:
    words = np.array(["red", "green", "blue"])[CHANCE.integers(0, 3, len(TABLE))]
    found = pd.DataFrame({"a": TABLE[:, 0], "b": TABLE[:, 1], "colour": words})
    found.loc[found.index % 7 == 0, "a"] = np.nan
    return found, LABELS


PIPELINES: dict[str, Callable[[], tuple[Any, Any]]] = {
    "scaled regressor": lambda: (
        make_pipeline(StandardScaler(), ExtraTreesRegressor(8, random_state=0)).fit(TABLE, TABLE[:, 0] + LABELS), TABLE
    ),
    "one tree": lambda: (
        DecisionTreeClassifier(random_state=0).fit(CHANCE.normal(size=(30000, 6)), CHANCE.integers(0, 2, 30000)), TABLE
    ),
    "words and missing values": lambda: (
        make_pipeline(
            ColumnTransformer([("words", OrdinalEncoder(), ["colour"])], remainder="passthrough"),
            RandomForestClassifier(30, random_state=0, max_features=1, oob_score=True),
        ).fit(*frame()),
        frame()[0],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PIPELINES)
@pytest.mark.slow
def test_other_shapes_of_forest(name: str, tmp_path: Path) -> None:
    """Regressors, single trees, pipelines and missing cells give equal answers, too."""
    fitted, rows = PIPELINES[name]()
    contract = publish("forest", fitted, rows[:300], repository=tmp_path / "models")
    runtime = load(tmp_path / "models", tmp_path / "shared_store")
    assert shared_entries.is_shared(runtime)
    cells = rows.astype(object).where(rows.notna(), None).to_numpy() if hasattr(rows, "notna") else rows
    assert_same(runtime, fitted, contract, from_rows(cells[:500].tolist(), contract.input))
    assert not runtime.is_whole


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
@pytest.mark.parametrize("cell", [np.inf, -np.inf, 1e39])
def test_input_that_the_estimator_refuses_does_not_load_it(
    root: Path, contract: Contract, tmp_path: Path, cell: float
) -> None:
    """The stub raises the estimator's own ValueError, so that bad input cannot fill a worker's memory."""
    runtime = load(root, tmp_path)
    table = from_matrix(np.full((2, 6), cell), contract.input)
    with pytest.raises(ValueError, match="infinity|too large"):
        runtime.run("predict", table)
    assert not runtime.is_whole


def test_the_estimator_is_loaded_when_only_it_can_answer(
    root: Path, original: Any, contract: Contract, tmp_path: Path
) -> None:
    """The estimator is loaded once, by however many threads, and sampled verification uses it from then on."""
    runtime = load(root, tmp_path)
    table, loads = from_matrix(TABLE[:5], contract.input), []
    entry = SharedStore(tmp_path).open(contract)
    assert entry is not None

    def load_estimator() -> SklearnRuntime:
        loads.append(1)
        return SklearnRuntime(original)

    runtime.original = LazyEstimator(entry[0], load_estimator)
    runtime.wanted = False
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(runtime.run("predict", table))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 4
    assert all((each == original.predict(TABLE[:5])).all() for each in found)
    assert loads == [1]
    assert runtime.is_whole
    runtime.wanted = True
    assert not runtime.original.is_logged
    assert verify(contract, runtime, table) == 1
    assert runtime.original.is_logged


def test_verification_leaves_the_estimator_on_disk(root: Path, contract: Contract, tmp_path: Path) -> None:
    """Sampled verification does not load an estimator that is left on disk."""
    runtime = load(root, tmp_path)
    assert verify(contract, runtime, from_matrix(TABLE[:5], contract.input)) == 0
    assert not runtime.is_whole


def verify(contract: Contract, runtime: RoutedRuntime, table: Table) -> float:
    one, counters, outputs = Servable("forest", 1, contract), metrics.make(), contract.outputs[:1]
    one.ready(runtime, 0.0)
    sent = {outputs[0].name: runtime.run("predict", table)}
    thread = verification.maybe_verify(one, table, outputs, sent, 1, HereOffload(), counters)
    if thread is not None:
        thread.join(60)
    labels = {"model": "forest", "version": "1", "result": "agreed"}
    return counters.registry.get_sample_value("tableside_verifications_total", labels) or 0.0


@pytest.mark.parametrize("file", ["records.npy", "values.npy", "starts.npy", "stub.skops", "index.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
def test_a_damaged_entry_is_noticed_and_made_again(
    root: Path, original: Any, contract: Contract, tmp_path: Path, file: str, damage: str
) -> None:
    """If a file of an entry is changed, cut or gone, the next load writes the entry again."""
    load(root, tmp_path)
    path = SharedStore(tmp_path).path(contract) / file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()
    if damage != "gone":
        path.write_bytes(content if damage == "flip" else content[: len(content) // 3])
        with pytest.raises(ContractBroken):
            SharedStore(tmp_path).open(contract)
    runtime = load(root, tmp_path)
    assert shared_entries.is_shared(runtime)
    assert_same(runtime, original, contract, from_matrix(TABLE, contract.input))
    assert SharedStore(tmp_path).open(contract) is not None


def test_an_entry_of_another_forest_is_replaced(root: Path, original: Any, contract: Contract, tmp_path: Path) -> None:
    """An undamaged entry of another forest fails the golden rows and is written again."""
    SharedStore(tmp_path).put(contract, forest(seed=1))
    assert SharedStore(tmp_path).open(contract) is not None
    runtime = load(root, tmp_path)
    assert shared_entries.is_shared(runtime)
    assert_same(runtime, original, contract, from_matrix(TABLE, contract.input))


def test_an_entry_with_wrong_values_is_not_used(
    root: Path, original: Any, contract: Contract, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An entry that is off by one unit in the last place passes the golden rows and is not used all the same."""
    pack = packed_trees.pack

    def off(fitted: Any) -> Any:
        packed = pack(fitted)
        packed.values[:] = np.nextafter(packed.values, 2)
        return packed

    monkeypatch.setattr(packed_trees, "pack", off)
    runtime = load(root, tmp_path)
    assert not shared_entries.is_shared(runtime)
    assert_same(runtime, original, contract, from_matrix(TABLE, contract.input))


def test_a_store_that_cannot_be_written_costs_only_memory(root: Path, original: Any, tmp_path: Path) -> None:
    """The version is served by the estimator, with UNSHARED as its reason."""
    (tmp_path / "file").write_text("")
    catalog = load_catalog(root, POLICY, 1, EMPTY, None, SharedStore(tmp_path / "file" / "shared_store"))
    servable = catalog.servable("forest")
    assert (servable.reason, servable.failure_kind) == (shared_entries.UNSHARED, FailureKind.NONE)
    assert not shared_entries.is_shared(servable.runtime)
    shared_now = load_catalog(root, POLICY, 2, EMPTY, None, SharedStore(tmp_path / "shared_store")).servable("forest")
    assert (shared_now.reason, shared_entries.is_shared(shared_now.runtime)) == ("", True)


def test_the_artifact_decides_also_where_the_entry_is_whole(root: Path, tmp_path: Path) -> None:
    """A damaged artifact is refused also where the entry in the store is complete."""
    shutil.copytree(root, tmp_path / "models")
    load(tmp_path / "models", tmp_path / "shared_store")
    artifact = tmp_path / "models" / "forest" / "1" / "model.skops"
    content = bytearray(artifact.read_bytes())
    content[-100] ^= 1
    artifact.unlink()
    artifact.write_bytes(content)
    with pytest.raises(ContractBroken, match="damaged"):
        load(tmp_path / "models", tmp_path / "shared_store")


@pytest.mark.parametrize("above_mb", [0, 64])
def test_small_artifacts_are_left_as_they_are(root: Path, tmp_path: Path, above_mb: int) -> None:
    """Artifacts below the limit are not shared, nor is any if the limit is 0, and no file is written."""
    runtime = load(root, tmp_path, Repository(shared_memory_above_mb=above_mb))
    assert not shared_entries.is_shared(runtime)
    assert list(tmp_path.iterdir()) == []


def test_what_was_not_proved_at_publish_is_not_shared(root: Path, contract: Contract) -> None:
    """A forest is shared only if publish found the shared-memory backend equal in every bit."""

    def with_candidate(**changes: Any) -> Contract:
        found = tuple(
            msgspec.structs.replace(c, **changes) if c.backend == packed_trees.SHARED_MEMORY else c
            for c in contract.equivalence_checks
        )
        return msgspec.structs.replace(contract, equivalence_checks=found)

    artifact = root / "forest" / "1" / "model.skops"
    assert shared_entries.should_share(contract, artifact, POLICY)
    assert not shared_entries.should_share(msgspec.structs.replace(contract, equivalence_checks=()), artifact, POLICY)
    assert not shared_entries.should_share(with_candidate(outcome="differs"), artifact, POLICY)
    assert not shared_entries.should_share(with_candidate(largest_difference=1e-16), artifact, POLICY)


def test_entries_of_versions_that_left_are_swept(root: Path, contract: Contract, tmp_path: Path) -> None:
    """Entries of removed versions and old drafts are removed; fresh drafts stay, and mapped trees still answer."""
    runtime = load(root, tmp_path)
    for name in ("f" * 32, ".fresh", ".stale"):
        (tmp_path / name).mkdir()
    os.utime(tmp_path / ".stale", (0, 0))
    SharedStore(tmp_path).sweep([contract])
    assert {entry.name for entry in tmp_path.iterdir()} == {SharedStore(tmp_path).path(contract).name, ".fresh"}
    SharedStore(tmp_path).sweep([])
    assert {entry.name for entry in tmp_path.iterdir()} == {".fresh"}
    assert len(runtime.run("predict", from_matrix(TABLE, contract.input))) == len(TABLE)


def test_a_stub_is_small_and_leaves_its_estimator_unchanged(original: Any) -> None:
    """A stub has one tree of one node, and the estimator that it was made of answers as before."""
    before = original.predict_proba(TABLE)
    stub = packed_trees.stub_of(original)
    assert [each.tree_.node_count for each in stub.estimators_] == [1]
    assert (original.predict_proba(TABLE) == before).all()
    with pytest.raises(Unsupported):
        packed_trees.stub_of(GradientBoostingClassifier())


def test_a_failed_load_of_the_estimator_is_tried_again(contract: Contract) -> None:
    """After a load that raised, the next request loads the estimator again."""

    attempts: list[int] = []

    def load_estimator() -> SklearnRuntime:
        attempts.append(1)
        if len(attempts) <= 2:
            raise ContractBroken("the artifact is gone")
        return SklearnRuntime(forest())

    lazy = LazyEstimator(SklearnRuntime(forest()), load_estimator)
    for _ in range(2):
        with pytest.raises(ContractBroken, match="gone"):
            lazy.run("predict", TABLE[:2])
        assert not lazy.is_loaded
    assert len(lazy.run("predict", TABLE[:2])) == 2
    assert lazy.is_loaded
    assert len(lazy.run("predict", TABLE[:2])) == 2
    assert len(attempts) == 3


LOADER = """
import json, os, sys
from pathlib import Path
from tableside.runtimes.shared_store import SharedStore
from tableside.preflight.checks import check_version
from tableside.settings import Repository
policy, store = Repository(shared_memory_above_mb=1), SharedStore(Path(sys.argv[2]))
runtime = check_version(Path(sys.argv[1]), "forest", 1, policy, store)
maps = [line.split() for line in open("/proc/self/maps") if line.rstrip().endswith(".npy")]
print(json.dumps(sorted({(Path(line[5]).name, line[4], line[1]) for line in maps})), flush=True)
sys.stdin.read()
"""


@pytest.mark.processes
@pytest.mark.slow
def test_two_processes_map_the_same_files(root: Path, contract: Contract, tmp_path: Path) -> None:
    """Two processes that start at once on an empty store map the same files, read-only."""
    command = [sys.executable, "-c", LOADER, str(root), str(tmp_path)]
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    both = [
        subprocess.Popen(command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = [json.loads(process.communicate(timeout=120)[0]) for process in both]
    assert outputs[0] == outputs[1]
    inode = (SharedStore(tmp_path).path(contract) / "records.npy").stat().st_ino
    assert ["records.npy", str(inode), "r--s"] in outputs[0]
    assert [name for name, _, _ in outputs[0]] == ["records.npy", "values.npy"]
