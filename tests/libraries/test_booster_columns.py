"""The columns of boosters: by name where they were fitted on names, by position where they were fitted on an array."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from catboost import CatBoostClassifier
from lightgbm import LGBMClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from xgboost import XGBClassifier

import tableside_contract
from tableside.decoding.json_tables import from_rows
from tableside.errors import PublishFailed
from tableside.preflight.checks import check_version
from tableside.publishing.publish import publish
from tableside.publishing.sample_rows import rows_as_cells
from tableside.setting_texts import LIBRARIES
from tableside.settings import Repository
from tests.libraries import zoo

pytestmark = pytest.mark.filterwarnings("ignore")

NAMED = zoo.frame()[["age", "income", "balance"]]
BOOSTERS: dict[str, Any] = {
    "xgboost": XGBClassifier(n_estimators=5),
    "lightgbm": LGBMClassifier(n_estimators=5, verbosity=-1),
    "catboost": CatBoostClassifier(iterations=5, verbose=False, allow_writing_files=False),
}
WRAPPINGS: dict[str, Any] = {
    "alone": lambda booster: booster,
    "Pipeline": make_pipeline,
    "GridSearchCV": lambda booster: GridSearchCV(make_pipeline(booster), {}, cv=2),
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("library", BOOSTERS)
def test_columns_are_matched_by_name(library: str, wrapping: str, tmp_path: Path) -> None:
    """A sample with the columns in another order gives a contract in the order of training, and equal answers."""
    fitted = WRAPPINGS[wrapping](BOOSTERS[library]).fit(NAMED, zoo.two())
    shuffled = NAMED[["balance", "age", "income"]]
    contract = publish("m", fitted, shuffled, repository=tmp_path, runtime="sklearn", trusted_libraries=LIBRARIES)
    assert [column.name for column in contract.input.columns] == list(NAMED.columns)
    loaded = check_version(tmp_path, "m", 1, Repository(trusted_libraries=LIBRARIES))
    table = from_rows(rows_as_cells(NAMED, contract.input), contract.input)
    got = loaded.run("predict_proba", loaded.prepare(table))
    np.testing.assert_array_equal(got, fitted.predict_proba(NAMED))


@pytest.mark.parametrize("library", BOOSTERS)
def test_an_array_has_no_names(library: str, tmp_path: Path) -> None:
    """The names that a booster makes up for an array, such as Column_0, are not asked for; its width is."""
    fitted = BOOSTERS[library].fit(NAMED.to_numpy(), zoo.two())
    contract = publish("m", fitted, NAMED, repository=tmp_path, runtime="sklearn", trusted_libraries=LIBRARIES)
    assert [column.name for column in contract.input.columns] == list(NAMED.columns)
    wide = pd.concat([NAMED, NAMED.add_suffix("_again")], axis=1)
    with pytest.raises(PublishFailed, match="takes 3 columns, but the sample has 6"):
        publish("m", fitted, wide, repository=tmp_path, runtime="sklearn", trusted_libraries=LIBRARIES)


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("library", BOOSTERS)
def test_names_with_spaces_are_the_trainers(library: str, wrapping: str, tmp_path: Path) -> None:
    """LightGBM keeps `mean_age` for `mean age`; a version has the trainer's names, from Python, CSV and a record."""
    table = NAMED.rename(columns={"age": "mean age", "income": "income (year)"})
    fitted = WRAPPINGS[wrapping](BOOSTERS[library]).fit(table, zoo.two())
    joblib.dump(fitted, tmp_path / "m.joblib")
    table.to_csv(tmp_path / "m.csv", index=False)
    tableside_contract.contract(fitted, table, tmp_path / "record")
    common: dict[str, Any] = {"repository": tmp_path / "models", "runtime": "sklearn", "trusted_libraries": LIBRARIES}
    roads = [(fitted, table), (tmp_path / "m.joblib", tmp_path / "m.csv"), (tmp_path / "record", None)]
    for at, (estimator, rows) in enumerate(roads, 1):
        contract = publish("m", estimator, rows, allow_pickle=True, **common)
        assert [column.name for column in contract.input.columns] == list(table.columns)
        loaded = check_version(tmp_path / "models", "m", at, Repository(trusted_libraries=LIBRARIES))
        got = loaded.run("predict", loaded.prepare(from_rows(rows_as_cells(table, contract.input), contract.input)))
        np.testing.assert_array_equal(got, fitted.predict(table))


def test_an_underscore_stands_for_one_name_only(tmp_path: Path) -> None:
    """Two columns that LightGBM would call the same are not guessed apart."""
    fitted = BOOSTERS["lightgbm"].fit(NAMED.rename(columns={"age": "mean age"}), zoo.two())
    both = NAMED.rename(columns={"age": "x", "income": "mean age"}).assign(mean_age=1.0)
    with pytest.raises(PublishFailed, match="lacks columns that the estimator was fitted on: income"):
        publish("m", fitted, both, repository=tmp_path, runtime="sklearn", trusted_libraries=LIBRARIES)
