"""MLflow model directories: they are published as MLflow wrote them, and cannot grant themselves any trust.

MLflow wrote the directories in tests/data/mlflow; tests that need another one copy one of them and change it.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import joblib
import numpy as np
import pandas as pd
import pytest
import skops.io
import yaml
from click.testing import CliRunner, Result
from sklearn.linear_model import LinearRegression
from sklearn.preprocessing import FunctionTransformer

from tableside.cli import main
from tableside.contracts.environment import environment
from tableside.contracts.schema import Contract
from tableside.decoding.json_tables import from_rows
from tableside.errors import PublishFailed
from tableside.publishing import mlflow
from tableside.repository import integrity, paths
from tableside.runtimes import sklearn as runtime_sklearn
from tableside.runtimes.golden import all_agree, cells_of
from tableside.settings import Repository

pytestmark = pytest.mark.no_greenlets

DATA = Path(__file__).parents[1] / "data" / "mlflow"
EXPECTED = json.loads((DATA / "expected.json").read_text())
CHURN = pytest.param("churn_cloudpickle", marks=pytest.mark.slow)
WITH_EXAMPLE = ("iris_skops", CHURN, "diabetes_array_pickle", "house_one_row")
Change = Callable[[dict[str, Any]], Any]


@pytest.fixture(autouse=True, scope="session")
def fresh() -> None:
    """The directories hold fitted attributes of one scikit-learn version, so the tests run only with that."""
    then, now = EXPECTED["scikit-learn"], environment()["scikit-learn"]
    assert then == now, f"tests/data/mlflow is of scikit-learn {then}, here is {now}: run tests/data/mlflow/make.py"


@pytest.fixture
def copied(tmp_path: Path) -> Callable[..., Path]:
    """A copy of a directory, its MLmodel changed."""

    def copy(name: str, change: Change = lambda words: None) -> Path:
        folder = tmp_path / name
        shutil.copytree(DATA / name, folder)
        words = yaml.safe_load((folder / "MLmodel").read_text())
        change(words)
        (folder / "MLmodel").write_text(yaml.safe_dump(words))
        return folder

    return copy


def publish(folder: Path, root: Path, *more: object) -> Result:
    words = ["publish", "m", folder, "--repository", root, *more]
    return CliRunner().invoke(main, [str(word) for word in words])


def published(folder: Path, root: Path, *more: object) -> Contract:
    done = publish(folder, root, *more)
    assert done.exit_code == 0, done.output
    return integrity.read_contract(root, "m", paths.versions(root, "m")[-1])


def error_of_publish(folder: Path, root: Path, *more: object) -> str:
    """Publish, and return the one line of its error; no version may be left."""
    done = publish(folder, root, *more)
    assert done.exit_code == 2, done.output
    assert paths.versions(root, "m") == []
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("... ")]
    return line


def inputs_changed(change: Callable[[list[dict[str, Any]]], Any]) -> Change:
    def apply(words: dict[str, Any]) -> None:
        inputs = json.loads(words["signature"]["inputs"])
        change(inputs)
        words["signature"]["inputs"] = json.dumps(inputs)

    return apply


def trained_estimator(folder: Path) -> Any:
    """Read the trainer's estimator without any code of Tableside."""
    (file,) = folder.glob("model.*")
    if file.suffix == ".pkl":
        return pickle.loads(file.read_bytes())
    return skops.io.load(file, trusted=skops.io.get_untrusted_types(file=file))


def expected_frame(name: str) -> Any:
    known = EXPECTED["models"][name]
    if known["columns"] is None:
        return np.asarray(known["rows"])
    frame = pd.DataFrame(known["rows"], columns=known["columns"])
    for column in frame.columns[frame.isna().any()]:
        if not pd.api.types.is_numeric_dtype(frame[column].dtype):
            frame[column] = frame[column].astype(object).where(frame[column].notna(), np.nan)
    return frame


