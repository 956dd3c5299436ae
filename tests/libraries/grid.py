"""The table of docs/explanation/estimators.md: each library in each wrapping, and what becomes of it.

`python -m tests.libraries.grid` prints both tables for the page. test_grid.py publishes and serves each cell on each
road in each spelling, and holds the page equal to this file.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import StackingClassifier, VotingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tableside.contracts.schema import Column, Input
from tests.libraries import zoo
from tests.libraries.zoo import Case
from tests.spellings import spellings

EQUAL = "equal"
PICKLE = "pickle"
"""Refused as skops with a sentence that names --as-pickle; with it, equal to memory from a process of its own."""
MIXED = "mixes values of several types"
"""Refused: a transformer whose answer has text and numbers."""

WRAPPINGS = (
    "alone", "Pipeline", "ColumnTransformer", "GridSearchCV", "CalibratedClassifierCV", "VotingClassifier",
    "StackingClassifier",
)  # fmt: skip
LIBRARIES = (
    "xgboost", "lightgbm", "catboost", "imbalanced-learn", "feature-engine", "skrub", "category-encoders",
)  # fmt: skip
NUMBERS = ["age", "income", "balance"]
EXCEPTIONS = {("feature-engine", "alone"): MIXED}


def expected(library: str, wrapping: str) -> str:
    """EQUAL, PICKLE, or a part of the sentence with which publish refuses the cell."""
    if library == "category-encoders":
        return PICKLE
    return EXCEPTIONS.get((library, wrapping), EQUAL)


def _logistic() -> Any:
    return make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression(max_iter=500))


def _xgboost() -> Any:
    from xgboost import XGBClassifier

    return XGBClassifier(n_estimators=4, max_depth=3)


def _lightgbm() -> Any:
    from lightgbm import LGBMClassifier

    return LGBMClassifier(n_estimators=4, min_child_samples=5, verbosity=-1)


def _catboost() -> Any:
    from catboost import CatBoostClassifier

    return CatBoostClassifier(iterations=4, depth=3, verbose=False, allow_writing_files=False, thread_count=1)


def _imbalanced() -> Any:
    from imblearn.ensemble import BalancedRandomForestClassifier

    return BalancedRandomForestClassifier(n_estimators=4, random_state=0)


def _feature_engine() -> Any:
    from feature_engine.encoding import MeanEncoder

    return MeanEncoder(variables=["city"], unseen="encode")


def _imputer() -> Any:
    from feature_engine.imputation import MeanMedianImputer

    return MeanMedianImputer()


def _skrub() -> Any:
    from skrub import TableVectorizer

    return TableVectorizer()


def _category_encoders() -> Any:
    from category_encoders import TargetEncoder

    return TargetEncoder(cols=["city"])


CLASSIFIERS: dict[str, Callable[[], Any]] = {
    "xgboost": _xgboost, "lightgbm": _lightgbm, "catboost": _catboost, "imbalanced-learn": _imbalanced,
}  # fmt: skip
TRANSFORMERS: dict[str, Callable[[], Any]] = {
    "feature-engine": _feature_engine, "skrub": _skrub, "category-encoders": _category_encoders,
}  # fmt: skip

ALONE: dict[str, Callable[[], Any]] = {"feature-engine": _imputer}
"""What stands for a library alone, if not what is wrapped."""


def _member(library: str) -> tuple[Any, Any]:
    """An unfitted classifier of a library as people wrap it, and the rows that it is fitted on."""
    if library in TRANSFORMERS:
        return make_pipeline(TRANSFORMERS[library](), *_logistic()), zoo.frame()
    if library == "imbalanced-learn":
        from imblearn.over_sampling import RandomOverSampler
        from imblearn.pipeline import make_pipeline as make_sampling_pipeline

        sampler = RandomOverSampler(random_state=0)
        return make_sampling_pipeline(SimpleImputer(), sampler, CLASSIFIERS[library]()), zoo.matrix()
    return CLASSIFIERS[library](), zoo.matrix()


def _unfitted(library: str, wrapping: str) -> tuple[Any, Any]:
    member, rows = _member(library)
    if wrapping == "alone":
        return (TRANSFORMERS | CLASSIFIERS | ALONE)[library](), rows
    if wrapping == "Pipeline":
        return (member if library in TRANSFORMERS else make_pipeline(StandardScaler(), member)), rows
    if wrapping == "ColumnTransformer":
        return _with_columns(library, member)
    if wrapping == "GridSearchCV":
        return GridSearchCV(make_pipeline(member), {}, cv=2), rows
    if wrapping == "CalibratedClassifierCV":
        return CalibratedClassifierCV(member, cv=2), rows
    other = make_pipeline(zoo.columns(), *_logistic()) if library in TRANSFORMERS else _logistic()
    members = [("one", member), ("two", other)]
    if wrapping == "VotingClassifier":
        return VotingClassifier(members, voting="soft"), rows
    return StackingClassifier(members, cv=2), rows


def _with_columns(library: str, member: Any) -> tuple[Any, Any]:
    if library in TRANSFORMERS:
        numbers = [("numbers", "passthrough", NUMBERS)]
        inside = ColumnTransformer([("words", TRANSFORMERS[library](), ["city"]), *numbers])
        return make_pipeline(inside, *_logistic()), zoo.frame()
    return make_pipeline(zoo.columns(), clone(member)), zoo.frame()


@cache
def case(library: str, wrapping: str) -> Case:
    """The fitted cell."""
    estimator, rows = _unfitted(library, wrapping)
    return Case(library, wrapping, estimator.fit(rows, zoo.two()), rows)


def table() -> str:
    """The table in Markdown."""
    words = {EQUAL: "equal", PICKLE: "`--as-pickle`: equal", MIXED: "refused"}
    lines = [f"| library | {' | '.join(WRAPPINGS)} |", "|---" * (len(WRAPPINGS) + 1) + "|"]
    for library in LIBRARIES:
        lines.append(f"| {library} | {' | '.join(words[expected(library, each)] for each in WRAPPINGS)} |")
    return "\n".join(lines) + "\n"


def spelling_names(schema: Input, row: list[Any]) -> list[str]:
    """The spellings in which test_grid.py sends a table with these columns."""
    return [name for name, _ in spellings(schema, [row, row], random.Random(0))]


def spelling_table() -> str:
    """The spellings and roads of each served cell in Markdown, by what the columns hold."""
    one, other, word = Column("a", "FP64", "float64"), Column("b", "FP64", "float64"), Column("b", "BYTES", "object")
    of_one_type = spelling_names(Input("frame", (one, other)), [1.5, 2.5])
    of_several = spelling_names(Input("frame", (one, word)), [1.5, "Graz"])
    lines = ["| spelling | columns of one type of numbers | columns of several types |", "|---|---|---|"]
    for name in dict.fromkeys((*of_one_type, *of_several)):
        cells = ("equal" if name in names else "does not exist" for names in (of_one_type, of_several))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(f"{table()}\n{spelling_table()}")
