"""Estimators of libraries beside scikit-learn, fitted on small tables: the rows of the table in estimators.md.

Each case says where the estimator comes from, what stands around it, and whether it is served (`refusal` is empty) or
refused by publish with a sentence that contains `refusal`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, StackingClassifier, VotingClassifier, VotingRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

ROWS = 120


@dataclass(frozen=True)
class Case:
    """One fitted estimator and the rows it is asked for.

    library: as `repository.trusted_libraries` names it. wrapping: what stands around the estimator. refusal: a part of
    the sentence with which publish refuses it; empty for one that is served.
    """

    library: str
    wrapping: str
    estimator: Any
    rows: Any
    refusal: str = ""

    @property
    def name(self) -> str:
        """The case's name as a test's id and a model's name."""
        return f"{self.library}-{self.wrapping}".replace(" ", "-").replace(",", "")


def frame() -> pd.DataFrame:
    """A table of numbers with missing cells, whole numbers, text and categories."""
    chance = np.random.default_rng(11)
    return pd.DataFrame(
        {
            "age": chance.integers(18, 90, ROWS),
            "income": np.where(chance.random(ROWS) < 0.15, np.nan, chance.lognormal(10, 1, ROWS)),
            "balance": chance.normal(0, 1000, ROWS),
            "city": pd.Series(chance.choice(["Graz", "Linz", "Wien", "São Paulo"], ROWS), dtype=object),
        }
    )


def matrix() -> Any:
    """The numbers of `frame` as an array: without names, with NaN."""
    return np.ascontiguousarray(frame()[["age", "income", "balance"]].to_numpy())


def categories() -> pd.DataFrame:
    """`frame` with the text as a pandas category, some of its cells missing."""
    table = frame()
    city = pd.Categorical(table["city"], categories=["Wien", "Graz", "Linz", "São Paulo"])
    return table.assign(city=pd.Series(city).where(np.arange(ROWS) % 13 != 0))


def two() -> Any:
    """Two classes as integers."""
    table = frame()
    return ((table["age"] + 15 * (table["city"] == "Wien")) > 55).astype(int).to_numpy()


def words() -> Any:
    """Three classes as text."""
    return np.array(["low", "mid", "high"])[np.digitize(frame()["age"], [40, 65])]


def amount() -> Any:
    """A number to predict."""
    table = frame()
    return (table["age"] * 3.5 + table["balance"] / 100).to_numpy()


def columns(encoder: Any = None) -> ColumnTransformer:
    """The usual first step: numbers pass, text becomes numbers."""
    encoder = OneHotEncoder(handle_unknown="ignore") if encoder is None else encoder
    return ColumnTransformer([("numbers", "passthrough", ["age", "income", "balance"]), ("words", encoder, ["city"])])


def _wrapped(library: str, make: Callable[[], Any], labels: Any) -> Iterator[Case]:
    """A booster for classification in everything that people put around it."""
    table, numbers = frame(), matrix()
    grid = GridSearchCV(make_pipeline(StandardScaler(), make()), {"standardscaler__with_mean": [True, False]}, cv=2)
    calibrated = CalibratedClassifierCV(make(), cv=2)
    linear = make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression())
    members = [("booster", make()), ("linear", linear)]
    yield Case(library, "Pipeline", make_pipeline(StandardScaler(), make()).fit(numbers, labels), numbers)
    yield Case(library, "ColumnTransformer", make_pipeline(columns(), make()).fit(table, labels), table)
    yield Case(library, "GridSearchCV", grid.fit(numbers, labels), numbers)
    yield Case(library, "CalibratedClassifierCV", calibrated.fit(numbers, labels), numbers)
    yield Case(library, "VotingClassifier", VotingClassifier(members, voting="soft").fit(numbers, labels), numbers)
    yield Case(
        library, "StackingClassifier", StackingClassifier(clone_all(members), cv=2).fit(numbers, labels), numbers
    )