def assert_agree(found: Any, recorded: Any) -> None:
    """Compare as golden rows are compared: the last digits may differ on another processor."""
    found, recorded = cells_of(np.asarray(found)), cells_of(np.asarray(recorded))
    assert all_agree(recorded, found), (recorded, found)


@pytest.mark.parametrize("name", WITH_EXAMPLE)
def test_a_directory_with_an_example_needs_no_sample(name: str, tmp_path: Path) -> None:
    """The published artifact gives the answers that the estimator gave before MLflow saved it."""
    contract = published(DATA / name, tmp_path, "--allow-pickle")
    artifact = runtime_sklearn.load(integrity.check_artifact(tmp_path, contract))
    known = EXPECTED["models"][name]
    table = from_rows(known["rows"], contract.input)
    for method, answers in known["answers"].items():
        assert_agree(artifact.run(method, table.to_input()), answers)
    own = trained_estimator(DATA / name)
    for method, answers in known["answers"].items():
        assert_agree(getattr(own, method)(expected_frame(name)), answers)
    golden = from_rows([list(row) for row in contract.golden.rows], contract.input)
    for method, answers in contract.golden.answers.items():
        assert cells_of(np.asarray(getattr(own, method)(golden.to_input()))) == answers


@pytest.mark.slow
def test_columns_are_those_of_the_signature(tmp_path: Path) -> None:
    """Names, types and order are the signature's; a column is nullable where the example or the signature says so."""
    contract = published(DATA / "churn_cloudpickle", tmp_path, "--allow-pickle")
    assert [(c.name, c.datatype, c.dtype, c.nullable) for c in contract.input.columns] == [
        ("plan", "BYTES", "str", True),
        ("zip", "BYTES", "str", False),
        ("months", "INT64", "int64", False),
        ("visits", "INT64", "int32", False),
        ("spend", "FP64", "float64", True),
        ("abroad", "BOOL", "object", True),
    ]
    assert contract.source["mlflow_version"].split(".")[0].isdigit()
    assert contract.source["format"] == "mlflow"
    array = published(DATA / "diabetes_array_pickle", tmp_path, "--allow-pickle", "--breaking")
    assert (array.input.form, [c.name for c in array.input.columns]) == ("matrix", ["x0", "x1", "x2", "x3"])


def test_a_row_of_whole_numbers_does_not_make_whole_columns(tmp_path: Path) -> None:
    """Integers in the example become floats where the signature has double; a note warns of a single row."""
    done = publish(DATA / "house_one_row", tmp_path)
    assert "note: the contract was learned from an input example of 1 row: ranges" in done.stdout
    contract = integrity.read_contract(tmp_path, "m", 1)
    assert [(c.name, c.datatype) for c in contract.input.columns] == [
        ("area", "FP64"),
        ("rooms", "INT64"),
        ("age", "FP64"),
    ]
    notes = json.loads(publish(DATA / "house_one_row", tmp_path, "--json").stdout)["notes"]
    assert len(notes) == 2
    assert "prove this server against itself" in notes[1]


def test_without_a_signature_whole_numbers_stay_open(copied: Callable[..., Path], tmp_path: Path) -> None:
    """Without a signature, integers of the example become FP64 columns, and a note tells that the types are guessed."""
    folder = copied("house_one_row", lambda words: words.pop("signature"))
    done = publish(folder, tmp_path / "r")
    assert "note: MLmodel has no signature" in done.stdout
    contract = integrity.read_contract(tmp_path / "r", "m", 1)
    assert {c.datatype for c in contract.input.columns} == {"FP64"}


