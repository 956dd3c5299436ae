"""The trainer's answers are compared with those here, row by row, and become the golden answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from tableside.cli import main
from tableside.contracts.schema import Output
from tableside.errors import PublishFailed
from tableside.publishing import sources, training_record
from tableside.publishing.publish import publish
from tableside.publishing.trainers_answers import TrainersAnswers, spellings
from tableside.repository import integrity, paths
from tableside.settings import Repository
from tableside_contract import RecordFailed, contract
from tableside_contract.__main__ import main as make_record

pytestmark = pytest.mark.no_greenlets

WINE = load_wine(as_frame=True)
LABELS = WINE.target.map({0: "barolo", 1: "grignolino", 2: "barbera"})
MODEL = make_pipeline(StandardScaler(), LogisticRegression()).fit(WINE.data, LABELS)
PROBABILITIES = MODEL.predict_proba(WINE.data)
ALL = {
    "predict": MODEL.predict(WINE.data), "predict_proba": PROBABILITIES,
    "decision_function": MODEL.decision_function(WINE.data),
}  # fmt: skip


def columns(answers: dict[str, Any]) -> pd.DataFrame:
    """Answers as the columns of a file, by position."""
    found: dict[str, Any] = {}
    for name, array in answers.items():
        if array.ndim == 1:
            found[name] = array
        else:
            found |= {f"{name}_{at}": array[:, at] for at in range(array.shape[1])}
    return pd.DataFrame(found)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    joblib.dump(MODEL, tmp_path / "wine.joblib")
    WINE.data.to_csv(tmp_path / "wine.csv", index=False)
    return tmp_path


def call(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def publish_files(files: Path, *more: object) -> Result:
    words = ("publish", "wine", files / "wine.joblib", "--sample", files / "wine.csv", "--repository", files / "r")
    return call(*words, *more)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
@pytest.mark.parametrize("by_class", [False, True])
def test_answers_of_every_output_are_the_trainers(files: Path, ending: str, by_class: bool) -> None:
    """With every output in the file, the golden answers are the trainer's, by position or by class."""
    frame = columns(ALL)
    if by_class:
        names = {f"predict_proba_{at}": f"predict_proba_{label}" for at, label in enumerate(MODEL.classes_)}
        frame = frame.rename(columns=names)
    path = files / f"answers.{ending}"
    frame.to_csv(path, index=False) if ending == "csv" else frame.to_parquet(path)
    done = publish_files(files, "--expect", path, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["notes"] == []
    published = integrity.read_contract(files / "r", "wine", 1)
    assert published.golden.origin == "trainer"
    assert published.trained_with.keys() == {"numpy", "scikit-learn"}
    assert "the trainer's answers" in call("show", "wine", "--repository", files / "r").stdout


def test_without_answers_a_note_says_what_is_not_proved(files: Path) -> None:
    """The golden answers of a joblib file prove the server against itself, and publish says so."""
    done = publish_files(files)
    assert "note: the golden answers were computed here, so they prove this server against itself" in done.stdout
    assert "--expect FILE" in done.stdout
    assert integrity.read_contract(files / "r", "wine", 1).golden.origin == "publish"


class Doubling:
    """An estimator without any class of scikit-learn."""

    def predict(self, data: Any) -> Any:
        return np.asarray(data)[:, 0] * 2.0


def test_a_file_without_a_version_is_noted(tmp_path: Path) -> None:
    """A file without an estimator of scikit-learn names no version: nothing is compared, and a note says so."""
    joblib.dump(Doubling(), tmp_path / "m.joblib")
    prepared = sources.prepare(tmp_path / "m.joblib", sources.Request(WINE.data), Repository())
    assert prepared.trained_with == {}
    assert prepared.notes == ("m.joblib does not say which scikit-learn wrote it, so no version was compared",)


def test_some_outputs_are_not_all(files: Path) -> None:
    """With the labels alone, the note names the outputs that are not proved, and the origin stays publish."""
    pd.DataFrame({"predict": ALL["predict"]}).to_csv(files / "answers.csv", index=False)
    done = publish_files(files, "--expect", files / "answers.csv")
    assert (
        "note: predict agree with the trainer's answers; the golden answers of predict_proba, decision" in done.stdout
    )
    assert integrity.read_contract(files / "r", "wine", 1).golden.origin == "publish"


def test_a_difference_names_output_row_and_distance(files: Path) -> None:
    """One changed probability or label refuses the version."""
    other = PROBABILITIES.copy()
    other[17, 1] += 0.25
    with pytest.raises(PublishFailed) as failed:
        publish("m", MODEL, WINE.data, repository=files / "r", expect={**ALL, "predict_proba": other})
    assert "predict_proba differs in 1 of 178 rows; the largest difference is in row 17, column 1: " in str(
        failed.value
    )
    assert ", 0.25 apart. " in str(failed.value)
    labels = ALL["predict"].copy()
    labels[3] = "barbera"
    with pytest.raises(PublishFailed, match="predict differs in 1 of 178 rows.*row 3: 'barbera' there, 'barolo' here"):
        publish("m", MODEL, WINE.data, repository=files / "r", expect={"predict": labels})
    assert paths.versions(files / "r", "m") == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda frame: frame.iloc[:5], "answers.csv has 5 rows, but the sample has 178"),
        (lambda frame: frame.assign(extra=1), "no complete output of this estimator: extra. Its outputs and their col"),
        (lambda frame: frame.drop(columns="predict_proba_1"), "predict_proba_0, predict_proba_2"),
        (lambda frame: frame.assign(decision_function_0="x"), "row 0, column decision_function_0: not a FP64: 'x'"),
    ],
)
def test_a_file_that_does_not_fit_is_explained(files: Path, change: Any, message: str) -> None:
    """Too few rows, unknown columns, half an output and text in place of numbers are errors that name the place."""
    change(columns(ALL)).to_csv(files / "answers.csv", index=False)
    done = publish_files(files, "--expect", files / "answers.csv")
    assert (done.exit_code, message in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize(("name", "message"), [("a.txt", "must be a .csv or .parquet file"), ("a.csv", "no such file")])
def test_a_file_that_is_none_is_named(files: Path, name: str, message: str) -> None:
    """The error begins with the path."""
    done = publish_files(files, "--expect", files / name)
    assert f"{files / name}: " in done.stderr
    assert message in done.stderr


@pytest.mark.parametrize(
    ("datatype", "cell", "expected"),
    [
        ("INT64", "3", 3), ("INT64", "3.0", 3), ("FP64", "0.5", 0.5), ("FP64", "", None), ("FP64", "nan", None),
        ("BOOL", "True", True), ("BOOL", "0", False), ("BYTES", "00501", "00501"), ("BYTES", "nan", "nan"),
        ("FP32", "0.1", float(np.float32(0.1))),
    ],
)  # fmt: skip
def test_cells_of_text_have_the_type_of_the_output(datatype: Any, cell: str, expected: Any) -> None:
    """No type is guessed: the output says what a cell of CSV is."""
    output = Output("predict", datatype, 1, True)
    found = TrainersAnswers("a.csv", {"predict": [cell]}).for_outputs([output], 1)
    assert found == {"predict": ((expected,),)}
    assert type(found["predict"][0][0]) is type(expected)


@pytest.mark.parametrize(("datatype", "cell"), [("INT64", "3.5"), ("BOOL", "maybe"), ("FP64", "high")])
def test_cells_of_another_type_are_refused(datatype: Any, cell: str) -> None:
    """The error names file, row and column."""
    with pytest.raises(PublishFailed, match=f"a.csv, row 0, column predict: not a {datatype}: '{cell}'"):
        TrainersAnswers("a.csv", {"predict": [cell]}).for_outputs([Output("predict", datatype, 1, True)], 1)


def test_columns_are_named_by_position_or_by_class() -> None:
    """The output of one target of several has its own number before the column's."""
    output = Output("predict_proba_1", "FP64", 2, False, ("a", "b"), "predict_proba", 1)
    assert spellings(output) == [("predict_proba_1_0", "predict_proba_1_1"), ("predict_proba_1_a", "predict_proba_1_b")]


MIXED = pd.DataFrame(
    {
        "zip": pd.Series(["00501", "10115", None, "00501", "90210", "10115"] * 5, dtype=object),
        "grade": pd.Categorical(["low", "high", "low", None, "high", "mid"] * 5, ["low", "mid", "high"], ordered=True),
        "n": np.linspace(-1, 1, 30).astype("float32"),
        "count": np.arange(30, dtype="int16"),
    }
)


def mixed_model() -> Any:
    encoder = OneHotEncoder(handle_unknown="ignore")
    table = make_column_transformer((encoder, ["zip", "grade"]), (StandardScaler(), ["n", "count"]))
    return make_pipeline(table, DecisionTreeClassifier(max_depth=3, random_state=0)).fit(MIXED, np.arange(30) % 3)


@pytest.mark.slow
def test_a_training_record_brings_artifact_sample_and_answers(tmp_path: Path) -> None:
    """The record's DataFrame is the trainer's, cell by cell and dtype by dtype; its answers become golden answers."""
    model = mixed_model()
    made = contract(model, MIXED, tmp_path / "record")
    record = training_record.read(tmp_path / "record")
    pd.testing.assert_frame_equal(training_record.sample_of(record, tmp_path / "record"), MIXED)
    assert record.answers["predict_proba"].rows == model.predict_proba(MIXED).tolist()
    done = call("publish", "m", tmp_path / "record", "--repository", tmp_path / "r", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["notes"] == []
    published = integrity.read_contract(tmp_path / "r", "m", 1)
    assert (published.golden.origin, published.source) == ("trainer", {"format": "training record"})
    assert dict(published.trained_with) == made["trained_with"]
    assert published.golden.answers["predict_proba"] == tuple(
        tuple(model.predict_proba(MIXED)[at]) for at in golden_positions(published)
    )


def golden_positions(published: Any) -> list[int]:
    """The rows of MIXED that are golden rows; `count` numbers them."""
    at = [column.name for column in published.input.columns].index("count")
    return [row[at] for row in published.golden.rows]


def test_a_record_whose_answers_differ_is_refused(tmp_path: Path) -> None:
    """A record is compared like any other answers of the trainer."""
    contract(MODEL, WINE.data, tmp_path / "record")
    path = tmp_path / "record" / "training.json"
    content = json.loads(path.read_text())
    content["answers"]["predict_proba"]["rows"][5][0] += 0.125
    path.write_text(json.dumps(content))
    done = call("publish", "m", tmp_path / "record", "--repository", tmp_path / "r")
    assert "predict_proba differs in 1 of 178 rows; the largest difference is in row 5, column 0" in done.stderr
    assert ", 0.12 apart" in done.stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda record: record.update(format=2), "has the format 2, and this version of Tableside reads format 1"),
        (lambda record: record["artifact"].update(sha256="0"), "model.skops is damaged"),
        (lambda record: record["artifact"].update(file="../x"), "training.json: Invalid enum value '../x'"),
        (lambda record: record["rows"][0].pop(), "a row has another number of cells"),
        (lambda record: record["columns"][0].update(dtype="no dtype"), "cannot be made with the dtype no dtype"),
        (lambda record: record.pop("rows"), "missing required field `rows`"),
    ],
)
def test_a_broken_record_is_explained(tmp_path: Path, change: Any, message: str) -> None:
    """What is wrong with the file is one line; a path out of the folder is not followed."""
    contract(MODEL, WINE.data, tmp_path / "record")
    path = tmp_path / "record" / "training.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    done = call("publish", "m", tmp_path / "record", "--repository", tmp_path / "r")
    assert (done.exit_code, message in done.stderr) == (2, True), done.stderr


