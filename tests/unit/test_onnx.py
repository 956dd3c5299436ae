"""ONNX graphs and treelite: proved at publish, held to their hash, done without where their library is not."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LinearRegression
from sklearn.neighbors import RadiusNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, StandardScaler
from sklearn.svm import SVC, SVR

from tableside.cli import main
from tableside.contracts import schema
from tableside.contracts.conversion import as_array
from tableside.contracts.environment import sha256
from tableside.contracts.schema import Column, Contract, EquivalenceCheck, Input, Route
from tableside.decoding.json_tables import from_matrix
from tableside.errors import ContractBroken, FailureKind
from tableside.factory import create_app
from tableside.install_hints import install_hint
from tableside.preflight.checks import check_version
from tableside.process.offload import make_offload
from tableside.publishing import onnx_export
from tableside.publishing.effort import FULL
from tableside.publishing.publish import publish
from tableside.repository import integrity, paths
from tableside.runtimes import onnx
from tableside.runtimes.fast.numerics import LibraryMissing, Unsupported
from tableside.runtimes.router import RoutedRuntime, allowed_difference, difference
from tableside.runtimes.sklearn import SklearnRuntime
from tableside.serving.catalog import Catalog
from tableside.serving.lifecycle import State
from tableside.serving.loader import load_catalog
from tableside.serving.registry import Registry
from tableside.settings import Repository
from tableside.telemetry import metrics
from tableside.web.extensions import EXTENSION_KEY
from tests.conftest import MakeSettings, publishing_with

pytestmark = pytest.mark.no_greenlets

SOFT = 1e-6


@cache
def diabetes() -> tuple[Any, Any]:
    return load_diabetes(return_X_y=True)  # type: ignore[no-any-return]


@cache
def support() -> tuple[Any, Any]:
    """A regressor that no fast backend is known for, and its sample. In single precision it is right to some 1e-7."""
    table, target = diabetes()
    return SVR().fit(table, target), table[:200]


def check_of(contract: Contract, backend: str = "onnx") -> EquivalenceCheck:
    return next(each for each in contract.equivalence_checks if each.backend == backend)


@pytest.fixture(scope="module")
def soft(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Contract]:
    """A repository with `m`/1, answered by its graph."""
    root = tmp_path_factory.mktemp("soft")
    estimator, rows = support()
    with publishing_with(FULL):
        return root, publish("m", estimator, rows, repository=root, tolerance=SOFT)


@pytest.fixture
def mine(soft: tuple[Path, Contract], tmp_path: Path) -> tuple[Path, Path]:
    """A copy of it to damage: the repository and the version's folder."""
    folder = tmp_path / "models" / "m" / "1"
    folder.mkdir(parents=True)
    for file in (soft[0] / "m" / "1").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return tmp_path / "models", folder


def test_a_graph_within_the_tolerance_is_used(soft: tuple[Path, Contract]) -> None:
    """Compared on more than ten thousand rows, faster where it is used, hashed in contract and checksums."""
    root, contract = soft
    found = check_of(contract)
    assert found.outcome == "used"
    assert found.rows > 10_000
    assert 0 < found.largest_difference <= SOFT == allowed_difference(contract)
    for backend, size in ((each, {8: "1", 256: "32", 0: "1000"}[each.up_to_rows]) for each in contract.routes):
        assert (backend.backend == "onnx") == (found.speed_up[size] >= 1.1)
    assert contract.graph is not None
    file = root / "m" / "1" / contract.graph.file
    assert contract.graph.sha256 == sha256(file)
    assert contract.graph.sha256 in (root / "m" / "1" / paths.CHECKSUMS).read_text()
    assert (
        contract.batch_invariance,
        contract.batch_tolerance_ulp > found.largest_difference / np.finfo(float).eps,
    ) == ("ulp", True)


def test_to_the_bit_the_same_graph_is_refused(tmp_path: Path) -> None:
    """Without a tolerance nothing in single precision is used, and no file is left behind."""
    estimator, rows = support()
    contract = publish("m", estimator, rows, repository=tmp_path)
    assert check_of(contract).outcome == "unsupported"
    assert (contract.routes, contract.graph) == ((), None)
    assert not (tmp_path / "m" / "1" / paths.GRAPH).exists()


