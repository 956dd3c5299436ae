"""Publish writes a complete version or none, and explains what it cannot publish."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.datasets import load_diabetes, load_iris
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from tableside.decoding.json_tables import from_rows
from tableside.errors import PublishFailed, RequestRejected
from tableside.publishing.draft_folder import STALE_S
from tableside.publishing.effort import FULL
from tableside.publishing.publish import publish
from tableside.repository import integrity, model_toml, paths
from tests.conftest import publishing_with

ROOT = Path(__file__).parents[2]
FRAME = pd.DataFrame({"a": [1.0, 2.0, 3.0, 4.0], "b": [2.0, 1.0, 0.5, 3.0]})
FITTED = LinearRegression().fit(FRAME, [1.0, 2.0, 3.0, 5.0])

PUBLISHER = """
import sys
import pandas as pd
from sklearn.linear_model import LinearRegression
from tableside.publishing.publish import publish
from tests.conftest import publishing_with
frame = pd.DataFrame({"a": [1.0, 2.0, 3.0, 4.0], "b": [2.0, 1.0, 0.5, 3.0]})
fitted = LinearRegression().fit(frame, [1.0, 2.0, 3.0, 5.0])
def progress(step):
    if step.startswith(sys.argv[3]):
        print("here", flush=True)
        sys.stdin.readline()
for _ in range(int(sys.argv[2])):
    print(publish("m", fitted, frame, repository=sys.argv[1], alias="champion", progress=progress).version, flush=True)
"""


def start(root: Path, times: int, pause_at: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PUBLISHER, str(root), str(times), pause_at],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_a_version_is_complete_and_read_only(tmp_path: Path) -> None:
    """A published version is an artifact, its contract and their checksums, all 0444, under the next free number."""
    contract = publish("m", FITTED, FRAME, repository=tmp_path)
    folder = tmp_path / "m" / "1"
    assert sorted(file.name for file in folder.iterdir()) == ["checksums.sha256", "contract.json", "model.skops"]
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o444}
    assert integrity.read_contract(tmp_path, "m", 1) == contract
    assert integrity.check_artifact(tmp_path, contract) == folder / "model.skops"
    assert publish("m", FITTED, FRAME, repository=tmp_path).version == 2
    assert publish("m", FITTED, FRAME, repository=tmp_path, version=7).version == 7
    assert publish("m", FITTED, FRAME, repository=tmp_path).version == 8
    assert sorted(entry.name for entry in (tmp_path / "m").iterdir()) == ["1", "2", "7", "8", "versions.jsonl"]


@pytest.mark.parametrize("quick", [False, True])
def test_fast_backends_are_compared_on_ten_thousand_rows(tmp_path: Path, quick: bool) -> None:
    """Or on fewer with `quick`, which the contract says."""
    with publishing_with(FULL):
        contract = publish("m", FITTED, FRAME, repository=tmp_path, quick=quick)
    compared = {check.backend: check.rows for check in contract.equivalence_checks}
    assert (contract.quick, compared["linear"] > FULL.rows) == (quick, not quick)


def test_the_contract_says_what_the_estimator_takes_and_gives(tmp_path: Path) -> None:
    """Columns, ranges, outputs and golden answers come from the estimator and its sample."""
    contract = publish("m", FITTED, FRAME[["b", "a"]], repository=tmp_path)
    assert [(c.name, c.datatype, c.nullable) for c in contract.input.columns] == [
        ("a", "FP64", False),
        ("b", "FP64", False),
    ]
    assert (contract.input.columns[0].minimum, contract.input.columns[0].maximum) == (1.0, 4.0)
    assert contract.kind == "regressor"
    assert contract.golden.answers["predict"] == tuple((float(y),) for y in FITTED.predict(FRAME))


def test_an_alias_follows(tmp_path: Path) -> None:
    """The alias points at the version that was just published."""
    publish("m", FITTED, FRAME, repository=tmp_path, alias="champion")
    publish("m", FITTED, FRAME, repository=tmp_path, alias="champion")
    assert model_toml.read(tmp_path, "m").aliases == {"champion": 2}


@pytest.mark.parametrize("name", ["iris", "breast-cancer", "diabetes", "wine"])
def test_an_artifact_answers_as_the_estimator(name: str, repository: Path, trained: Any) -> None:
    """The file that was published answers as the trainer's estimator, for its whole sample."""
    estimator, sample = trained[name]
    loaded = skops.io.load(
        repository / name / "1" / "model.skops",
        trusted=skops.io.get_untrusted_types(file=repository / name / "1" / "model.skops"),
    )
    np.testing.assert_array_equal(loaded.predict(sample), estimator.predict(sample))


