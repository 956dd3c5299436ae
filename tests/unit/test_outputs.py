"""The outputs of an estimator, found by calling its methods, and the checks of the trainer's files."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.ensemble import IsolationForest, RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.preprocessing import StandardScaler

from tableside.errors import PublishFailed
from tableside.publishing import estimator_files, outputs
from tableside.runtimes.sklearn import SklearnRuntime
from tableside_contract.facts import describe

pytestmark = pytest.mark.no_greenlets

DATA = np.arange(12.0).reshape(6, 2)
LABELS = np.array([0, 1, 0, 1, 0, 1])
CALLS = itertools.count()


class Answering:
    """Answers `transform` with what `answer` returns for the rows."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def transform(self, data: Any) -> Any:
        return self.answer(data)


def found(estimator: object) -> tuple[list[str], dict[str, str]]:
    described, left_out = outputs.find(SklearnRuntime(estimator), DATA)
    return [output.name for output in described], left_out


@pytest.mark.parametrize(
    ("estimator", "kind"),
    [
        (LogisticRegression(), "classifier"),
        (LinearRegression(), "regressor"),
        (IsolationForest(), "outlier_detector"),
        (KMeans(2, n_init=1).fit(DATA), "clusterer"),
        (StandardScaler(), "transformer"),
        (Answering(len), "transformer"),
        (object(), "other"),
    ],
)
def test_the_kind_is_named_as_in_the_contract(estimator: object, kind: str) -> None:
    """scikit-learn's tags decide; the methods do for an object that is not of scikit-learn."""
    assert describe(estimator)["kind"] == kind


def test_outputs_come_in_a_fixed_order() -> None:
    """`predict` is first, so it is the default output."""
    names, left_out = found(LogisticRegression().fit(DATA, LABELS))
    assert names == ["predict", "predict_proba", "decision_function"]
    assert left_out == {}


def test_a_method_that_raises_is_left_out_with_its_reason() -> None:
    """An estimator stays publishable without an output that it refuses to give."""
    fitted = LogisticRegression().fit(DATA, LABELS)

    def refuse(data: Any) -> Any:
        raise RuntimeError("not this one")

    fitted.predict_proba = refuse
    names, left_out = found(fitted)
    assert names == ["predict", "decision_function"]
    assert left_out == {"predict_proba": "RuntimeError: not this one"}


def test_predict_may_not_raise() -> None:
    """An estimator that cannot predict its own sample is refused with its own error."""
    with pytest.raises(PublishFailed, match="^the estimator cannot predict its own sample: NotFittedError: "):
        found(LinearRegression())


def test_one_output_for_each_target() -> None:
    """A list of arrays, as forests give for several targets, becomes one output an array, with its classes."""
    both = np.c_[LABELS, LABELS + 5]
    described, _ = outputs.find(SklearnRuntime(RandomForestClassifier(3, random_state=0).fit(DATA, both)), DATA)
    assert [(o.name, o.source, o.part, o.classes) for o in described[1:]] == [
        ("predict_proba_0", "predict_proba", 0, (0, 1)),
        ("predict_proba_1", "predict_proba", 1, (5, 6)),
    ]
    assert (described[0].width, described[0].flat) == (2, False)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (lambda data: np.zeros((len(data), 2, 2)), "the answer has 3 dimensions, expected 1 or 2"),
        (lambda data: np.zeros(len(data) + 1), "the answer has 7 rows for 6 rows of input"),
        (lambda data: np.array([1, "x", 2.0, None, 3, 4], dtype=object), "the answer mixes values of several types"),
        (lambda data: np.zeros(len(data), dtype="datetime64[s]"), "the answer has the dtype datetime64[s]"),
        (lambda data: np.zeros(len(data), dtype=complex), "the answer has the dtype complex128"),
        (lambda data: np.full(len(data), next(CALLS)), "the answer for the same rows changes from call to call"),
    ],
)
def test_an_answer_no_contract_can_describe_is_explained(answer: Any, reason: str) -> None:
    """With no output left, publish fails and gives the reason for each method."""
    with pytest.raises(PublishFailed) as failed:
        found(Answering(answer))
    assert "the estimator has nothing to serve" in str(failed.value)
    assert "; transform: TypeError: " in str(failed.value)
    assert reason in str(failed.value)


def test_an_object_without_methods_has_nothing_to_serve() -> None:
    """The error names the methods that publish looks for."""
    with pytest.raises(PublishFailed, match="needs one of the methods predict, predict_proba, .*transform$"):
        found(object())


@pytest.mark.parametrize(
    ("values", "datatype"),
    [
        (np.array([True]), "BOOL"),
        (np.array([1], dtype="uint8"), "INT64"),
        (np.array([1.0], dtype="float32"), "FP32"),
        (np.array([1.0]), "FP64"),
        (np.array(["x"]), "BYTES"),
        (np.array(["x", "y"], dtype=object), "BYTES"),
        (np.array([True, False], dtype=object), "BOOL"),
        (np.array([1, 2], dtype=object), "INT64"),
    ],
)
def test_datatypes_of_answers(values: Any, datatype: str) -> None:
    """Object arrays have the datatype of their cells when those are all of one type."""
    assert outputs.datatype_of(values) == datatype


def test_a_file_that_is_not_a_pickle_is_explained(tmp_path: Path) -> None:
    """The error names the file and the reader's own error."""
    (tmp_path / "x.joblib").write_bytes(b"no pickle at all")
    with pytest.raises(PublishFailed, match=r"x\.joblib cannot be read as a joblib or pickle file: \w+"):
        estimator_files.load(tmp_path / "x.joblib")
    with pytest.raises(PublishFailed, match=r"y\.joblib: no such file$"):
        estimator_files.load(tmp_path / "y.joblib")


def test_a_missing_module_is_named() -> None:
    """A pickle of a class whose module cannot be imported names the module and two ways to provide it."""
    content = b"\x80\x04cchurnlib.models\nChurn\n."
    with pytest.raises(PublishFailed, match=r"^x: the model uses the module 'churnlib', .* `--code churnlib\.py`; "):
        estimator_files.load_bytes(content, "x")


def test_only_fitted_estimators_pass(tmp_path: Path) -> None:
    """Other objects are named by their type; an estimator that is not fitted is told to be fitted first."""
    with pytest.raises(PublishFailed, match="^x holds an object of type dict, not an estimator"):
        estimator_files.check({}, "x")
    with pytest.raises(PublishFailed, match="^x: the LinearRegression is not fitted. Call fit before saving it$"):
        estimator_files.check(LinearRegression(), "x")
    joblib.dump(LinearRegression().fit(DATA, LABELS), tmp_path / "x.joblib")
    loaded = estimator_files.load(tmp_path / "x.joblib")
    assert isinstance(loaded, LinearRegression)
    strange = Answering(len)
    assert estimator_files.check(strange, "x") is strange
