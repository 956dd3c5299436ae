"""polars: tables from Python as samples, and steps that pass polars tables on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pyarrow
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from tableside.decoding.json_tables import from_rows
from tableside.errors import PublishFailed
from tableside.preflight.checks import check_version
from tableside.publishing.publish import publish
from tableside.publishing.sample_rows import rows_as_cells
from tableside.settings import Repository
from tests.libraries import zoo

pytestmark = pytest.mark.filterwarnings("ignore")

FRAME = zoo.frame()
NUMBERS = ["age", "income", "balance"]


def pipeline() -> Any:
    words = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    columns = ColumnTransformer([("n", numbers, NUMBERS), ("c", words, ["city"])])
    return make_pipeline(columns, LogisticRegression(max_iter=500))


KINDS: dict[str, Callable[[Any], Any]] = {
    "pandas": lambda frame: frame,
    "polars": polars.from_pandas,
    "arrow": lambda frame: pyarrow.Table.from_pandas(frame, preserve_index=False),
}


@pytest.mark.parametrize("output", ["default", "polars"])
@pytest.mark.parametrize("sample", KINDS)
@pytest.mark.parametrize("fitted_on", ["pandas", "polars"])
def test_a_pipeline_answers_as_in_memory(fitted_on: str, sample: str, output: str, tmp_path: Path) -> None:
    """Whatever kind of table it was fitted on, is published with, and passes on, each label and number is equal."""
    fitted = pipeline().set_output(transform=output).fit(KINDS[fitted_on](FRAME), zoo.two())
    contract = publish("m", fitted, KINDS[sample](FRAME), repository=tmp_path, runtime="sklearn")
    loaded = check_version(tmp_path, "m", 1, Repository())
    table = from_rows(rows_as_cells(FRAME, contract.input), contract.input)
    for method in ("predict", "predict_proba"):
        wanted = getattr(fitted, method)(KINDS[fitted_on](FRAME))
        np.testing.assert_allclose(loaded.run(method, loaded.prepare(table)), wanted, rtol=1e-12)


def test_a_polars_answer_becomes_an_array(tmp_path: Path) -> None:
    """A transformer with `set_output(transform="polars")` answers its numbers in the order of its columns."""
    fitted = make_pipeline(SimpleImputer(), StandardScaler()).set_output(transform="polars").fit(FRAME[NUMBERS])
    contract = publish("m", fitted, FRAME[NUMBERS], repository=tmp_path, runtime="sklearn")
    loaded = check_version(tmp_path, "m", 1, Repository())
    table = from_rows(rows_as_cells(FRAME[NUMBERS], contract.input), contract.input)
    np.testing.assert_array_equal(loaded.run("transform", loaded.prepare(table)), fitted.transform(FRAME[NUMBERS]))


class SeesPolars(ClassifierMixin, BaseEstimator):
    """Answers differently for a polars table, as code may that was written for one."""

    def fit(self, table: Any, target: Any) -> SeesPolars:
        self.classes_ = np.unique(target)
        self.feature_names_in_ = np.array(table.columns, dtype=object)
        return self

    def predict(self, table: Any) -> Any:
        return np.full(len(table), int(isinstance(table, polars.DataFrame)))


def test_an_estimator_that_needs_polars_is_refused(tmp_path: Path) -> None:
    """A request becomes a pandas table, so an estimator that answers it differently is not published."""
    table = polars.from_pandas(FRAME[NUMBERS])
    fitted = SeesPolars().fit(table, zoo.two())
    with pytest.raises(PublishFailed, match=r"predict differs between the polars table and .* sample\.to_pandas\(\)"):
        publish("m", fitted, table, repository=tmp_path, runtime="sklearn")
    assert not list(tmp_path.rglob("contract.json"))
