"""The whole table library x wrapping x spelling x road: equal to memory to the bit, or refused with a sentence.

Each cell is published on three roads: from Python, with the command from the trainer's file, and from an MLflow
directory. The roads have to give the same version, so one of them answers in every spelling.
"""

from __future__ import annotations

import json
import random
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cloudpickle
import joblib
import pandas as pd
import pytest
import yaml
from click.testing import CliRunner, Result
from flask import Flask

from tableside.cli import main
from tableside.contracts.environment import environment
from tableside.contracts.schema import Contract
from tableside.errors import PublishFailed
from tableside.factory import create_app
from tableside.process.offload import make_offload
from tableside.publishing.publish import publish
from tableside.publishing.sample_rows import rows_as_cells
from tableside.repository import integrity, paths
from tableside.serving.registry import Registry
from tableside.setting_texts import LIBRARIES
from tableside.telemetry import metrics
from tests.conftest import QUICK, registry_of
from tests.libraries import grid
from tests.libraries.comparing import answers_of, bits, expected_bits, in_memory
from tests.libraries.zoo import Case
from tests.spellings import V1, spellings
from tests.unit.test_environments import OWN, pool

pytestmark = pytest.mark.filterwarnings("ignore")
__all__ = ["pool"]

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "estimators.md"
CELLS = [(library, wrapping) for library in grid.LIBRARIES for wrapping in grid.WRAPPINGS]
FEW = 4
ROADS = ("command", "MLflow")
MLFLOW_TYPES = {"i": "long", "f": "double", "O": "string"}


def cells_with(*outcomes: str) -> list[tuple[str, str]]:
    return [cell for cell in CELLS if (grid.expected(*cell) in outcomes)]


REFUSED = [cell for cell in CELLS if cell not in cells_with(grid.EQUAL, grid.PICKLE)]


def as_frame(case: Case) -> pd.DataFrame:
    return case.rows if isinstance(case.rows, pd.DataFrame) else pd.DataFrame(case.rows, columns=grid.NUMBERS)


def trusted(library: str) -> tuple[str, ...]:
    return (library,) if library in LIBRARIES else ()


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TABLESIDE__REPOSITORY__CONSENT_FILE", str(tmp_path / "consent.jsonl"))
    monkeypatch.setenv("TABLESIDE__REPOSITORY__TRUSTED_LIBRARIES", ",".join(LIBRARIES))
    return tmp_path / "models"


def by_python(case: Case, root: Path, **more: Any) -> Contract:
    return publish("m", case.estimator, as_frame(case), repository=root, runtime="sklearn", quick=True, **more)


def by_command(case: Case, root: Path, name: str = "command", *more: str) -> Result:
    """What a trainer does at the shell: a joblib file, and the rows as Parquet, which keeps their types."""
    file, sample = root.parent / "model.joblib", root.parent / "sample.parquet"
    joblib.dump(case.estimator, file)
    as_frame(case).to_parquet(sample, index=False)
    words = ["publish", name, file, "--sample", sample, "--repository", root, "--runtime", "sklearn", "--quick", *more]
    return CliRunner().invoke(main, [str(word) for word in words])


def by_mlflow(case: Case, root: Path, name: str = "MLflow", *more: str) -> Result:
    """A directory as mlflow.sklearn.save_model writes it, with a signature and an input example."""
    folder, frame = root.parent / "directory", as_frame(case)
    folder.mkdir()
    (folder / "model.pkl").write_bytes(cloudpickle.dumps(case.estimator))
    flavor = {"pickled_model": "model.pkl", "serialization_format": "cloudpickle", "code": None,
              "sklearn_version": environment()["scikit-learn"]}  # fmt: skip
    inputs = [
        {"name": column, "type": MLFLOW_TYPES[frame[column].dtype.kind], "required": not frame[column].hasnans}
        for column in frame.columns
    ]
    example = {"artifact_path": "input_example.json", "type": "dataframe", "pandas_orient": "split"}
    written = {"flavors": {"sklearn": flavor}, "mlflow_version": "3.17.2", "signature": {"inputs": json.dumps(inputs)},
               "saved_input_example_info": example}  # fmt: skip
    (folder / "MLmodel").write_text(yaml.safe_dump(written))
    (folder / "input_example.json").write_text(frame.to_json(orient="split", index=False, double_precision=15))
    sample = root.parent / "sample.parquet"
    frame.to_parquet(sample, index=False)
    words = ["publish", name, folder, "--sample", sample, "--allow-pickle", "--repository", root]
    return CliRunner().invoke(main, [*map(str, words), "--runtime", "sklearn", "--quick", *more])


def known_by(contract: Contract) -> tuple[Any, ...]:
    """What a client can see of a version. Parquet gives text pandas' own dtype, where the DataFrame has objects."""
    columns = [
        (c.name, c.kind, c.nullable, c.categories, c.closed, c.minimum, c.maximum) for c in contract.input.columns
    ]
    file = contract.artifact.file
    return contract.input.form, columns, contract.outputs, contract.golden, contract.kind, file


