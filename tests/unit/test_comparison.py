"""Two versions are asked the same rows; flips of labels and differences of numbers are counted right."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from sklearn.linear_model import LinearRegression

from tableside.cli import diff_view, main
from tableside.comparison import answers, process, report, row_sources
from tableside.comparison.answers import Rows
from tableside.comparison.child import ComparisonJob
from tableside.comparison.report import Side
from tableside.comparison.row_sources import Reading
from tableside.contracts import schema
from tableside.contracts.schema import Column, Contract, Golden, Input, Output
from tableside.contracts.table import Table
from tableside.errors import RequestRejected
from tableside.publishing.publish import publish
from tableside.runtimes.sklearn import SklearnRuntime
from tableside.settings import load
from tests.learned import learned
from tests.unit.test_compatibility import AGE, PREDICT, PROBABILITY, but, contract

A = Column("a", "FP64", "float64", nullable=True)
B = Column("b", "BYTES", "object", categories=("x", "y"), closed=True)
BOTH = Reading(Input("frame", (A, B)))


def rows_of(count: int) -> Rows:
    """Rows 10, 11, ... whose column `age` is 0.0, 1.0, ..."""
    table = Table(Input("frame", (AGE,)), count, {"age": np.arange(float(count))})
    return Rows([10 + at for at in range(count)], table)


def compared(
    old: Contract, new: Contract, was: dict[str, Any], now: dict[str, Any]
) -> dict[str, answers.OutputComparison]:
    first, second = ({name: np.asarray(values) for name, values in each.items()} for each in (was, now))
    found = answers.compare_outputs(old, new, first, second, rows_of(len(next(iter(first.values())))))
    return {each.name: each for each in found}


def test_flips_are_counted_and_ranked_by_probability() -> None:
    """The classes stand in another order in the new version: probabilities are compared by class."""
    turned = contract(outputs=(PREDICT, but(PROBABILITY, classes=("b", "a"))))
    found = compared(
        contract(), turned,
        {"predict": ["a", "a", "b", "b"], "predict_proba": [[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.4, 0.6]]},
        {"predict": ["a", "b", "b", "a"], "predict_proba": [[0.1, 0.9], [0.6, 0.4], [0.8, 0.2], [0.1, 0.9]]},
    )  # fmt: skip
    labels = found["predict"]
    assert (labels.rows, labels.equal_rows, labels.flips, labels.share) == (4, 2, 2, 0.5)
    assert {(*change.old, *change.new): change.rows for change in labels.changes} == {("a", "b"): 1, ("b", "a"): 1}
    assert [(row.row, row.input) for row in labels.worst] == [(13, {"age": 3.0}), (11, {"age": 1.0})]
    assert labels.worst[0].difference == pytest.approx(0.5)
    numbers = found["predict_proba"]
    assert (numbers.equal_rows, numbers.flips) == (2, None)
    assert numbers.quantiles["max"] == pytest.approx(0.5)
    assert [row.row for row in numbers.worst] == [13, 11]


def test_numbers_have_quantiles_and_what_is_not_finite_is_counted() -> None:
    """NaN on both sides is equal. On one side it is no number to take a quantile of, and such a row is a worst one."""
    outputs = (Output("predict", "FP64", 1, True),)
    old = contract(outputs=outputs, kind="regressor")
    was, now = [1.0, 2.0, np.nan, np.nan, 5.0], [1.0, 2.5, np.nan, 4.0, 4.0]
    found = compared(old, old, {"predict": was}, {"predict": now})["predict"]
    assert (found.rows, found.equal_rows, found.not_finite, found.flips) == (5, 2, 1, None)
    assert found.quantiles == pytest.approx({"p50": 0.25, "p90": 0.85, "p99": 0.985, "max": 1.0})
    assert [(row.row, row.difference) for row in found.worst] == [(13, None), (14, 1.0), (11, 0.5)]


@pytest.mark.parametrize(
    ("new", "problem"),
    [
        (contract(outputs=(PREDICT,)), "the new version does not have it"),
        (contract(outputs=(PREDICT, but(PROBABILITY, classes=("c", "d")))), "the versions have other classes"),
        (
            contract(outputs=(PREDICT, but(PROBABILITY, classes=None, width=3))),
            "it had 2 values for each row and has 3",
        ),
    ],
)
def test_what_cannot_be_compared_says_why(new: Contract, problem: str) -> None:
    """An output that is gone, or has another shape or other classes, leaves the others comparable."""
    width = 3 if "3" in problem else 2
    answered = {"predict": ["a"], "predict_proba": [[0.5] * width]}
    found = compared(contract(), new, {"predict": ["b"], "predict_proba": [[0.5, 0.5]]}, answered)
    assert (found["predict_proba"].problem, found["predict"].flips) == (problem, 1)


def test_classes_that_both_have_are_compared() -> None:
    """A class that is new leaves the old ones comparable, by name."""
    three = contract(outputs=(PREDICT, but(PROBABILITY, classes=("b", "c", "a"), width=3)))
    found = compared(
        contract(), three, {"predict": ["a"], "predict_proba": [[0.7, 0.3]]},
        {"predict": ["a"], "predict_proba": [[0.25, 0.1, 0.65]]},
    )["predict_proba"]  # fmt: skip
    assert found.quantiles["max"] == pytest.approx(0.05)


def test_a_number_is_a_label_where_the_model_groups() -> None:
    """A classifier's 0 and 1 are labels, whatever their type; a regressor's answers are quantities."""
    whole = contract(outputs=(but(PREDICT, datatype="INT64"),))
    assert answers.is_label(whole.outputs[0], whole)
    assert not answers.is_label(whole.outputs[0], but(whole, kind="regressor"))
    found = compared(whole, whole, {"predict": [0, 1, 1]}, {"predict": [0, 1, 0]})["predict"]
    assert (found.flips, found.quantiles) == (1, {})


FRAME = pd.DataFrame({"a": [1.0, 2.0, None, 4.0], "b": ["x", "y", "x", "z"], "target": [0, 1, 0, 1]})
WITHOUT_MISSING = Reading(Input("frame", (msgspec.structs.replace(A, nullable=False),)))


def write(folder: Path, ending: str, frame: pd.DataFrame = FRAME) -> Path:
    file = folder / f"rows{ending}"
    if ending == ".csv":
        frame.to_csv(file, index=False)
    elif ending == ".parquet":
        frame.to_parquet(file)
    else:
        frame.to_json(file, orient="records", lines=True)
    return file


@pytest.mark.parametrize("ending", row_sources.ENDINGS)
def test_rows_that_a_version_refuses_are_counted_and_left_out(tmp_path: Path, ending: str) -> None:
    """One version refuses a category, the other a missing cell; a column that is in the file only is left out."""
    found = row_sources.compare_rows(row_sources.of_file(write(tmp_path, ending)), BOTH, WITHOUT_MISSING)
    assert found.numbers == [0, 1]
    assert (found.refused_by_old.rows, found.refused_by_old.first) == (1, 3)
    assert found.refused_by_old.reason == "b: not a category of this column; expected one of x, y"
    assert (found.refused_by_new.rows, found.refused_by_new.first) == (1, 2)
    assert found.refused_by_new.reason.startswith("a: expected a number, got null")
    assert found.old is not None and found.new is not None
    assert (found.old.rows, found.new.rows) == (2, 2)


@pytest.mark.parametrize("ending", row_sources.ENDINGS)
def test_a_column_that_is_missing_refuses_every_row(tmp_path: Path, ending: str) -> None:
    """A version that needs a column which the rows do not have is not compared, and the reason names the column."""
    source = row_sources.of_file(write(tmp_path, ending, FRAME[["b"]]))
    found = row_sources.compare_rows(source, BOTH, WITHOUT_MISSING)
    assert (found.numbers, found.refused_by_new.rows) == ([], 4)
    reasons = {".jsonl": "the row: a row without a cell; expected a"}
    missing = "inputs.a: this column is missing, and it does not accept missing values"
    assert reasons.get(ending, missing) in found.refused_by_new.reason


def test_words_for_missing_cells_are_those_of_model_toml(tmp_path: Path) -> None:
    """A version reads a CSV file as it reads a CSV request."""
    column = Column("b", "BYTES", "object", nullable=True)
    source = row_sources.of_file(write(tmp_path, ".csv", pd.DataFrame({"b": ["none", "x"]})))
    plain, own = Reading(Input("frame", (column,))), Reading(Input("frame", (column,)), {"b": frozenset({"none"})})
    found = row_sources.compare_rows(source, plain, own)
    assert found.old is not None and found.new is not None
    assert found.old.arrays is not None and found.new.arrays is not None
    assert (found.old.arrays["b"].tolist()[0], str(found.new.arrays["b"][0])) == ("none", "nan")


def test_a_cell_may_be_refused_for_one_reason_after_another(tmp_path: Path) -> None:
    """A cell of the wrong type and one of an unknown category are both found, and the first one is named."""
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(json.dumps({"a": 1.0, "b": cell}) for cell in ("x", "z", 5, "y", None)))
    found = row_sources.compare_rows(row_sources.of_file(file), BOTH, BOTH)
    assert (found.numbers, found.refused_by_old.rows, found.refused_by_old.first) == ([0, 3], 3, 1)


def test_golden_rows_of_both_versions_are_taken_once() -> None:
    """The same row in both contracts is asked once; rows are taken by name, so the order of columns does not matter."""
    old = msgspec.structs.replace(contract((A, B)), golden=Golden(((1.0, "x"), (2.0, "y")), {}))
    new = msgspec.structs.replace(contract((A, B)), golden=Golden(((2.0, "y"), (3.0, "x")), {}))
    assert row_sources.golden(old, new).count == 3
    assert row_sources.golden(old, old).count == 2


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("rows.xlsx", b"", "rows are read from files that end in .csv, .parquet, .jsonl"),
        ("rows.jsonl", b"{\n", "not a .jsonl file"),
        ("rows.parquet", b"PAR1", "not a .parquet file"),
        ("rows.csv", b"\xff\xfe", "not a .csv file"),
        ("rows.csv", None, "No such file"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(tmp_path: Path, name: str, content: bytes | None, reason: str) -> None:
    """The ending decides how a file is read."""
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(RequestRejected, match=reason):
        row_sources.of_file(tmp_path / name)


def linear(slope: float) -> Side:
    """A version that answers slope * a."""
    frame = pd.DataFrame({"a": [1.0, 2.0, 3.0, 4.0]})
    fitted = LinearRegression().fit(frame, frame["a"] * slope)
    return Side(learned(fitted, frame), SklearnRuntime(fitted))


def test_loaded_versions_are_compared_on_golden_rows() -> None:
    """Equal versions differ nowhere; both sizes of calls are measured for both versions, the same number of times."""
    found = report.compare_answers(linear(2.0), linear(3.0), latency_budget_s=0.05)
    assert (found.source, found.rows, found.compared, found.problem) == ("golden rows", 4, 4, "")
    assert found.outputs[0].quantiles["max"] == pytest.approx(4.0)
    assert [latency.rows for latency in found.latency] == [1, 4]
    assert all(latency.calls > 0 and latency.ratio_p50 > 0 for latency in found.latency)
    same = report.compare_answers(linear(2.0), linear(2.0), latency_budget_s=0.0)
    assert (same.outputs[0].equal_rows, same.outputs[0].worst, same.latency) == (4, (), ())


def test_a_version_that_raises_is_a_problem_and_no_error() -> None:
    """Whatever an estimator raises becomes a sentence."""

    class Broken(SklearnRuntime):
        """Raises for every row."""

        def run(self, method: str, data: Any) -> Any:
            raise ZeroDivisionError("by nothing")

    old, new = linear(2.0), linear(3.0)
    assert isinstance(new.runtime, SklearnRuntime)
    found = report.compare_answers(old, Side(new.contract, Broken(new.runtime.estimator)), latency_budget_s=0.0)
    assert found.problem == "a version raised ZeroDivisionError on these rows: by nothing"


def test_facts_are_those_that_differ() -> None:
    """What clients do not see is listed beside: libraries, estimator, backends. What is equal is left out."""
    old = contract()
    new = msgspec.structs.replace(
        old, version=2, estimator="F", environment={"numpy": "2"}, trained_with={"numpy": "1"}
    )
    found = report.compare_contracts(old, new)
    assert (found.old, found.new, found.breaking, found.differences) == ("m/1", "m/2", False, ())
    assert [(fact.name, fact.old, fact.new) for fact in found.facts] == [
        ("estimator", "E", "F"), ("trained with: numpy", "-", "1"), ("published with: numpy", "-", "2"),
    ]  # fmt: skip


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository, which is empty, and a run folder without a stack."""
    monkeypatch.setenv("TABLESIDE__SERVER__RUN_DIR", str(tmp_path / "run"))
    return tmp_path / "models"