def test_the_graph_answers_requests(soft: tuple[Path, Contract], make_settings: MakeSettings, tmp_path: Path) -> None:
    """Over HTTP: within the tolerance of the estimator, and not to the bit, so it was not the estimator."""
    settings = make_settings(soft[0], tmp_path / "run")
    made = create_app(settings, Registry(settings, metrics.make(), make_offload(1)))
    registry = made.extensions[EXTENSION_KEY].registry
    registry.reload(1)
    estimator, rows = support()
    answer = made.test_client().post("/v1/models/m:predict", json={"instances": rows[:50].tolist()})
    assert answer.status_code == 200, answer.get_data(as_text=True)
    got, own = np.array(answer.get_json()["predictions"]), estimator.predict(rows[:50])
    assert 0 < difference(own, got) <= SOFT
    assert registry.wait_servable("m", None, 1).warning == ""


def _late(rows: int = 400) -> tuple[pd.DataFrame, Any]:
    """Seconds since 1970, some minutes apart: single precision rounds them to two minutes."""
    chance = np.random.default_rng(0)
    frame = pd.DataFrame({"when": 1.7e9 + np.sort(chance.random(rows)) * 3600, "amount": chance.normal(size=rows)})
    return frame, np.sin(frame["when"] / 300) + frame["amount"]


@pytest.mark.parametrize("make", [
    lambda: HistGradientBoostingRegressor(max_iter=20, random_state=0),
    lambda: make_pipeline(MinMaxScaler(), RandomForestRegressor(10, random_state=0)),
])  # fmt: skip
@pytest.mark.slow
@pytest.mark.every_blas
def test_large_numbers_in_single_precision_are_refused(make: Any, tmp_path: Path) -> None:
    """Trees over epoch seconds: converted and run, and found to be wrong, whatever small difference is allowed."""
    frame, target = _late()
    contract = publish("m", make().fit(frame, target), frame, repository=tmp_path, tolerance=SOFT)
    found = check_of(contract)
    assert found.outcome == "differs"
    assert "differs by" in found.reason
    assert found.largest_difference > SOFT
    assert contract.graph is None
    assert "onnx" not in {backend.backend for backend in contract.routes}


@pytest.mark.parametrize("labels", [("no", "yes"), (3, 8), (False, True)])
def test_labels_have_the_estimators_own_type(labels: Any, tmp_path: Path) -> None:
    """Text, numbers and truth values come back from a graph as they were trained."""
    table, target = load_breast_cancer(return_X_y=True)
    fitted = make_pipeline(StandardScaler(), SVC()).fit(table, np.array(labels)[target])
    contract = publish("m", fitted, table[:200], repository=tmp_path)
    assert check_of(contract).outcome == "used"
    planned = check_version(tmp_path, "m", 1, Repository())
    assert isinstance(planned, RoutedRuntime)
    direct = planned.pick(1)
    assert direct is not None
    got, own = direct.methods["predict"](from_matrix(table, contract.input)), fitted.predict(table)
    assert got.dtype == own.dtype
    assert (got == own).all()


def test_labels_that_are_floats_are_left_to_the_estimator(tmp_path: Path) -> None:
    """Within a tolerance 0.1 and 0.10000000149 would be one label."""
    table, target = diabetes()
    fitted = SVC().fit(table, np.where(target > 100, 1.0, 2.0))
    contract = publish("m", fitted, table[:200], repository=tmp_path, tolerance=SOFT)
    assert (check_of(contract).outcome, check_of(contract).reason) == ("unsupported", "labels that are floats")


def test_a_table_of_numbers_and_text(tmp_path: Path) -> None:
    """A column each goes into the graph of a ColumnTransformer; a missing text is the estimator's own matter."""
    chance = np.random.default_rng(0)
    frame = pd.DataFrame({"size": chance.normal(size=300), "town": chance.choice(["Ulm", "Köln"], 300).astype(object)})
    frame.loc[5, "town"] = None
    encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    parts = ColumnTransformer([("numbers", MinMaxScaler(), ["size"]), ("words", encoder, ["town"])])
    fitted = make_pipeline(parts, SVR()).fit(frame, frame["size"] + (frame["town"] == "Ulm") + 9)
    contract = publish("m", fitted, frame, repository=tmp_path, tolerance=1e-3)
    found = check_of(contract)
    assert found.outcome == "used", found
    planned = check_version(tmp_path, "m", 1, Repository())
    assert isinstance(planned, RoutedRuntime)
    assert "onnx" in planned.used


