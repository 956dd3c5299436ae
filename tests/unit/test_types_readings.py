"""What a fitted model says of the types of its columns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, make_column_selector, make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, VotingClassifier
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder, StandardScaler

from tableside_contract import readings

pytestmark = pytest.mark.no_greenlets

FRAME = pd.DataFrame(
    {
        "zip": pd.Series(["00501", "10115", "00501", "10115"] * 5, dtype=object),
        "grade": [1, 2, 3, 1] * 5,
        "flag": [True, False, True, True] * 5,
        "amount": np.arange(20.0),
    }
)
LABELS = np.array([0, 1] * 10)


def encoded(encoder: Any) -> Any:
    return make_column_transformer(
        (encoder, ["zip", "grade"]), ("passthrough", ["flag"]), (StandardScaler(), ["amount"])
    )


def known(estimator: Any) -> dict[Any, str]:
    return {name: one.reading for name, one in readings.of_model(estimator, list(FRAME.columns)).items()}


ALL = {"zip": "text", "grade": "number", "flag": "numeric", "amount": "numeric"}


@pytest.mark.parametrize(
    "estimator",
    [
        make_pipeline(encoded(OneHotEncoder()), LogisticRegression()),
        make_pipeline(encoded(OrdinalEncoder()), LogisticRegression()),
        make_pipeline(FeatureUnion([("one", encoded(OneHotEncoder()))]), LogisticRegression()),
        GridSearchCV(make_pipeline(encoded(OneHotEncoder()), LogisticRegression()), {}, cv=2),
        VotingClassifier([("a", make_pipeline(encoded(OneHotEncoder()), LogisticRegression()))]),
        CalibratedClassifierCV(make_pipeline(encoded(OneHotEncoder()), LogisticRegression()), cv=2),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_encoders_are_found_inside_of_what_wraps_them(estimator: Any) -> None:
    """An encoder says text or numbers; what reaches an estimator that computes is numeric; whatever is around them."""
    found = known(estimator.fit(FRAME, LABELS))
    assert found["zip"] == "text"
    assert found["grade"] == "number"
    assert found["amount"] == "numeric"


def test_columns_are_found_by_name_position_mask_and_slice() -> None:
    """However a ColumnTransformer selects its columns, what is known belongs to the right ones."""
    for chosen in (["zip"], [0], np.array([True, False, False, False]), slice(0, 1), slice("zip", "zip"), "zip"):
        columns = [chosen] if isinstance(chosen, str) else chosen
        fitted = ColumnTransformer([("c", OneHotEncoder(), columns)]).fit(FRAME)
        assert known(fitted) == {"zip": "text"}, chosen
    by_dtype = make_column_transformer((OneHotEncoder(), make_column_selector(dtype_include=object))).fit(FRAME)
    assert known(by_dtype) == {"zip": "text"}


def test_an_imputer_speaks_where_nothing_behind_it_does() -> None:
    """The value that an imputer fills in has the column's type; an encoder behind it knows the values themselves."""
    alone = make_column_transformer((SimpleImputer(strategy="most_frequent"), ["zip"])).fit(FRAME)
    assert readings.of_model(alone, ["zip"])["zip"].reading == "text"
    before = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder())
    found = readings.of_model(make_column_transformer((before, ["zip"])).fit(FRAME), ["zip"])["zip"]
    assert (found.source, found.values) == ("OneHotEncoder", ("00501", "10115"))
    assert found.describe() == "OneHotEncoder was fitted on text ('00501', '10115')"


def test_an_encoder_without_a_column_transformer_knows_its_columns() -> None:
    """The encoder's columns are then all columns, in their order."""
    assert known(OneHotEncoder().fit(FRAME)) == {
        "zip": "text",
        "grade": "number",
        "flag": "boolean",
        "amount": "number",
    }


@pytest.mark.parametrize(
    ("values", "kinds"),
    [
        (["x", np.nan], {"nan"}),
        (["x", None], {"none"}),
        (["x", None, np.nan], {"nan", "none"}),
        (["x", "y"], set()),
    ],
)
def test_kinds_of_missing_values_are_told_apart(values: list[Any], kinds: set[str]) -> None:
    """What an encoder was fitted on says which of None and NaN it takes."""
    frame = pd.DataFrame({"c": pd.Series(values, dtype=object)})
    found = readings.of_model(OneHotEncoder().fit(frame), ["c"])["c"]
    assert found.missing == kinds
    assert set(found.values) == {value for value in values if isinstance(value, str)}


def test_a_function_says_nothing() -> None:
    """Behind a function of the trainer's own nothing is known of the column."""
    assert known(make_pipeline(FunctionTransformer(pd.get_dummies), LogisticRegression()).fit(FRAME, LABELS)) == {}


def test_a_vectorizer_takes_text() -> None:
    """A text vectorizer takes text, whatever the text looks like."""
    fitted = make_column_transformer((CountVectorizer(), "zip")).fit(FRAME)
    assert known(fitted) == {"zip": "text"}


def test_categories_by_dtype_say_nothing_of_the_cells() -> None:
    """Boosting over `category` columns takes text as well as numbers there."""
    frame = FRAME[["zip", "amount"]].astype({"zip": "category"})
    fitted = HistGradientBoostingClassifier(categorical_features="from_dtype").fit(frame, LABELS)
    assert readings.of_model(fitted, ["zip", "amount"]).keys() == {"amount"}


class Dictionary:
    """An encoder like those of feature-engine: a dictionary of values by column."""

    def __init__(self) -> None:
        self.encoder_dict_ = {"zip": {"00501": 0, "10115": 1}}


class Raising:
    """A class whose attributes are not scikit-learn's."""

    @property
    def categories_(self) -> Any:
        raise RuntimeError("not fitted")

    transformers_ = {"a": 1}
    statistics_ = 5


def test_foreign_classes_are_asked_with_care() -> None:
    """A dictionary of values is evidence; attributes of another meaning are none, and raise nothing."""
    assert known(Dictionary()) == {"zip": "text"}
    assert known(Raising()) == {}