@pytest.mark.parametrize(
    ("sample", "options", "message"),
    [
        (FRAME, {"target": "y"}, "no target column 'y'. Its columns are: a, b"),
        (FRAME[["a"]], {}, "lacks columns that the estimator was fitted on: b"),
        (FRAME.assign(y=1.0), {}, "columns that the estimator does not take: y. If that is the target, add --target y"),
        (FRAME.assign(y=1.0, z=2.0), {}, "y, z. Drop them"),
        (FRAME.iloc[:0], {}, "no rows"),
        (FRAME, {"version": 0}, "version 0 is not valid. A version is a whole number from 1"),
        (FRAME, {"tolerance": 1.0}, "tolerance 1 is not valid"),
        (FRAME, {"tolerance": -1e-9}, "tolerance -1e-09 is not valid"),
        (FRAME, {"alias": "latest"}, "the alias 'latest' is reserved"),
        (FRAME.assign(a=[{}, {}, {}, {}]), {}, "column 'a' has the dtype object"),
    ],
)
def test_a_bad_sample_is_explained(tmp_path: Path, sample: Any, options: dict[str, Any], message: str) -> None:
    """The error names the column or the argument, and nothing is left in the repository."""
    with pytest.raises(PublishFailed) as failed:
        publish("m", FITTED, sample, repository=tmp_path, **options)
    assert message in str(failed.value)
    assert list(tmp_path.iterdir()) == []


def test_the_target_is_dropped(tmp_path: Path) -> None:
    """A sample may hold the target column when `target` names it."""
    contract = publish("m", FITTED, FRAME.assign(y=1.0), repository=tmp_path, target="y")
    assert [column.name for column in contract.input.columns] == ["a", "b"]


def test_a_width_without_names_is_checked(tmp_path: Path) -> None:
    """An estimator fitted on an array takes as many columns as that had."""
    fitted = LinearRegression().fit(FRAME.to_numpy(), [1.0, 2.0, 3.0, 5.0])
    with pytest.raises(PublishFailed, match="takes 2 columns, but the sample has 3"):
        publish("m", fitted, np.ones((2, 3)), repository=tmp_path)
    assert publish("m", fitted, FRAME.to_numpy(), repository=tmp_path).input.form == "matrix"


def test_an_unfitted_estimator_is_refused(tmp_path: Path) -> None:
    """An estimator that cannot predict its own sample is not published."""
    with pytest.raises(PublishFailed, match="cannot predict its own sample: NotFittedError"):
        publish("m", LinearRegression(), FRAME, repository=tmp_path)


def test_untrusted_code_is_refused(tmp_path: Path) -> None:
    """An estimator that holds a function of the trainer's is refused, naming it and the setting, with nothing left."""
    fitted = FunctionTransformer(np.memmap).fit(FRAME)
    fitted.func = len
    with pytest.raises(PublishFailed):
        publish("m", fitted, FRAME, repository=tmp_path)
    assert paths.versions(tmp_path, "m") == []


def double(table: Any) -> Any:
    """A function of the trainer's, which no list of trusted types holds."""
    return table * 2


def test_a_type_the_operator_trusts_is_published(tmp_path: Path) -> None:
    """Without `trusted_types` the error names the type and the setting; with it the version is written."""
    fitted = FunctionTransformer(double).fit(FRAME)
    kind = f"{double.__module__}.double"
    with pytest.raises(PublishFailed) as failed:
        publish("m", fitted, FRAME, repository=tmp_path)
    assert f"not trusted: {kind}. If you trust them, add them to repository.trusted_types" in str(failed.value)
    assert list(tmp_path.iterdir()) == []
    contract = publish("m", fitted, FRAME, repository=tmp_path, trusted_types=(kind,))
    assert kind in contract.types


def test_stale_drafts_are_removed(tmp_path: Path) -> None:
    """A draft older than STALE_S was left by a killed publish and is removed; a younger one may still be in use."""
    for name, age_s in ((".publishing-old", STALE_S + 60), (".publishing-young", STALE_S - 600)):
        draft = tmp_path / "m" / name
        draft.mkdir(parents=True)
        (draft / "model.skops").touch()
        began_s = time.time() - age_s
        os.utime(draft, (began_s, began_s))
    publish("m", FITTED, FRAME, repository=tmp_path, runtime="sklearn")
    assert sorted(entry.name for entry in (tmp_path / "m").iterdir()) == [".publishing-young", "1", "versions.jsonl"]