def test_what_is_not_finite_is_the_estimators_own_matter(soft: tuple[Path, Contract]) -> None:
    """A graph would answer an infinity; the estimator refuses it, in its words."""
    planned = check_version(soft[0], "m", 1, Repository())
    huge = from_matrix(np.full((2, 10), 1e300), soft[1].input)
    assert difference(support()[0].predict(huge.to_input()), as_array(planned.run("predict", huge))) == 0
    with pytest.raises(ValueError, match="infinity"):
        planned.run("predict", from_matrix(np.full((2, 10), np.inf), soft[1].input))


def served(root: Path) -> Any:
    catalog = load_catalog(root, Repository(), 1, Catalog(0, {}))
    return catalog.models["m"].servables[0]


@pytest.mark.parametrize("how", ["changed", "gone"])
def test_a_damaged_graph_is_not_served(mine: tuple[Path, Path], how: str) -> None:
    """A byte that changed after publish, or a file that went: damage like the artifact's, seen by load and list."""
    root, folder = mine
    file = folder / paths.GRAPH
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.unlink()
    if how == "changed":
        file.write_bytes(content)
    with pytest.raises(ContractBroken) as caught:
        check_version(root, "m", 1, Repository())
    assert caught.value.failure_kind is FailureKind.DAMAGED
    assert paths.GRAPH in str(caught.value)
    assert served(root).failure_kind is FailureKind.DAMAGED
    listed = CliRunner().invoke(main, ["list", "--repository", str(root), "--json"])
    assert paths.GRAPH in listed.output
    assert '"failure_kind": "damaged"' in listed.output


def test_a_contract_that_names_another_graph_does_not_match_its_checksums(mine: tuple[Path, Path]) -> None:
    """The hash in the contract is itself held to the checksums: who swaps the file must not only edit the contract."""
    root, folder = mine
    contract = schema.decode((folder / paths.CONTRACT).read_bytes())
    assert contract.graph is not None
    estimator, rows = support()
    other = onnx_export.convert(SVR(C=9).fit(rows, np.arange(len(rows))), contract.input, single=True)[-1]
    (folder / paths.GRAPH).write_bytes(other)
    swapped = msgspec.structs.replace(contract.graph, sha256=sha256(folder / paths.GRAPH))
    for graph_ in (swapped, None):
        changed = msgspec.structs.replace(contract, graph=graph_)
        (folder / paths.CONTRACT).write_bytes(schema.encode(changed))
        with pytest.raises(ContractBroken, match="does not match checksums.sha256 in the graph"):
            check_version(root, "m", 1, Repository())


