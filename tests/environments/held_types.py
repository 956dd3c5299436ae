"""Run by the Python of a training environment: prints as JSON the types in skops files that skops does not trust.

Each estimator of that release is fitted, as far as it takes plain data, and some with other arguments or with an
estimator that they wrap. Compatible with Python 3.8 and scikit-learn 1.0.
"""

import json
from contextlib import suppress
from inspect import signature

import numpy as np
import pandas as pd
import skops.io
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import GradientBoostingClassifier, GradientBoostingRegressor, HistGradientBoostingRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import Lasso, LogisticRegression, Ridge, SGDClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier as Tree
from sklearn.utils import all_estimators

X = np.abs(np.random.RandomState(0).normal(size=(60, 4)))
FRAME = pd.DataFrame(X, columns=list("abcd")).assign(t=np.where(np.arange(60) % 2, "u", "v"))
TARGETS = (np.arange(60) % 2, np.arange(60) % 3, X @ [1.0, 2.0, 3.0, 4.0])
LABELS, NUMBERS = TARGETS[0], TARGETS[2]
found = {}


def look(name, estimator, data, target):
    """Fit, and note the types; what cannot be fitted on this data is left out. Returns whether it could."""
    with suppress(Exception):
        estimator.fit(data, target)
        try:
            content = skops.io.dumps(estimator)
            for kind in skops.io.get_untrusted_types(data=content):
                found.setdefault(kind, name)
        except Exception as problem:
            found.setdefault("FAILED " + name, str(problem)[:80])
        return True
    return False


def plain(kind, *inner):
    """An estimator with few trees and iterations. inner: the estimators that it wraps."""
    made = kind(*inner)
    few = {"n_estimators": 3, "max_iter": 20}
    return made.set_params(**{name: value for name, value in few.items() if name in made.get_params()})


PAIRS = (("a", Tree()), ("b", LogisticRegression())), (("a", Ridge()), ("b", Lasso()))
INNER = [(LogisticRegression(),), (Ridge(),), *(([*pair],) for pair in PAIRS)]
for name, kind in all_estimators():
    wraps = any(each in signature(kind).parameters for each in ("estimator", "estimators", "base_estimator"))
    for inner in INNER if wraps else [()]:
        for target in TARGETS:
            with suppress(Exception):
                if look(name, plain(kind, *inner), X, target) and wraps:
                    break
for loss in ("log_loss", "exponential"):
    look(loss, GradientBoostingClassifier(n_estimators=2, loss=loss), X, LABELS)
for loss in ("squared_error", "absolute_error", "huber", "quantile"):
    look(loss, GradientBoostingRegressor(n_estimators=2, loss=loss), X, NUMBERS)
for loss in ("squared_error", "absolute_error", "poisson", "quantile"):
    with suppress(TypeError):  # before 1.1 there is no quantile
        look(loss, HistGradientBoostingRegressor(max_iter=2, loss=loss, quantile=0.5), X, NUMBERS)
for loss in ("hinge", "log_loss", "modified_huber", "squared_hinge", "perceptron", "huber"):
    look(loss, SGDClassifier(loss=loss), X, LABELS)
for metric in ("euclidean", "manhattan", "chebyshev", "minkowski"):
    for algorithm in ("kd_tree", "ball_tree"):
        look(metric, KNeighborsClassifier(metric=metric, algorithm=algorithm), X, LABELS)
numbers = make_pipeline(SimpleImputer(), StandardScaler())
columns = make_column_transformer(
    (OneHotEncoder(handle_unknown="ignore"), ["t"]), (numbers, ["a", "b"]), remainder="passthrough"
)
by_dtype = make_column_selector(dtype_include=float)
look("passthrough", make_pipeline(columns, LogisticRegression()), FRAME, LABELS)
look("drop", make_column_transformer((OneHotEncoder(), ["t"])), FRAME, LABELS)
look("selector", make_column_transformer((StandardScaler(), by_dtype), remainder=OneHotEncoder()), FRAME, LABELS)
for scoring in (None, "f1", "roc_auc", "average_precision", "neg_log_loss"):
    look(f"search {scoring}", GridSearchCV(LogisticRegression(), {"C": [1.0]}, cv=2, scoring=scoring), X, LABELS)
for scoring in ("r2", "neg_mean_squared_error", "neg_mean_absolute_error"):
    look(f"search {scoring}", GridSearchCV(plain(GradientBoostingRegressor), {}, cv=2, scoring=scoring), X, NUMBERS)
print(json.dumps(found))  # noqa: T201 - the result