def clone_all(members: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Unfitted copies of the members of an ensemble."""
    return [(name, clone(member)) for name, member in members]


def _voting(library: str, regressor: Any) -> Case:
    numbers = np.nan_to_num(matrix())
    return Case(
        library, "VotingRegressor", VotingRegressor([("b", regressor), ("r", Ridge())]).fit(numbers, amount()), numbers
    )


def xgboost_cases() -> Iterator[Case]:
    """XGBoost: boosters of each kind, alone and wrapped."""
    from xgboost import XGBClassifier, XGBRegressor, XGBRFClassifier

    table, numbers = frame(), matrix()
    named = table[["age", "income", "balance"]]
    codes = np.unique(words(), return_inverse=True)[1]
    few = {"n_estimators": 12, "max_depth": 3, "n_jobs": 2}
    yield Case("xgboost", "alone, array", XGBClassifier(**few).fit(numbers, two()), numbers)
    yield Case("xgboost", "alone, frame", XGBClassifier(**few).fit(named, codes), named)
    yield Case("xgboost", "regressor", XGBRegressor(**few).fit(named, amount()), named)
    yield Case("xgboost", "random forest", XGBRFClassifier(**few).fit(named, two()), named)
    yield Case(
        "xgboost",
        "linear",
        XGBRegressor(booster="gblinear", n_estimators=5).fit(np.nan_to_num(numbers), amount()),
        np.nan_to_num(numbers),
    )
    yield Case("xgboost", "dart", XGBClassifier(booster="dart", rate_drop=0.3, **few).fit(numbers, two()), numbers)
    categorical = XGBClassifier(enable_categorical=True, **few).fit(categories(), two())
    yield Case("xgboost", "category dtype", categorical, categories())
    stopped = XGBClassifier(early_stopping_rounds=2, n_estimators=200, learning_rate=0.9)
    stopped.fit(numbers[:80], two()[:80], eval_set=[(numbers[80:], two()[80:])], verbose=False)
    yield Case("xgboost", "early stopping", stopped, numbers)
    several = XGBRegressor(multi_strategy="multi_output_tree", **few).fit(numbers, np.c_[amount(), -amount()])
    yield Case("xgboost", "several targets", several, numbers)
    missing = XGBRegressor(missing=-999.0, **few).fit(np.nan_to_num(numbers, nan=-999.0), amount())
    yield Case("xgboost", "missing marker", missing, np.nan_to_num(numbers, nan=-999.0))
    yield from _wrapped("xgboost", lambda: XGBClassifier(**few), two())
    yield _voting("xgboost", XGBRegressor(**few))


def lightgbm_cases() -> Iterator[Case]:
    """LightGBM: boosters of each kind, alone and wrapped."""
    from lightgbm import Booster, LGBMClassifier, LGBMRegressor, early_stopping  # noqa: F401

    table, numbers = frame(), matrix()
    named = table[["age", "income", "balance"]]
    few = {"n_estimators": 12, "min_child_samples": 5, "verbosity": -1, "n_jobs": 2}
    plain = LGBMClassifier(**few).fit(numbers, words())
    yield Case("lightgbm", "alone, array", plain, numbers)
    yield Case("lightgbm", "alone, frame", LGBMClassifier(**few).fit(named, two()), named)
    yield Case("lightgbm", "regressor", LGBMRegressor(**few).fit(named, amount()), named)
    yield Case(
        "lightgbm",
        "linear tree",
        LGBMRegressor(linear_tree=True, **few).fit(np.nan_to_num(numbers), amount()),
        np.nan_to_num(numbers),
    )
    yield Case(
        "lightgbm",
        "random forest",
        LGBMClassifier(boosting_type="rf", subsample=0.7, subsample_freq=1, **few).fit(numbers, two()),
        numbers,
    )
    yield Case("lightgbm", "category dtype", LGBMClassifier(**few).fit(categories(), words()), categories())
    stopped = LGBMClassifier(**{**few, "n_estimators": 200, "learning_rate": 0.9})
    stopped.fit(
        numbers[:80], two()[:80], eval_set=[(numbers[80:], two()[80:])], callbacks=[early_stopping(2, verbose=False)]
    )
    yield Case("lightgbm", "early stopping", stopped, numbers)
    yield Case("lightgbm", "Booster", plain.booster_, numbers)
    yield from _wrapped("lightgbm", lambda: LGBMClassifier(**few), words())
    yield _voting("lightgbm", LGBMRegressor(**few))


def catboost_cases() -> Iterator[Case]:
    """CatBoost: boosters of each kind, alone and wrapped."""
    from catboost import CatBoost, CatBoostClassifier, CatBoostRegressor

    table, numbers = frame(), matrix()
    named = table[["age", "income", "balance"]]
    few: dict[str, Any] = {
        "iterations": 12,
        "depth": 3,
        "verbose": False,
        "allow_writing_files": False,
        "thread_count": 2,
    }
    yield Case("catboost", "alone, array", CatBoostClassifier(**few).fit(numbers, two()), numbers)
    yield Case("catboost", "alone, frame", CatBoostClassifier(**few).fit(named, words()), named)
    yield Case("catboost", "regressor", CatBoostRegressor(**few).fit(named, amount()), named)
    yield Case("catboost", "CatBoost", CatBoost({**few, "loss_function": "RMSE"}).fit(named, amount()), named)
    yield Case("catboost", "text categories", CatBoostClassifier(cat_features=["city"], **few).fit(table, two()), table)
    full = categories().assign(city=categories()["city"].fillna("Wien"))
    yield Case("catboost", "category dtype", CatBoostClassifier(cat_features=["city"], **few).fit(full, words()), full)
    stopped = CatBoostClassifier(**{**few, "iterations": 200, "learning_rate": 0.9}, early_stopping_rounds=2)
    stopped.fit(numbers[:80], two()[:80], eval_set=(numbers[80:], two()[80:]))
    yield Case("catboost", "early stopping", stopped, numbers)
    yield from _wrapped("catboost", lambda: CatBoostClassifier(**few), words())
    yield _voting("catboost", CatBoostRegressor(**few))


def imblearn_cases() -> Iterator[Case]:
    """imbalanced-learn: its pipeline with samplers, and its balanced ensembles."""
    from imblearn.ensemble import (
        BalancedBaggingClassifier,
        BalancedRandomForestClassifier,
        EasyEnsembleClassifier,
        RUSBoostClassifier,
    )
    from imblearn.over_sampling import SMOTE, RandomOverSampler
    from imblearn.pipeline import make_pipeline as make_sampling_pipeline
    from imblearn.under_sampling import RandomUnderSampler

    table, numbers = frame(), np.nan_to_num(matrix())
    logistic = LogisticRegression(max_iter=2000)
    smote = make_sampling_pipeline(SimpleImputer(), StandardScaler(), SMOTE(random_state=0), logistic)
    yield Case("imbalanced-learn", "SMOTE in its pipeline", smote.fit(matrix(), two()), matrix())
    over = make_sampling_pipeline(columns(), SimpleImputer(), RandomOverSampler(random_state=0), clone(logistic))
    yield Case("imbalanced-learn", "RandomOverSampler after ColumnTransformer", over.fit(table, words()), table)
    under = make_sampling_pipeline(StandardScaler(), RandomUnderSampler(random_state=0), clone(logistic))
    grid = GridSearchCV(under, {"logisticregression__C": [0.5, 1.0]}, cv=2)
    yield Case("imbalanced-learn", "GridSearchCV", grid.fit(numbers, two()), numbers)
    calibrated = CalibratedClassifierCV(clone(under), cv=2)
    yield Case("imbalanced-learn", "CalibratedClassifierCV", calibrated.fit(numbers, two()), numbers)
    for kind in (BalancedRandomForestClassifier, BalancedBaggingClassifier, EasyEnsembleClassifier, RUSBoostClassifier):
        made = kind(n_estimators=5, random_state=0)
        yield Case("imbalanced-learn", kind.__name__, made.fit(numbers, words()), numbers)


def feature_engine_cases() -> Iterator[Case]:
    """feature-engine: imputers, encoders and transformers of a DataFrame."""
    from feature_engine.discretisation import EqualFrequencyDiscretiser
    from feature_engine.encoding import (
        CountFrequencyEncoder,
        MeanEncoder,
        OneHotEncoder,
        OrdinalEncoder,
        RareLabelEncoder,
    )
    from feature_engine.imputation import CategoricalImputer, MeanMedianImputer
    from feature_engine.outliers import Winsorizer
    from feature_engine.selection import DropFeatures
    from feature_engine.transformation import YeoJohnsonTransformer

    table = frame()
    encoders = {
        "OneHotEncoder": OneHotEncoder(), "OrdinalEncoder": OrdinalEncoder(encoding_method="arbitrary"),
        "MeanEncoder": MeanEncoder(unseen="encode"), "CountFrequencyEncoder": CountFrequencyEncoder(unseen="encode"),
        "RareLabelEncoder": make_pipeline(RareLabelEncoder(tol=0.05, n_categories=2), OneHotEncoder()),
    }  # fmt: skip
    for name, encoder in encoders.items():
        made = make_pipeline(MeanMedianImputer(), encoder, LogisticRegression(max_iter=5000))
        yield Case("feature-engine", f"{name} in Pipeline", made.fit(table, two()), table)
    more = make_pipeline(
        CategoricalImputer(),
        MeanMedianImputer(),
        Winsorizer(variables=["income"]),
        YeoJohnsonTransformer(variables=["balance"]),
        EqualFrequencyDiscretiser(q=4, variables=["age"]),
        OrdinalEncoder(encoding_method="arbitrary", variables=["city"]),
        Ridge(),
    )
    yield Case("feature-engine", "seven steps", more.fit(table, amount()), table)
    dropped = make_pipeline(DropFeatures(["city"]), MeanMedianImputer(), LogisticRegression(max_iter=5000))
    yield Case("feature-engine", "DropFeatures", dropped.fit(table, two()), table)
    grid = GridSearchCV(
        make_pipeline(MeanMedianImputer(), OneHotEncoder(), Ridge()), {"ridge__alpha": [0.5, 1.0]}, cv=2
    )
    yield Case("feature-engine", "GridSearchCV", grid.fit(table, amount()), table)
    mixed = "mixes values of several types"
    yield Case("feature-engine", "MeanMedianImputer alone", MeanMedianImputer().fit(table), table, mixed)


def category_encoders_cases() -> Iterator[Case]:
    """category_encoders: none can be written as skops."""
    import category_encoders as ce

    table = frame()
    for kind in (ce.TargetEncoder, ce.OrdinalEncoder, ce.OneHotEncoder):
        made = make_pipeline(kind(cols=["city"]), HistGradientBoostingClassifier(max_iter=5))
        yield Case(
            "category-encoders",
            f"{kind.__name__} in Pipeline",
            made.fit(table, two()),
            table,
            "publish with --as-pickle",
        )
    inside = ColumnTransformer([("city", ce.TargetEncoder(), ["city"]), ("rest", "passthrough", ["age"])])
    yield Case(
        "category-encoders",
        "ColumnTransformer",
        make_pipeline(inside, LogisticRegression(max_iter=2000)).fit(table, two()),
        table,
        "publish with --as-pickle",
    )


def skrub_cases() -> Iterator[Case]:
    """skrub: TableVectorizer and its encoders."""
    from skrub import GapEncoder, MinHashEncoder, StringEncoder, TableVectorizer, tabular_pipeline

    table = frame()
    yield Case(
        "skrub",
        "TableVectorizer",
        make_pipeline(TableVectorizer(), HistGradientBoostingClassifier(max_iter=5)).fit(table, two()),
        table,
    )
    yield Case("skrub", "tabular_pipeline", tabular_pipeline("classifier").fit(table, two()), table)
    for encoder in (
        GapEncoder(n_components=3, random_state=0),
        MinHashEncoder(n_components=4),
        StringEncoder(n_components=3),
    ):
        inside = ColumnTransformer([("city", encoder, "city"), ("rest", "passthrough", ["age", "balance"])])
        yield Case(
            "skrub",
            type(encoder).__name__,
            make_pipeline(inside, LogisticRegression(max_iter=2000)).fit(table, two()),
            table,
        )


def cases(*makers: Callable[[], Iterator[Case]]) -> list[Case]:
    """Every case of these libraries, fitted."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [case for maker in makers for case in maker()]


def ordinal() -> ColumnTransformer:
    """Text through an ordinal encoder that knows missing and unknown cells; numbers pass."""
    return columns(OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1))
