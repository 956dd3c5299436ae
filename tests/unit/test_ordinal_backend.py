"""Fast backends of the commonest pipeline of trees: ordinal encoder over missing and unknown cells, then boosting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder

from tableside.publishing.publish import publish

pytestmark = pytest.mark.no_greenlets

ROWS = 200
CHANCE = np.random.default_rng(3)
CITY = CHANCE.choice(np.array(["Graz", "Linz", "Wien"], dtype=object), ROWS)
ENCODERS = {
    "unknown is -1": OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1),
    "unknown is NaN": OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan),
    "missing is -2": OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2),
    "unknown is refused": OrdinalEncoder(),
    "imputed": make_pipeline(
        SimpleImputer(strategy="most_frequent"), OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    ),
}


def frame(missing: Any) -> pd.DataFrame:
    city = np.where(np.arange(ROWS) % 7 == 0, missing, CITY)
    return pd.DataFrame({"city": pd.Series(city, dtype=object), "age": CHANCE.normal(40, 10, ROWS)})


@pytest.mark.parametrize("missing", [np.nan, None], ids=["NaN", "None"])
@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.slow
def test_ordinals_before_boosting_have_a_backend(name: str, missing: Any, tmp_path: Path) -> None:
    """Both backends of trees are equal to the bit on every compared row, those with unknown cities included."""
    if name == "imputed" and missing is None:
        missing = np.nan  # SimpleImputer fills in NaN only
    table = frame(missing)
    columns = ColumnTransformer([("city", ENCODERS[name], ["city"]), ("age", "passthrough", ["age"])])
    fitted = make_pipeline(columns, HistGradientBoostingClassifier(max_iter=8, random_state=0))
    labels = (CITY == "Wien") ^ (table["age"].to_numpy() > 45)
    contract = publish("m", fitted.fit(table, labels), table, repository=tmp_path, quick=True)
    outcomes = {check.backend: check for check in contract.equivalence_checks}
    for backend in ("tree_walk", "sklearn_trees"):
        assert outcomes[backend].outcome in ("used", "slower"), outcomes[backend]
        assert (outcomes[backend].largest_difference, outcomes[backend].rows > 500) == (0.0, True)