@pytest.mark.parametrize(("library", "wrapping"), cells_with(grid.EQUAL))
def test_a_cell_is_equal_on_every_road_and_in_every_spelling(
    library: str, wrapping: str, root: Path, make_settings: Any, tmp_path: Path
) -> None:
    """The three roads give one contract with the same golden answers; every spelling answers as memory does."""
    case = grid.case(library, wrapping)
    contract = by_python(case, root, trusted_libraries=trusted(library))
    for name, road in zip(ROADS, (by_command, by_mlflow), strict=True):
        done = road(case, root)
        assert done.exit_code == 0, (name, done.output)
        assert known_by(integrity.read_contract(root, name, 1)) == known_by(contract), name
    settings = make_settings(root, tmp_path / "run", repository__trusted_libraries=",".join(trusted(library)), **QUICK)
    app = create_app(settings, Registry(settings, metrics.make(), make_offload(1)))
    assert_answers(app, case, contract, ("m", *ROADS))


def assert_answers(app: Flask, case: Case, contract: Contract, names: Sequence[str]) -> None:
    """Every output for all rows of each model, and the first model's default output in every spelling, is memory's."""
    registry_of(app).reload(1)
    client, rows = app.test_client(), rows_as_cells(as_frame(case), contract.input)
    for name in names:
        for output in contract.outputs:
            wanted = in_memory(case, case.rows, contract)[output.name]
            body = {"instances": rows, "signature_name": output.name}
            reply = client.post(V1.replace("MODEL", name), json=body)
            assert reply.status_code == 200, reply.get_data(as_text=True)
            assert bits(answers_of(reply), wanted) == expected_bits(wanted), (name, output.name)
    few = in_memory(case, case.rows[:FEW].copy(), contract)[contract.default_output.name]
    walked = list(spellings(contract.input, rows[:FEW], random.Random(0)))
    for spelling, request in walked:
        reply = client.post(request.path.replace("MODEL", names[0]), data=request.body, headers=request.headers)
        assert reply.status_code == 200, (spelling, reply.get_data(as_text=True))
        assert bits(answers_of(reply), few) == expected_bits(few), spelling
    assert [spelling for spelling, _ in walked] == grid.spelling_names(contract.input, rows[0])


@pytest.mark.processes
@pytest.mark.parametrize(("library", "wrapping"), cells_with(grid.PICKLE))
def test_a_cell_that_only_a_pickle_holds(
    library: str, wrapping: str, root: Path, pool: Callable[..., Any], make_settings: Any, tmp_path: Path
) -> None:
    """Refused as skops on each road, in the same words; published as a pickle, its own process answers as memory."""
    case = grid.case(library, wrapping)
    with pytest.raises(PublishFailed, match="publish with --as-pickle"):
        by_python(case, root)
    for road in (by_command, by_mlflow):
        done = road(case, root)
        assert done.exit_code == 2
        assert "publish with --as-pickle" in done.stderr, done.output
    contract = by_python(case, root, as_pickle=True)
    (root.parent / "directory").rename(root.parent / "first")
    for name, road in zip(ROADS, (by_command, by_mlflow), strict=True):
        done = road(case, root, name, "--as-pickle")
        assert done.exit_code == 0, done.output
        assert known_by(integrity.read_contract(root, name, 1)) == known_by(contract)
        (root / name).rename(root.parent / name)  # a pickle shares no environment with another model
    (root / "m" / "model.toml").write_text('environment = "own"\n')
    consent = str(root.parent / "consent.jsonl")
    settings = make_settings(root, tmp_path / "run", repository__consent_file=consent, **QUICK)
    app = create_app(settings, Registry(settings, metrics.make(), make_offload(1), environments=pool(own=OWN)))
    assert_answers(app, case, contract, ["m"])


@pytest.mark.parametrize(("library", "wrapping"), REFUSED)
def test_a_cell_that_is_refused_is_refused_on_every_road(library: str, wrapping: str, root: Path) -> None:
    """The same sentence on each road, and no version."""
    case, sentence = grid.case(library, wrapping), grid.expected(library, wrapping)
    with pytest.raises(PublishFailed, match=sentence):
        by_python(case, root, trusted_libraries=trusted(library))
    for road in (by_command, by_mlflow):
        done = road(case, root)
        assert done.exit_code == 2
        assert sentence in done.stderr, done.output
    assert all(paths.versions(root, name) == [] for name in ("m", *ROADS))


def test_the_page_has_this_table() -> None:
    """docs/explanation/estimators.md shows what these tests walk; `python -m tests.libraries.grid` prints it."""
    page = PAGE.read_text()
    assert grid.table() in page
    assert grid.spelling_table() in page


@pytest.fixture(autouse=True)
def quiet() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
