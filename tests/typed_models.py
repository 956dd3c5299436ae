"""Models whose columns are easily misread from a file: codes with leading zeros, flags, dates, numbers as names."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import Ridge
from sklearn.model_selection import KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder, StandardScaler, TargetEncoder

ROWS = 120
CODES = np.array(["00501", "08028", "10115", "90210", "02139"], dtype=object)
WORDS = np.array(["True", "False", "1"], dtype=object)
COUNTRIES = np.array(["NA", "None", "AT", ""], dtype=object)


@dataclass(frozen=True)
class TypedModel:
    """A fitted model with the rows it was trained on, and their answers in memory."""

    name: str
    estimator: Any
    frame: pd.DataFrame

    @property
    def answers(self) -> Any:
        return self.estimator.predict(self.frame)

    def csv(self, folder: Path) -> Path:
        path = folder / f"{self.name}.csv"
        self.frame.to_csv(path, index=False)
        return path

    def parquet(self, folder: Path) -> Path:
        path = folder / f"{self.name}.parquet"
        self.frame.to_parquet(path)
        return path


def pipeline(encoder: Any, columns: list[str]) -> Any:
    table = ColumnTransformer([("c", encoder, columns), ("n", StandardScaler(), ["amount"])])
    return make_pipeline(table, Ridge())


def fit(name: str, frame: pd.DataFrame, estimator: Any) -> TypedModel:
    target = np.sin(np.arange(len(frame)) * 0.7)
    return TypedModel(name, estimator.fit(frame, target), frame)


def text_column(values: Any) -> pd.DataFrame:
    chance = np.random.default_rng(0)
    chosen = pd.Series(chance.choice(values, ROWS), dtype=object)
    return pd.DataFrame({"code": chosen, "amount": chance.normal(100, 20, ROWS).round(2)})


def imputed(encoder: Any) -> Any:
    return make_pipeline(SimpleImputer(strategy="most_frequent"), encoder)


@cache
def text_models() -> dict[str, TypedModel]:
    """Models with a column of text that a CSV reader would take for numbers, booleans or missing cells."""
    ordinal = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    models = [
        fit("zip-onehot", text_column(CODES), pipeline(imputed(OneHotEncoder(handle_unknown="ignore")), ["code"])),
        fit("zip-ordinal", text_column(CODES), pipeline(imputed(ordinal), ["code"])),
        fit("zip-strict", text_column(CODES), pipeline(OneHotEncoder(), ["code"])),
        fit("zip-target", text_column(CODES), pipeline(TargetEncoder(cv=KFold(3)), ["code"])),
        fit("words", text_column(WORDS), pipeline(OneHotEncoder(handle_unknown="ignore"), ["code"])),
        fit("countries", text_column(COUNTRIES), pipeline(OneHotEncoder(handle_unknown="ignore"), ["code"])),
    ]
    return {model.name: model for model in models}


def missing_model(*kinds: Any) -> TypedModel:
    """A model whose encoder was fitted on these kinds of missing values beside text."""
    frame = text_column(CODES)
    for at, kind in enumerate(kinds):
        frame.loc[at::7, "code"] = kind
    return fit("missing", frame, pipeline(OneHotEncoder(handle_unknown="ignore"), ["code"]))


def dummies() -> TypedModel:
    """300 columns of booleans, as pandas' `get_dummies` makes them."""
    chance = np.random.default_rng(1)
    codes = pd.Series([f"{at:05d}" for at in chance.permutation(np.arange(ROWS * 3) % 300)], dtype=object)
    frame = pd.get_dummies(pd.DataFrame({"zip": codes}))
    return fit("dummies", frame, make_pipeline(StandardScaler(), Ridge()))


def hours(frame: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({name: frame[name].dt.hour + frame[name].dt.day_of_week * 24.0 for name in frame.columns})


def date_frame(zone: str | None = None, unit: str = "ns") -> pd.DataFrame:
    when = pd.date_range("2024-03-30T17:00", periods=ROWS, freq="37min", tz=zone).as_unit(unit)  # type: ignore[arg-type]
    return pd.DataFrame({"when": when, "amount": np.random.default_rng(2).normal(100, 20, ROWS).round(2)})


def dates(zone: str | None = None, unit: str = "ns") -> TypedModel:
    """A model that computes with dates: the hour of the week, in the column's own time zone."""
    return fit("dates", date_frame(zone, unit), pipeline(FunctionTransformer(hours), ["when"]))


def unused_date() -> TypedModel:
    """A model that drops its column of dates."""
    table = ColumnTransformer([("n", StandardScaler(), ["amount"])])
    return fit("unused-date", date_frame(), make_pipeline(table, Ridge()))


def integer_names() -> TypedModel:
    """A model of a DataFrame whose columns are 2, 0 and 1."""
    frame = pd.DataFrame(np.random.default_rng(3).normal(size=(ROWS, 3)).round(6), columns=[2, 0, 1])
    return fit("numbered", frame, make_pipeline(StandardScaler(), Ridge()))