def test_without_an_example_a_sample_is_required(tmp_path: Path) -> None:
    """The error names --sample; with a sample the columns get the sample's names."""
    assert "Add --sample FILE with rows like the training data" in error_of_publish(DATA / "iris_no_example", tmp_path)
    known = EXPECTED["models"]["iris_no_example"]
    pd.DataFrame(known["rows"], columns=list("abcd")).assign(y=1).to_csv(tmp_path / "s.csv", index=False)
    done = publish(DATA / "iris_no_example", tmp_path / "r", "--sample", tmp_path / "s.csv")
    assert "If one is the target, name it with --target" in done.stderr
    contract = published(DATA / "iris_no_example", tmp_path / "r", "--sample", tmp_path / "s.csv", "--target", "y")
    assert [c.name for c in contract.input.columns] == ["a", "b", "c", "d"]
    golden = contract.golden
    at = [known["rows"].index(list(row)) for row in golden.rows]
    assert_agree(golden.answers["predict"], [[known["answers"]["predict"][i]] for i in at])


def test_a_joblib_file_still_needs_a_sample(tmp_path: Path) -> None:
    """A joblib file has no input example, so the error names --sample."""
    joblib.dump(LinearRegression().fit([[1.0], [2.0]], [1.0, 2.0]), tmp_path / "x.joblib")
    assert "a joblib file needs a sample; add --sample FILE" in error_of_publish(tmp_path / "x.joblib", tmp_path / "r")


@pytest.mark.slow
def test_a_sample_takes_the_place_of_the_example(tmp_path: Path) -> None:
    """The contract is learned from --sample with the signature's types, so `00017` in a CSV file stays text."""
    known = EXPECTED["models"]["churn_cloudpickle"]
    frame = pd.DataFrame(known["rows"], columns=known["columns"]).assign(target=0)
    frame[frame.columns[::-1]].to_csv(tmp_path / "s.csv", index=False)
    contract = published(
        DATA / "churn_cloudpickle", tmp_path / "r", "--sample", tmp_path / "s.csv", "--target", "target",
        "--allow-pickle",
    )  # fmt: skip
    assert len(contract.golden.rows) > 15
    assert {row[1] for row in contract.golden.rows} <= {row[1] for row in known["rows"]}
    assert [c.dtype for c in contract.input.columns] == ["str", "str", "int64", "int32", "float64", "object"]


@pytest.mark.slow
def test_an_optional_column_that_the_estimator_requires_is_noted(copied: Callable[..., Path], tmp_path: Path) -> None:
    """When the estimator raises for a missing value, the contract requires one although the signature does not."""
    folder = copied("churn_cloudpickle", inputs_changed(lambda inputs: inputs[2].update(required=False)))
    done = publish(folder, tmp_path / "r", "--allow-pickle")
    assert "note: the signature calls months optional, but" in done.stdout


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda i: i[0].update(name="tariff"), "only the signature has tariff; only the estimator has plan"),
        (lambda i: i.pop(), "only the estimator has abroad"),
        (lambda i: i.append({"type": "double", "name": "x"}), "only the signature has x"),
        (lambda i: i[0].update(type="datetime"), "column 'plan' is a date in the signature, but str in"),
        (lambda i: i[0].update(type={"a": 1}), "column 'plan' has the type"),
        (lambda i: i[1].update(name="plan"), "two columns with the same name"),
        (lambda i: i[0].update(type="double"), "'plan' is numbers in the signature, but"),
        (lambda i: i[2].update(type="string"), "'months' is text in the signature, but int64 in the sample"),
        (lambda i: i[2].update(type="boolean"), "'months' is boolean in the signature"),
        (lambda i: i[4].update(type="long"), "'spend' is long in the signature, but the sample has fractions"),
        (lambda i: i[0].pop("type"), "signature.inputs cannot be read"),
        (lambda i: i[0].update({"tensor-spec": {"dtype": "float64", "shape": [-1]}}), "has the inputs [-1], a column"),
    ],
)
def test_a_signature_that_does_not_fit_is_refused(
    change: Any, message: str, copied: Callable[..., Path], tmp_path: Path
) -> None:
    """An error names the columns in which signature, estimator and sample disagree, and nothing is published."""
    folder = copied("churn_cloudpickle", inputs_changed(change))
    assert message in error_of_publish(folder, tmp_path / "r", "--allow-pickle")


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        ("area,rooms\n1,2\n", "lacks columns that the model takes: age"),
        ("area,rooms,age,price\n1,2,3,4\n", "does not take: price. If that is the target, add --target price"),
        ("area,rooms,age\n1,2.5,3\n", "'rooms' is long in the signature"),
        (
            "area,rooms,age\nsmall,2,3\n",
            "column 'area': SimpleImputer takes numbers or booleans, but the CSV sample has 'small'",
        ),
        ("area,rooms,age\n", "no rows"),
    ],
)
def test_a_sample_that_does_not_fit_is_refused(sample: str, message: str, tmp_path: Path) -> None:
    """A sample must have the columns of the signature and cells of their types."""
    (tmp_path / "s.csv").write_text(sample)
    assert message in error_of_publish(DATA / "house_one_row", tmp_path / "r", "--sample", tmp_path / "s.csv")