def test_an_estimator_that_gives_another_number_of_answers_is_refused(tmp_path: Path) -> None:
    """An answer that does not have one row for each row of the sample is explained, and nothing is written."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.pipeline import make_pipeline

    frame = pd.DataFrame({"note": ["good dog", "bad cat"], "more": ["x y", "y z"]})
    fitted = make_pipeline(CountVectorizer(token_pattern=r"\w+")).fit(frame)
    with pytest.raises(PublishFailed, match=r"gives 2 answers|answer has 2 rows"):
        publish("m", fitted, pd.concat([frame] * 3, ignore_index=True), repository=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_progress_names_each_step(tmp_path: Path) -> None:
    """`progress` is called before each step; `runtime="sklearn"` leaves out the search for fast backends."""
    steps: list[str] = []
    publish("m", FITTED, FRAME, repository=tmp_path, runtime="sklearn", progress=steps.append)
    assert steps == [
        "reading the sample",
        "learning the contract",
        "writing the artifact",
        "replaying the golden rows from the artifact",
    ]
    publish("m", FITTED, FRAME, repository=tmp_path, progress=steps.append)
    assert "comparing fast backends with the estimator" in steps


def test_the_source_and_the_tolerance_are_recorded(tmp_path: Path) -> None:
    """What the caller gave is in the contract that is read back."""
    publish("m", FITTED, FRAME, repository=tmp_path, source={"format": "mlflow"}, tolerance=1e-6)
    contract = integrity.read_contract(tmp_path, "m", 1)
    assert (contract.source, contract.tolerance) == ({"format": "mlflow"}, 1e-6)


def test_a_version_is_never_replaced(tmp_path: Path) -> None:
    """A version number that exists is refused, and the version stays as it was."""
    publish("m", FITTED, FRAME, repository=tmp_path, version=3)
    before = (tmp_path / "m" / "3" / "contract.json").read_bytes()
    with pytest.raises(PublishFailed, match="m/3 is already published, and a version never changes"):
        publish("m", DummyClassifier().fit(FRAME, [1, 2, 1, 1]), FRAME, repository=tmp_path, version=3)
    assert (tmp_path / "m" / "3" / "contract.json").read_bytes() == before
    assert sorted(entry.name for entry in (tmp_path / "m").iterdir()) == ["3", "versions.jsonl"]


def test_a_folder_that_is_no_version_is_named(tmp_path: Path) -> None:
    """A folder with the next number that holds files but no contract is not overwritten."""
    (tmp_path / "m" / "1").mkdir(parents=True)
    (tmp_path / "m" / "1" / "notes").touch()
    with pytest.raises(PublishFailed, match="exists but is not a published version"):
        publish("m", FITTED, FRAME, repository=tmp_path)


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of the disk while the artifact is written leaves no version and no draft."""

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(skops.io, "dump", full)
    with pytest.raises(PublishFailed, match="No space left"):
        publish("m", FITTED, FRAME, repository=tmp_path)
    assert list(tmp_path.rglob("*.json")) == []
    assert paths.versions(tmp_path, "m") == []
    assert list(tmp_path.glob("m/.publishing-*")) == []


def test_every_output_is_found(tmp_path: Path) -> None:
    """A transformer answers `transform`; a classifier labels and probabilities in its classes' order."""
    scaler = publish("scaler", StandardScaler().fit(FRAME), FRAME, repository=tmp_path)
    assert (scaler.kind, scaler.default_output.name, scaler.default_output.width) == ("transformer", "transform", 2)
    data = load_iris(as_frame=True)
    fitted = DummyClassifier().fit(data.data, np.asarray(data.target_names)[data.target])
    dummy = publish("dummy", fitted, data.data, repository=tmp_path)
    assert [output.name for output in dummy.outputs] == ["predict", "predict_proba"]
    assert dummy.outputs[1].classes == ("setosa", "versicolor", "virginica")


@pytest.mark.slow
@pytest.mark.processes
def test_publishers_at_once_get_their_own_versions(tmp_path: Path) -> None:
    """Two processes that publish one model at the same time get different versions, all of them complete."""
    running = [start(tmp_path, 3, "never") for _ in range(2)]
    numbers = [int(line) for process in running for line in process.communicate(timeout=120)[0].split()]
    assert sorted(numbers) == [1, 2, 3, 4, 5, 6]
    assert paths.versions(tmp_path, "m") == sorted(numbers)
    for version in numbers:
        integrity.check_artifact(tmp_path, integrity.read_contract(tmp_path, "m", version))