def test_a_record_with_a_pickle_is_read_only_when_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without skops the record holds a joblib file, and reading it runs its code: --allow-pickle, as for MLflow."""
    monkeypatch.setitem(__import__("sys").modules, "skops.io", None)
    contract(MODEL, WINE.data, tmp_path / "record")
    monkeypatch.undo()
    assert (tmp_path / "record" / "model.joblib").is_file()
    words = ("publish", "m", tmp_path / "record", "--repository", tmp_path / "r")
    assert "reading one runs the code in it" in call(*words).stderr
    assert call(*words, "--allow-pickle").exit_code == 0


def test_a_record_takes_no_other_sample(tmp_path: Path) -> None:
    """A record has its own rows, and the answers belong to them."""
    contract(MODEL, WINE.data, tmp_path / "record")
    with pytest.raises(PublishFailed, match="is a training record, with a sample and answers of its own"):
        publish("m", tmp_path / "record", WINE.data, repository=tmp_path / "r")


@pytest.mark.parametrize("rows", [WINE.data.to_numpy(), WINE.data.to_numpy().astype("float32")], ids=["f8", "f4"])
def test_an_array_is_recorded_as_an_array(rows: Any, tmp_path: Path) -> None:
    """An estimator that was fitted on an array is asked with an array."""
    model = StandardScaler().fit(rows)
    contract(model, rows, tmp_path / "record")
    published = publish("m", tmp_path / "record", repository=tmp_path / "r")
    assert (published.input.form, published.golden.origin) == ("matrix", "trainer")


def test_a_long_sample_is_cut_and_keeps_its_extremes(tmp_path: Path) -> None:
    """At most `max_rows` rows are kept, and each column's smallest and largest value and a missing cell are there."""
    values = np.sin(np.arange(5000.0))
    values[4321] = np.nan
    frame = pd.DataFrame({"a": values, "b": np.arange(5000)})
    from sklearn.impute import SimpleImputer

    made = contract(SimpleImputer().fit(frame), frame, tmp_path / "record", max_rows=100)
    kept = training_record.sample_of(training_record.read(tmp_path / "record"), tmp_path / "record")
    assert len(made["rows"]) == 100
    assert (kept["a"].min(), kept["a"].max(), kept["a"].isna().sum()) == (np.nanmin(values), np.nanmax(values), 1)
    assert (kept["b"].min(), kept["b"].max()) == (0, 4999)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "price"}, "no target column 'price'"),
        ({"sample": WINE.data.iloc[:0]}, "the sample has no rows"),
        ({"sample": WINE.frame}, "columns that the estimator does not take: target"),
        ({"sample": WINE.data[["alcohol"]]}, "lacks columns that the estimator was fitted on: malic_acid"),
        ({"sample": "none.csv"}, "none.csv: no such file"),
        ({"estimator": LogisticRegression(), "sample": WINE.data}, "does not answer its own sample"),
    ],
)
def test_a_record_that_cannot_be_made_is_explained(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    """The error says what to change, and no folder is left."""
    given = {"estimator": MODEL, "sample": WINE.data, **options}
    with pytest.raises(RecordFailed, match=message):
        contract(given["estimator"], given["sample"], tmp_path / "record", target=given.get("target"))
    assert list(tmp_path.iterdir()) == []


def test_the_command_reads_text_as_the_encoder_was_fitted(tmp_path: Path) -> None:
    """A CSV column whose encoder was fitted on text is read as text, and its missing cells are None as in training."""
    joblib.dump(mixed_model(), tmp_path / "m.joblib")
    MIXED.to_csv(tmp_path / "s.csv", index=False)
    words = ["m.joblib", "--sample", "s.csv", "--out", "record"]
    assert make_record([str(tmp_path / word) if not word.startswith("--") else word for word in words]) == 0
    rows = training_record.read(tmp_path / "record").rows
    assert [row[0] for row in rows[:3]] == ["00501", "10115", None]


def test_errors_of_the_command_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit status 2, and the reason on standard error; `tableside contract` prints the same."""
    words = [str(tmp_path / "none.joblib"), "--sample", "s.csv", "--out", str(tmp_path / "record")]
    assert make_record(words) == 2
    assert capsys.readouterr().err == f"tableside_contract: {tmp_path / 'none.joblib'}: no such file\n"
    done = call("contract", *words)
    assert (done.exit_code, done.stderr) == (2, f"tableside: {tmp_path / 'none.joblib'}: no such file\n")


def test_the_command_of_tableside_makes_a_record(files: Path) -> None:
    """`tableside contract` writes a record that `tableside publish` takes."""
    done = call("contract", files / "wine.joblib", "--sample", files / "wine.csv", "--out", files / "record")
    assert done.exit_code == 0, done.output
    assert "178 rows, answers of predict, predict_proba, decision_function" in done.stdout
    assert publish("wine", files / "record", repository=files / "r").golden.origin == "trainer"