def test_a_graph_that_answers_otherwise_here_is_not_used(mine: tuple[Path, Path]) -> None:
    """Hash and checksums fit, and yet its golden rows lie apart: the estimator answers, and the version says so."""
    root, folder = mine
    contract = schema.decode((folder / paths.CONTRACT).read_bytes())
    assert contract.graph is not None
    estimator, rows = support()
    other = onnx_export.convert(SVR(C=1.001).fit(*diabetes()), contract.input, single=True)[-1]
    (folder / paths.GRAPH).write_bytes(other)
    swapped = msgspec.structs.replace(contract.graph, sha256=sha256(folder / paths.GRAPH))
    changed = msgspec.structs.replace(contract, graph=swapped)
    (folder / paths.CONTRACT).write_bytes(schema.encode(changed))
    (folder / paths.CHECKSUMS).write_text(integrity.checksum_lines(changed))
    one = served(root)
    assert isinstance(one.runtime, SklearnRuntime)
    assert one.failure_kind is FailureKind.ENVIRONMENT
    assert one.warning.startswith("fast backend disabled (onnx): it fails, or differs from the estimator")


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make a library one that is not installed, as the import system has it."""

    def hide(*libraries: str) -> None:
        for library in libraries:
            for name in [name for name in sys.modules if name.split(".")[0] == library]:
                monkeypatch.delitem(sys.modules, name)
            monkeypatch.setitem(sys.modules, library, None)

    return hide


def test_without_onnx_runtime_the_estimator_answers(soft: tuple[Path, Contract], without: Any) -> None:
    """The version is served, to the bit, with a warning that `list` and `show` have too."""
    without("onnxruntime")
    one = served(soft[0])
    assert one.state is State.READY
    assert one.warning.startswith("onnxruntime is not installed")
    estimator, rows = support()
    said = one.runtime.run("predict", one.runtime.prepare(from_matrix(rows, soft[1].input)))
    assert difference(estimator.predict(rows), said) == 0
    for words in (["list"], ["show", "m"]):
        told = CliRunner().invoke(main, [*words, "--repository", str(soft[0])])
        assert told.exit_code == 0
        assert "onnxruntime is not installed" in " ".join(told.output.split())


@pytest.mark.parametrize("library", ["skl2onnx", "onnxruntime"])
def test_without_the_libraries_publish_says_how_to_get_them(library: str, tmp_path: Path, without: Any) -> None:
    """It is a line of the table and no failure."""
    without(library)
    estimator, rows = support()
    contract = publish("m", estimator, rows, repository=tmp_path, tolerance=SOFT)
    assert check_of(contract).reason == f"needs the library {library}: {install_hint('onnx')}"
    assert contract.routes == ()
    shown = CliRunner().invoke(main, ["show", "m", "--repository", str(tmp_path)])
    assert f"needs the library {library}" in " ".join(shown.output.split())


def test_show_tells_the_graph(soft: tuple[Path, Contract]) -> None:
    """A line in the table of routes, and the file with its hash."""
    shown = CliRunner().invoke(main, ["show", "m", "--repository", str(soft[0])]).output
    assert soft[1].graph is not None
    assert f"graph        {paths.GRAPH}" in shown
    assert soft[1].graph.sha256 in shown
    assert any(line.split()[:2] == ["onnx", "used"] for line in shown.splitlines())


@pytest.mark.slow
def test_a_session_has_no_threads_of_its_own(soft: tuple[Path, Contract]) -> None:
    """Workers are the parallelism: a process that runs a graph has one thread more for nobody."""
    code = (
        "import os, sys; import onnxruntime; from pathlib import Path\n"
        "from tableside.preflight.checks import check_version\n"
        "from tableside.settings import Repository; from tableside.runtimes import golden\n"
        "from tableside.repository.integrity import read_contract\n"
        "root = Path(sys.argv[1]); before = len(os.listdir('/proc/self/task'))\n"
        "runtime = check_version(root, 'm', 1, Repository())\n"
        "runtime.run('predict', golden.golden_table(read_contract(root, 'm', 1)))\n"
        "assert 'onnx' in runtime.used\n"
        "print(len(os.listdir('/proc/self/task')) - before)"
    )
    environ = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", code, str(soft[0])], env=environ, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.strip() == "0", done.stderr


@pytest.mark.parametrize("make", [
    lambda X, y: RandomForestClassifier(60, random_state=0).fit(X, y),
    lambda X, y: RandomForestRegressor(60, random_state=0).fit(X, X[:, 0] + y),
    lambda X, y: HistGradientBoostingClassifier(max_iter=60, random_state=0).fit(X, y),
    lambda X, y: HistGradientBoostingClassifier(max_iter=20, random_state=0).fit(X, np.digitize(X[:, 0], [11, 14, 17])),
    lambda X, y: HistGradientBoostingRegressor(max_iter=60, random_state=0).fit(X, X[:, 0] + y),
])  # fmt: skip
@pytest.mark.parametrize("missing_cells", [False, True])
@pytest.mark.slow
def test_treelite_is_equal_to_the_bit(make: Any, missing_cells: bool, tmp_path: Path) -> None:
    """Forests and histogram gradient boosting, missing values among the cells or none: without a tolerance."""
    table, target = load_breast_cancer(return_X_y=True)
    fitted = make(table, target)
    rows = table[:200].copy()
    if missing_cells:
        rows[np.random.default_rng(0).random(rows.shape) < 0.1] = np.nan
        full = table.copy()
        full[np.random.default_rng(1).random(full.shape) < 0.1] = np.nan
        fitted = fitted.__class__(**fitted.get_params()).fit(full, fitted.predict(table))
    with publishing_with(FULL):
        found = check_of(publish("m", fitted, rows, repository=tmp_path), "treelite")
    assert found.outcome in ("used", "slower"), found
    assert found.rows > 10_000
    assert found.largest_difference == 0


@pytest.mark.slow
def test_without_treelite_the_next_fastest_backend_answers(tmp_path: Path, without: Any) -> None:
    """What was proved equal beside it and needs no library stands in, and the warning says so."""
    table, target = diabetes()
    fitted = HistGradientBoostingRegressor(max_iter=60, random_state=0).fit(table, target)
    contract = publish("m", fitted, table[:200], repository=tmp_path)
    assert {check_of(contract, name).outcome for name in ("treelite", "tree_walk")} <= {"used", "slower"}
    # Which of the two is faster depends on the machine and its load; here it is treelite.
    contract = msgspec.structs.replace(contract, routes=(Route("treelite", fallback=Route("tree_walk")),))
    path = tmp_path / "m" / "1" / "contract.json"
    path.unlink()
    path.write_bytes(schema.encode(contract))
    without("treelite")
    one = served(tmp_path)
    assert one.warning.startswith("treelite is not installed")
    assert isinstance(one.runtime, RoutedRuntime)
    assert one.runtime.pick(1) is not None
    said = one.runtime.run("predict", from_matrix(table[:1], contract.input))
    assert difference(fitted.predict(table[:1]), said) == 0


def test_a_graph_needs_its_library(without: Any) -> None:
    """Missing, with the library's name: what a caller tells apart from a graph that does not fit."""
    without("onnxruntime")
    with pytest.raises(LibraryMissing, match="onnxruntime"):
        onnx.open_session(b"")