@pytest.mark.processes
@pytest.mark.parametrize("step", ["writing", "replaying"])
@pytest.mark.slow
def test_a_killed_publisher_leaves_no_version(tmp_path: Path, step: str) -> None:
    """SIGKILL in the middle of publishing leaves no version, and the next publisher gets the number."""
    process = start(tmp_path, 1, step)
    assert process.stdout is not None
    assert process.stdout.readline() == "here\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert len(list((tmp_path / "m").glob(".publishing-*"))) == 1
    assert paths.versions(tmp_path, "m") == []
    assert publish("m", FITTED, FRAME, repository=tmp_path).version == 1


def test_an_output_that_is_random_is_left_out(tmp_path: Path) -> None:
    """BernoulliRBM.score_samples draws at random: it has no golden answer, so only transform is served."""
    from sklearn.neural_network import BernoulliRBM

    data = np.random.default_rng(0).random((40, 3))
    contract = publish("rbm", BernoulliRBM(2, random_state=None).fit(data), data, repository=tmp_path)
    assert [output.name for output in contract.outputs] == ["transform"]


def test_a_text_pipeline_answers_each_text(tmp_path: Path) -> None:
    """A text vectorizer at the front gets a list of texts, not a frame, whose column names it would read."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    texts = ["good dog", "bad cat", "good cat", "bad dog"]
    fitted = make_pipeline(CountVectorizer(), LogisticRegression()).fit(texts, [1, 0, 1, 0])
    for sample in (pd.DataFrame({"note": texts}), texts, pd.DataFrame({"note": texts[:1]})):
        contract = publish("m", fitted, sample, repository=tmp_path, breaking=True)  # the column gets another name
        assert contract.input.form == "texts"
        assert from_rows(texts, contract.input).to_input() == texts
        assert not contract.input.columns[0].nullable


def test_an_encoder_fitted_on_none_is_given_none(tmp_path: Path) -> None:
    """A sample read from a file has NaN where the trainer had None; OneHotEncoder gets None again."""
    from sklearn.compose import make_column_transformer
    from sklearn.preprocessing import OneHotEncoder

    frame = pd.DataFrame({"shade": pd.Series(["red", None, "pale", None], dtype=object)})
    fitted = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["shade"])).fit(frame)
    read_again = pd.DataFrame({"shade": pd.Series(["red", None, "pale", None], dtype="str")})
    contract = publish("m", fitted, read_again, repository=tmp_path)
    given = from_rows([[None], ["red"]], contract.input).to_input()
    np.testing.assert_array_equal(fitted.transform(given), fitted.transform(frame.iloc[[1, 0]]))


@pytest.mark.parametrize("dtype", ["Int64", "Float64", "boolean", "UInt8", "string"])
def test_nullable_dtypes_of_pandas_are_given_again(tmp_path: Path, dtype: str) -> None:
    """A frame of pandas' nullable dtypes is published, and the estimator gets those dtypes again."""
    from sklearn.preprocessing import OneHotEncoder

    values: dict[str, list[Any]] = {"boolean": [True, False, True], "string": ["a", "b", "a"]}
    frame = pd.DataFrame({"c": pd.array(values.get(dtype, [1, 2, 1]), dtype=dtype)})
    fitted = OneHotEncoder(handle_unknown="ignore", sparse_output=False).fit(frame)
    contract = publish("m", fitted, frame, repository=tmp_path)
    given = from_rows([[value] for value in frame["c"].tolist()], contract.input).to_input()
    pd.testing.assert_frame_equal(given, frame)


@pytest.mark.parametrize(
    ("categories", "other"),
    [([1.5, 2.5, 9.0], 77.5), ([3, 4, 5], 77), (["a", "b", "c"], "zebra"), ([True, False], "true")],
)
def test_categories_of_every_type_are_given_again(tmp_path: Path, categories: list[Any], other: Any) -> None:
    """A `category` column comes back with its own categories, whatever their type; another value is refused."""
    from sklearn.preprocessing import OrdinalEncoder

    values = [categories[0], categories[1], categories[-1], categories[0]]
    frame = pd.DataFrame({"c": pd.Categorical(values, categories=categories), "n": [1.0, 2.0, 3.0, 4.0]})
    fitted = OrdinalEncoder().fit(frame)
    contract = publish("m", fitted, frame, repository=tmp_path)
    given = from_rows([[value, 1.0 + at] for at, value in enumerate(values)], contract.input).to_input()
    pd.testing.assert_frame_equal(given, frame)
    with pytest.raises(RequestRejected, match=r"not a category of this column|expected true, false"):
        from_rows([[other, 9.5]], contract.input)