def test_a_tensor_of_another_width_is_refused(copied: Callable[..., Path], tmp_path: Path) -> None:
    """The tensor must have two dimensions and as many columns as the estimator takes."""
    folder = copied("diabetes_array_pickle", inputs_changed(lambda i: i[0]["tensor-spec"].update(shape=[-1, 5])))
    assert "the signature has 5 columns, but the estimator takes 4" in error_of_publish(
        folder, tmp_path / "r", "--allow-pickle"
    )
    shutil.rmtree(folder)
    folder = copied("diabetes_array_pickle", inputs_changed(lambda i: i[0]["tensor-spec"].update(shape=[-1, 4, 4])))
    assert "one tensor of shape [-1, columns]" in error_of_publish(folder, tmp_path / "r", "--allow-pickle")


def test_another_flavour_is_named(copied: Callable[..., Path], tmp_path: Path) -> None:
    """The error for a directory without the scikit-learn flavour lists the flavours it has."""

    def change(words: dict[str, Any]) -> None:
        words["flavors"]["pytorch"] = words["flavors"].pop("sklearn")

    message = error_of_publish(copied("iris_skops", change), tmp_path / "r")
    assert "Its flavours: python_function, pytorch" in message
    assert "scikit-learn flavour (sklearn)" in message
    (tmp_path / "empty").mkdir()
    assert "Give a joblib file or an MLflow model directory" in error_of_publish(tmp_path / "empty", tmp_path / "r")


def test_another_scikit_learn_is_refused(
    copied: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A minor version that MLmodel names is refused, and both are named, also with environment_skew "warn"."""
    here = environment()["scikit-learn"]
    folder = copied("iris_skops", lambda words: words["flavors"]["sklearn"].update(sklearn_version="1.2.0"))
    message = error_of_publish(folder, tmp_path / "r")
    assert f"was written with scikit-learn 1.2.0, but this environment has {here}." in message
    assert 'repository.environment_skew = "warn" publishes it here if they agree' in message
    monkeypatch.setenv("TABLESIDE__REPOSITORY__ENVIRONMENT_SKEW", "warn")
    assert "needs the trainer's answers" in error_of_publish(folder, tmp_path / "r")


def test_the_directory_cannot_extend_the_trusted_types(copied: Callable[..., Path], tmp_path: Path) -> None:
    """A type that only the MLmodel file lists as trusted is refused; the operator's setting decides."""
    kind = "textwrap.shorten"
    folder = copied("house_one_row", lambda words: words["flavors"]["sklearn"].update(skops_trusted_types=[kind]))
    skops.io.dump(FunctionTransformer(textwrap.shorten).fit([[1.0]]), folder / "model.skops")
    message = error_of_publish(folder, tmp_path / "r")
    assert f"types that are not trusted: {kind}. If you trust them, add them to repository.trusted_types" in message
    loaded, _ = mlflow.load(mlflow.read(folder), Repository(trusted_types=(kind,)))
    assert loaded.func is textwrap.shorten


class MakesFolder:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.path),))


