"""Where an estimator raised an exception: the step from the traceback, the columns from the text and the table."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import VotingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from tableside.contracts import failure_place
from tableside.contracts.schema import Column, Input
from tableside.decoding.json_tables import from_rows

FRAME = pd.DataFrame({"age": np.arange(40.0), "income": np.arange(40.0) ** 2, "town": ["a", "b"] * 20})
LABELS = np.arange(40) % 2
COLUMNS = (
    Column("age", "FP64", "float64", nullable=True),
    Column("income", "FP64", "float64", nullable=True),
    Column("town", "BYTES", "object", nullable=True),
)
GOOD: list[Any] = [1.0, 2.0, "a"]


def preprocess(number: Any) -> ColumnTransformer:
    return ColumnTransformer([("numbers", number, ["age", "income"]), ("words", OneHotEncoder(), ["town"])])


def place_of(estimator: Any, row: list[Any], columns: tuple[Column, ...] = COLUMNS, form: Any = "frame") -> Any:
    table = from_rows([GOOD[: len(columns)], row], Input(form, columns))
    with pytest.raises(ValueError) as caught:
        estimator.predict(table.to_input())
    return failure_place.find(caught.value, table)


@pytest.mark.parametrize(
    ("estimator", "step"),
    [
        (Pipeline([("prep", preprocess(StandardScaler())), ("model", LogisticRegression())]), ("model",)),
        (
            GridSearchCV(
                Pipeline([("prep", preprocess(StandardScaler())), ("model", LogisticRegression())]),
                {"model__C": [1.0]}, cv=2,
            ),
            ("model",),
        ),
        (
            Pipeline([("prep", preprocess("passthrough")), ("vote", VotingClassifier([("lr", LogisticRegression())]))]),
            ("vote", "lr"),
        ),
    ],
)  # fmt: skip
def test_a_missing_value_names_step_and_column(estimator: Any, step: tuple[str, ...]) -> None:
    """A step that takes no NaN is named, with the columns that have one."""
    found = place_of(estimator.fit(FRAME, LABELS), [1.0, None, "a"])
    assert found == (step, ("income",), "it takes no missing value")
    assert str(found) == f" in step '{' > '.join(step)}', column 'income': it takes no missing value"


def test_a_category_names_the_encoder_s_column() -> None:
    """The column's number in scikit-learn's text is one of the transformer's own columns."""
    fitted = Pipeline([("prep", preprocess(SimpleImputer())), ("model", LogisticRegression())]).fit(FRAME, LABELS)
    found = place_of(fitted, [1.0, 2.0, "elsewhere"])
    assert found == (("prep", "words"), ("town",), "a category that it was not fitted on")


def test_columns_by_position_and_unions() -> None:
    """Columns that are selected by number have the table's names; a FeatureUnion's parts are steps as well."""
    by_number = ColumnTransformer([("words", OneHotEncoder(), [1]), ("rest", StandardScaler(), [0])])
    words = FRAME[["age", "town"]]
    fitted = make_pipeline(by_number, LogisticRegression()).fit(words.to_numpy(dtype=object), LABELS)
    columns = (COLUMNS[0], COLUMNS[2])
    table = from_rows([[1.0, "elsewhere"]], Input("frame", columns))
    with pytest.raises(ValueError, match="unknown categor") as caught:
        fitted.predict(table.to_input().to_numpy(dtype=object))
    assert failure_place.find(caught.value, table).columns == ("town",)
    union = FeatureUnion([("small", MinMaxScaler()), ("tree", make_pipeline(StandardScaler()))])
    numbers = make_pipeline(union, LogisticRegression()).fit(FRAME[["age", "income"]].to_numpy(), LABELS)
    found = place_of(numbers, [None, None], COLUMNS[:2], "matrix")
    assert found.columns == ("age", "income")


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_a_number_that_is_too_large() -> None:
    """A tree computes in single precision; the column with the number beyond it is named."""
    fitted = DecisionTreeClassifier().fit(FRAME[["age", "income"]].to_numpy(), LABELS)
    found = place_of(fitted, [1.0, 1e300], COLUMNS[:2], "matrix")
    assert found == ((), ("income",), "a number that is too large for it")
    assert str(found) == ", column 'income': a number that is too large for it"


def test_the_only_column_is_at_fault() -> None:
    """A table with one column needs no other evidence."""

    class Refuses(LogisticRegression):  # type: ignore[misc, unused-ignore]
        """Refuses everything."""

        def predict(self, X: Any) -> Any:
            """Raise."""
            raise ValueError("no")

    assert place_of(Refuses(), [1.0], COLUMNS[:1]) == ((), ("age",), "")


def test_nothing_is_known() -> None:
    """An exception from anywhere has no place, and strange attributes of an estimator do no harm."""

    class Strange:
        steps = 5
        transformers_ = "abc"

        def get_params(self) -> None: ...

        def predict(self, X: Any) -> Any:
            raise ValueError("secret 4711")

    found = place_of(Strange(), GOOD)
    assert (found, str(found)) == (((), (), ""), "")
