"""What an estimator says of itself is checked before it is believed, and written as JSON that loses nothing."""

from __future__ import annotations

import ast
import datetime
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

from tableside.errors import PublishFailed
from tableside.publishing.publish import publish
from tableside_contract import cells, facts
from tableside_contract.environment import environment, same_minor

pytestmark = pytest.mark.no_greenlets

PACKAGE = Path(facts.__file__).parent
FRAME = pd.DataFrame({"c": pd.Series(["x", None, "y", "x"], dtype=object), "n": [1.0, 2.0, 3.0, 4.0]})


class Strange:
    """Has scikit-learn's attribute names with other contents, as some libraries do."""

    n_features_in_ = 0
    feature_names_in_ = {"a": 1}
    transformers_ = {"a": 1}
    steps = "abc"
    categories_ = 3
    classes_ = "not a list"

    def __init__(self) -> None:
        self.loop = self

    @property
    def labels_(self) -> Any:
        raise RuntimeError("no labels here")

    def predict(self, data: Any) -> Any:
        return np.zeros(len(data))


def test_facts_of_a_pipeline_are_plain_json() -> None:
    """Names, width, classes, methods and categories come from the fitted parts, and survive a trip through JSON."""
    encoder = make_pipeline(SimpleImputer(strategy="most_frequent", missing_values=None), OneHotEncoder())
    model = make_pipeline(
        make_column_transformer((encoder, ["c"]), (StandardScaler(), ["n"])), LogisticRegression()
    ).fit(FRAME, ["no", "yes", "no", "yes"])
    found = facts.describe(model)
    assert found == json.loads(json.dumps(found))
    assert (found["estimator"], found["kind"]) == ("Pipeline(ColumnTransformer, LogisticRegression)", "classifier")
    assert (found["feature_names"], found["n_features"]) == (["c", "n"], 2)
    assert found["methods"] == ["predict", "predict_proba", "decision_function"]
    assert (found["classes"], found["classes_by_target"]) == (["no", "yes"], None)
    assert found["categories"] == {"c": {"values": ["x", "y"], "closed": True, "dtype": "object"}}
    assert found["libraries"] == ["numpy", "sklearn"]


def test_kinds_of_missing_stay_apart() -> None:
    """An encoder that was fitted on NaN and on None has both among its categories."""
    frame = pd.DataFrame({"c": pd.Series(["x", np.nan, None, "x"], dtype=object)})
    model = make_column_transformer((OrdinalEncoder(), ["c"])).fit(frame)
    assert facts.describe(model)["categories"]["c"]["values"] == ["x", None, {"type": "nan"}]


def test_classes_of_several_targets() -> None:
    """Each target has its own labels."""
    data, labels = np.arange(12.0).reshape(6, 2), np.array([0, 1, 0, 1, 0, 1])
    model = MultiOutputClassifier(LogisticRegression()).fit(data, np.c_[labels, labels + 5])
    found = facts.describe(model)
    assert (found["classes"], found["classes_by_target"]) == (None, [[0, 1], [5, 6]])


def test_what_a_foreign_class_makes_of_the_names_is_not_believed() -> None:
    """Attributes of another type count as absent, a property that raises too, and an object may hold itself."""
    found = facts.describe(Strange())
    assert (found["n_features"], found["feature_names"], found["categories"]) == (None, None, {})
    assert (found["estimator"], found["kind"], found["methods"]) == ("Strange", "other", ["predict"])
    assert (found["classes"], found["classes_by_target"]) == (None, None)


def test_a_foreign_exception_is_a_sentence(tmp_path: Path) -> None:
    """An estimator that raises while the contract is learned ends in PublishFailed, not in its own exception."""

    class Raising(Strange):
        def predict(self, data: Any) -> Any:
            return [] if len(data) > 2 else np.zeros(len(data))

    with pytest.raises(PublishFailed):
        publish("m", Raising(), np.ones((4, 2)), repository=tmp_path)