def test_a_pickle_is_read_only_when_allowed(
    copied: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Code in a pickle runs only when the command line or a setting that names its sha256 allows it."""
    folder = copied("diabetes_array_pickle")
    file, ran = folder / "model.pkl", tmp_path / "ran"
    file.write_bytes(pickle.dumps(MakesFolder(ran)))
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    message = error_of_publish(folder, tmp_path / "r")
    assert "reading one runs the code in it" in message
    assert message.endswith(f"add --allow-pickle, or add its sha256 to repository.allowed_pickles: {digest}")
    monkeypatch.setenv("TABLESIDE__REPOSITORY__ALLOWED_PICKLES", hashlib.sha256(b"another").hexdigest())
    assert digest in error_of_publish(folder, tmp_path / "r")
    assert not ran.exists()
    assert "holds an object of type NoneType, not an estimator" in error_of_publish(
        folder, tmp_path / "r", "--allow-pickle"
    )
    assert ran.exists()


def test_a_pickle_named_in_the_settings_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """repository.allowed_pickles holds SHA-256 hashes in either case; another value is an error."""
    digest = hashlib.sha256((DATA / "diabetes_array_pickle" / "model.pkl").read_bytes()).hexdigest()
    monkeypatch.setenv("TABLESIDE__REPOSITORY__ALLOWED_PICKLES", f"{'0' * 64},{digest.upper()}")
    contract = published(DATA / "diabetes_array_pickle", tmp_path)
    assert contract.artifact.file == "model.skops"
    monkeypatch.setenv("TABLESIDE__REPOSITORY__ALLOWED_PICKLES", digest[:12])
    assert "TABLESIDE__REPOSITORY__ALLOWED_PICKLES" in publish(DATA / "diabetes_array_pickle", tmp_path).stderr


def test_a_module_that_a_pickle_needs_is_named(
    copied: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pickle whose module cannot be imported ends in an error that names the module."""
    folder = copied("churn_cloudpickle")
    (folder / "model.pkl").write_bytes(cloudpickle.dumps(FunctionTransformer(lambda x: x).fit([[1.0]])))
    for module in [name for name in sys.modules if name.partition(".")[0] == "cloudpickle"]:
        monkeypatch.setitem(sys.modules, module, None)
    message = error_of_publish(folder, tmp_path / "r", "--allow-pickle")
    assert "the model uses the module 'cloudpickle" in message


@pytest.mark.parametrize("name", ["../outside.skops", "sub/../../outside.skops", "/etc/hostname", "link", "dir/x", ""])
@pytest.mark.parametrize("field", ["model", "example"])
def test_a_path_out_of_the_directory_is_refused(
    name: str, field: str, copied: Callable[..., Path], tmp_path: Path
) -> None:
    """A file is refused that `..`, an absolute path or a link puts outside the directory."""

    def change(words: dict[str, Any]) -> None:
        if field == "model":
            words["flavors"]["sklearn"]["pickled_model"] = name
        else:
            words["saved_input_example_info"]["artifact_path"] = name

    folder = copied("house_one_row", change)
    shutil.copy(folder / "model.skops", tmp_path / "outside.skops")
    (tmp_path / "elsewhere").mkdir()
    shutil.copy(folder / "input_example.json", tmp_path / "elsewhere" / "x")
    (folder / "link").symlink_to(tmp_path / "outside.skops")
    (folder / "dir").symlink_to(tmp_path / "elsewhere")
    message = error_of_publish(folder, tmp_path / "r")
    assert "only files inside" in message
    assert ("links to a file outside" in message) == (name in ("link", "dir/x"))


def test_links_within_the_directory_are_followed(copied: Callable[..., Path], tmp_path: Path) -> None:
    """A link to a file inside the directory is read; one to itself or to a file outside is refused."""
    folder = copied("iris_skops")
    (folder / "model.skops").rename(folder / "real.skops")
    (folder / "model.skops").symlink_to("real.skops")
    assert published(folder, tmp_path / "r").version == 1
    (folder / "model.skops").unlink()
    (folder / "model.skops").symlink_to("model.skops")
    assert publish(folder, tmp_path / "r").exit_code == 2
    (folder / "MLmodel").rename(tmp_path / "MLmodel")
    (folder / "MLmodel").symlink_to(tmp_path / "MLmodel")
    assert "links to a file outside the directory" in publish(folder, tmp_path / "r").stderr


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("flavors: !!python/object/apply:os.mkdir ['{ran}']\n", "MLmodel, line 1: could not determine a constructor"),
        ("flavors: {sklearn: {pickled_model: a}\n", "MLmodel, line 2:"),
        ("- a\n", "MLmodel: Expected `object`, got `array`"),
        ("flavors: {sklearn: {pickled_model: 3}}\n", "flavors.sklearn: Expected `str`, got `int`"),
        ("flavors: {sklearn: {sklearn_version: '1'}}\n", "missing required field `pickled_model`"),
        ("flavors: {}\n", "Its flavours: none"),
        ("[" * 5000, "MLmodel"),
        ("\x00", "MLmodel"),
    ],
)
def test_a_bad_mlmodel_file_is_explained(content: str, message: str, tmp_path: Path) -> None:
    """The error names the file and the place, and a YAML tag never creates an object."""
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "MLmodel").write_text(content.replace("{ran}", str(tmp_path / "ran")))
    assert message in error_of_publish(tmp_path / "m", tmp_path / "r")
    assert not (tmp_path / "ran").exists()