def diff(root: Path, *words: str) -> Result:
    return CliRunner().invoke(main, ["diff", *words, "--repository", str(root)])


def test_contracts_are_compared_without_a_load(root: Path) -> None:
    """Exit status 1 for differences that break clients, 0 for none, 2 for a version that is not there."""
    for number, column in enumerate((AGE, AGE, but(AGE, name="years")), 1):
        made = but(contract((column,)), version=number, golden=Golden((), {"predict": (), "predict_proba": ()}))
        (root / "m" / str(number)).mkdir(parents=True)
        (root / "m" / str(number) / "contract.json").write_bytes(schema.encode(made))
    done = diff(root, "m/1", "m/3", "--contracts")
    assert done.exit_code == 1
    assert done.stdout.startswith("clients of m/1 see 1 difference in m/3; 1 breaks them\n")
    assert "column 'age' is called 'years' now" in done.stdout
    done = diff(root, "m/1", "m/2", "--contracts", "--json")
    assert (done.exit_code, json.loads(done.stdout)["answers"]) == (0, None)
    assert diff(root, "m/1", "m/9").exit_code == 2


@pytest.mark.slow
def test_versions_are_compared_in_a_process_of_their_own(tmp_path: Path, root: Path) -> None:
    """Text and JSON have the answers to the rows of a file. If a version does not load, the exit status is 1."""
    frame = pd.DataFrame({"a": [1.0, 2.0, 3.0, 4.0]})
    for slope in (2.0, 3.0):
        fitted = LinearRegression().fit(frame, frame["a"] * slope)
        publish("m", fitted, frame, repository=root, quick=True, runtime="sklearn")
    rows = tmp_path / "rows.csv"
    pd.DataFrame({"a": [10.0, 20.0]}).to_csv(rows, index=False)
    done = diff(root, "m/1", "m/2", "--data", str(rows))
    assert done.exit_code == 0, done.output
    assert "answers to 2 of 2 rows (rows.csv)" in done.stdout
    assert "a 20" in done.stdout and "ratio p50" in done.stdout
    job = ComparisonJob(str(root), ("m", 1), ("m", 2), load().repository, 1)
    assert process.compare(job).problem.startswith("the process that compares the versions ended: exit code 1")
    assert process.compare(but(job, parent=os.getpid()), limit_s=0.1).problem == "it took longer than 0.1 s"
    artifact = root / "m" / "2" / "model.skops"
    artifact.chmod(0o644)
    artifact.write_bytes(artifact.read_bytes()[:-9])
    done = diff(root, "m/1", "m/2", "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["answers"]["problem"].startswith("m/2 does not load: ")


def test_how_the_process_ended_is_in_words() -> None:
    """A load that takes too long names its setting; a kill names the likely cause."""
    job = ComparisonJob("", ("m", 1), ("m", 2), load().repository, 1)
    assert "repository.load_timeout_s" in process.ending(-signal.SIGALRM, b"", job)
    assert process.ending(-signal.SIGKILL, b"", job).endswith("ran out of memory.")
    assert process.ending(-signal.SIGSEGV, b" deep \n trouble", job).endswith("SIGSEGV. deep trouble")


def test_the_view_escapes_what_would_move_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    """Labels and cells come from files of others."""
    found = compared(
        contract(outputs=(PREDICT,)), contract(outputs=(PREDICT,)), {"predict": ["a"]}, {"predict": ["\x1b[2J"]}
    )
    answer = report.AnswerComparison("rows", 1, 1, outputs=(found["predict"],))
    diff_view.show(report.Comparison("m/1", "m/2", False, (), (), answer))
    assert "\x1b" not in capsys.readouterr().out