def test_an_open_category_column_passes_on_what_it_does_not_know(tmp_path: Path) -> None:
    """An unknown category reaches the encoder as such, not as a missing value."""
    from sklearn.compose import make_column_transformer
    from sklearn.preprocessing import OneHotEncoder

    frame = pd.DataFrame({"c": pd.Categorical(["a", "b", None, "a"])})
    fitted = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["c"])).fit(frame)
    contract = publish("m", fitted, frame, repository=tmp_path)
    given = from_rows([["zzz"], [None], ["a"]], contract.input).to_input()
    strange = pd.DataFrame({"c": pd.Categorical(["zzz", None, "a"], categories=["a", "b", "zzz"])})
    np.testing.assert_array_equal(fitted.transform(given), fitted.transform(strange))
    assert fitted.transform(given)[0].sum() == 0


def test_an_encoder_behind_another_step_closes_no_column(tmp_path: Path) -> None:
    """An encoder behind another step was fitted on that step's numbers, so its categories are not the column's."""
    from sklearn.compose import make_column_transformer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import KBinsDiscretizer, OneHotEncoder, OrdinalEncoder

    frame = pd.DataFrame({"n": [1.0, 2.0, 30.0, 4.0, 50.0], "w": ["a", "b", "a", "c", "b"]})
    binned = make_pipeline(
        KBinsDiscretizer(3, encode="ordinal", quantile_method="averaged_inverted_cdf"), OneHotEncoder()
    )
    twice = make_pipeline(OrdinalEncoder(), OneHotEncoder())
    fitted = make_column_transformer((binned, ["n"]), (twice, ["w"])).fit(frame)
    contract = publish("m", fitted, frame, repository=tmp_path)
    number, word = contract.input.columns
    assert not number.closed
    assert word.categories == ("a", "b", "c")


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (pd.DataFrame([[1.0, 2.0]], columns=["a", "a"]), "more than one column 'a'"),
        (pd.DataFrame([[1.0, 2.0]], columns=["7", 7]), "the columns '7' and 7, which JSON writes alike"),
        (pd.DataFrame([[1.0, 2.0]], columns=["a", 0.5]), "has a float as its name. Use texts or whole numbers"),
        (pd.DataFrame({"a": pd.arrays.SparseArray([1.0, 2.0]), "b": [1.0, 2.0]}), "Sparse"),
        (pd.DataFrame({"a": pd.array([1, 2], dtype="int64[pyarrow]"), "b": [1.0, 2.0]}), "int64\\[pyarrow\\]"),
        (pd.DataFrame({"a": np.array([2**64 - 1, 1], dtype="uint64"), "b": [True, False]}), "no request could send"),
    ],
)
def test_an_unsupported_sample_is_explained(tmp_path: Path, frame: pd.DataFrame, message: str) -> None:
    """Columns that a contract cannot describe end in PublishFailed, with the reason and never another exception."""
    fitted = LinearRegression().fit(np.arange(8.0).reshape(4, 2), [1.0, 2.0, 3.0, 5.0])
    with pytest.raises(PublishFailed, match=message):
        publish("m", fitted, frame, repository=tmp_path)


def test_a_broken_model_toml_stops_an_alias_before_anything_is_published(tmp_path: Path) -> None:
    """A model.toml that cannot be read is found before publish: a command that fails must leave no version."""
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "model.toml").write_text("aliases = 3")
    with pytest.raises(PublishFailed, match=r"^m/model\.toml: .*Correct the file, or publish without an alias$"):
        publish("m", FITTED, FRAME, repository=tmp_path, alias="live")
    assert paths.versions(tmp_path, "m") == []


def test_wide_floats_are_answered_as_doubles(tmp_path: Path) -> None:
    """Answers of numpy's longdouble, which no protocol can send, are converted to float64."""
    contract = publish("m", FunctionTransformer(np.longdouble).fit(FRAME), FRAME, repository=tmp_path)
    assert contract.outputs[0].datatype == "FP64"


def test_a_linear_model_of_a_dataframe_is_published(tmp_path: Path) -> None:
    """A DataFrame's columns may be added in another order than a decoded table's: last digits do not refuse a model."""
    data = load_diabetes(as_frame=True)
    publish("ridge", Ridge().fit(data.data, data.target), data.data, repository=tmp_path)
    assert list(paths.versions(tmp_path, "ridge")) == [1]