def test_a_conversion_that_does_not_end_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """skl2onnx searches on for a float32 beside infinity: publish has a limit, and knows such trees beforehand."""
    table, target = diabetes()
    rows = table.copy()
    rows[:, 0] = np.where(target > 150, np.nan, rows[:, 0])
    fitted = RandomForestRegressor(3, random_state=0).fit(rows, target)
    columns = Input("matrix", tuple(Column(f"x{at}", "FP64", "float64", nullable=True) for at in range(10)))
    with pytest.raises(Unsupported, match="at infinity"):
        onnx_export.convert(fitted, columns, single=True)
    monkeypatch.setattr(onnx_export, "MAX_CONVERSION_S", 0.05)
    over = threading.Event()
    with pytest.raises(TimeoutError, match="did not end within"):
        onnx_export.run_with_timeout(lambda: b"" if over.wait(60) else b"never")
    over.set()
    assert onnx_export.run_with_timeout(lambda: b"made") == b"made"


def test_linear_models_too(tmp_path: Path) -> None:
    """Where a fast backend exists as well, the table has both, and the faster one answers."""
    table, target = diabetes()
    fitted = LinearRegression().fit(table, target)
    with publishing_with(FULL):
        contract = publish("m", fitted, table[:200], repository=tmp_path, tolerance=SOFT)
    found = {each.backend: each for each in contract.equivalence_checks}
    assert {found["linear"].outcome, found["onnx"].outcome} <= {"used", "slower"}
    assert found["onnx"].rows > 10_000


def test_rows_that_the_estimator_refuses_end_no_publish(tmp_path: Path) -> None:
    """A graph's dtypes are those of a golden row: RadiusNeighborsClassifier refuses rows that have no neighbours."""
    table, target = load_breast_cancer(return_X_y=True)
    fitted = RadiusNeighborsClassifier(1.0).fit(table, target)
    contract = publish("m", fitted, table[:50], repository=tmp_path)
    assert check_of(contract).outcome in ("used", "slower", "differs")