def test_an_unknown_format_is_refused(copied: Callable[..., Path]) -> None:
    """The error lists the formats that can be read."""
    folder = copied("iris_skops", lambda words: words["flavors"]["sklearn"].update(serialization_format="dill"))
    with pytest.raises(PublishFailed, match="'dill', expected one of skops, pickle, cloudpickle, joblib"):
        mlflow.load(mlflow.read(folder), Repository())


def test_a_missing_example_file_is_named(copied: Callable[..., Path], tmp_path: Path) -> None:
    """The serving example is read when the input example is gone; without both the error names the input example."""
    folder = copied("iris_skops")
    (folder / "input_example.json").unlink()
    contract = published(folder, tmp_path / "r")
    assert len(contract.golden.rows) == 5
    (folder / "serving_input_example.json").unlink()
    assert (
        "names the input example input_example.json, but there is no such file"
        in publish(folder, tmp_path / "r").stderr
    )


def test_a_note_names_the_method_of_mlflows_server(copied: Callable[..., Path], tmp_path: Path) -> None:
    """For a model that was saved with pyfunc_predict_fn, MLflow's server does not answer `predict`."""
    change = {"predict_fn": "predict_proba"}
    folder = copied("iris_skops", lambda words: words["flavors"]["python_function"].update(change))
    assert "note: MLflow's server answers predict_proba" in publish(folder, tmp_path / "r").stdout


@pytest.mark.parametrize("name", ["iris_skops", CHURN])
def test_what_was_published_is_served(name: str, make_app: Any, small_repository: Path) -> None:
    """A request over HTTP gets the answers that the estimator gave before MLflow saved it."""
    published(DATA / name, small_repository, "--allow-pickle")
    known = EXPECTED["models"][name]
    rows = [dict(zip(known["columns"], row, strict=True)) for row in known["rows"]]
    answer = make_app().test_client().post("/v1/models/m:predict", json={"instances": rows})
    assert answer.status_code == 200, answer.text
    assert_agree(answer.json["predictions"], known["answers"]["predict"])