@pytest.mark.parametrize(
    "value",
    [
        None, True, 3, 2.5, "x", math.nan, math.inf, -math.inf, pd.NA, pd.NaT, datetime.date(2024, 2, 29),
        pd.Timestamp("2024-02-29 12:30:00.123456789"), pd.Timestamp("2024-02-29 12:30", tz="Europe/Berlin"),
    ],
    ids=repr,
)  # fmt: skip
def test_a_cell_comes_back_from_json(value: Any) -> None:
    """Every kind of cell is the same after a trip through JSON; None, NaN, NA and NaT stay apart."""
    again = cells.from_json(json.loads(json.dumps(cells.to_json(value), allow_nan=False)))
    assert type(again) is type(value)
    assert again is value or again == value or (again != again and value != value)


def test_scalars_of_numpy_become_plain() -> None:
    """numpy's scalars have no JSON; float32 keeps its exact value."""
    values = [np.int64(3), np.float32(0.1), np.bool_(True), np.str_("x"), np.float64("nan"), np.datetime64("NaT", "s")]
    assert [cells.to_json(value) for value in values] == [
        3, float(np.float32(0.1)), True, "x", {"type": "nan"}, {"type": "NaT"},
    ]  # fmt: skip
    assert cells.to_json(np.datetime64("2024-02-29")) == {"type": "datetime", "value": "2024-02-29"}
    assert cells.to_json((1, 2)) == {"type": "other", "value": "(1, 2)"}


def test_a_module_inside_an_estimator_is_no_part_of_it() -> None:
    """scipy's splines keep modules. What a module holds is not visited, and a property that raises counts as absent."""

    class Odd:
        @property
        def dtype(self) -> str:
            raise ModuleNotFoundError("no such module")

    held = Odd()
    pipeline = make_pipeline(StandardScaler())
    pipeline.kept = [json, held]
    assert [part for part in facts.parts(pipeline) if part is held or part is json.loads or part is json] == [held]
    assert facts.written_by(pipeline) == ""


def test_an_estimator_of_another_release_in_memory_is_noticed(tmp_path: Path) -> None:
    """The version that old releases keep in the state, and a parameter that is missing, name another scikit-learn."""
    assert facts.written_by(make_pipeline(StandardScaler(), LinearRegression())) == ""
    pickled = make_pipeline(StandardScaler(), LinearRegression())
    pickled.steps[1][1].__dict__["_sklearn_version"] = "1.2.2"
    assert facts.written_by(pickled) == "the LinearRegression was pickled with scikit-learn 1.2.2"
    lacking = make_pipeline(StandardScaler(), LinearRegression()).fit(FRAME[["n"]], FRAME["n"])
    del lacking.transform_input
    assert "the Pipeline lacks a parameter, so an older scikit-learn made it" in facts.written_by(lacking)
    with pytest.raises(PublishFailed, match="lacks a parameter.*but this environment has.*Publish its file instead"):
        publish("m", lacking, FRAME[["n"]], repository=tmp_path)


def test_versions_are_those_of_the_environment() -> None:
    """Libraries are named by the package that provides them; one without a version is left out."""
    found = environment(["sklearn", "yaml", "no_such_module"])
    assert found["python"].startswith("3.")
    assert {"scikit-learn", "numpy", "machine"} <= found.keys()
    assert "no_such_module" not in found
    assert same_minor("1.6.0", "1.6.1")
    assert not same_minor("1.6.1", "1.16.1")


@pytest.mark.parametrize("file", sorted(PACKAGE.glob("*.py")), ids=lambda file: file.name)
def test_the_package_is_written_for_python_38(file: Path) -> None:
    """The package of the training environment has only syntax of Python 3.8, and never imports tableside."""
    tree = ast.parse(file.read_text(), feature_version=(3, 8))
    imported = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    imported += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    assert not [name for name in imported if name.partition(".")[0] == "tableside"]
