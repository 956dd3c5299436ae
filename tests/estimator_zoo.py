"""Every kind of estimator scikit-learn has, fitted on plain data: what `tests/e2e/test_estimators.py` serves."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from sklearn import (
    calibration,
    compose,
    datasets,
    decomposition,
    ensemble,
    feature_extraction,
    frozen,
    impute,
    isotonic,
    linear_model,
    model_selection,
    multiclass,
    multioutput,
    naive_bayes,
    neighbors,
    pipeline,
    preprocessing,
    random_projection,
    svm,
    tree,
)  # fmt: skip
from sklearn.utils import all_estimators

METHODS = ("predict", "predict_proba", "decision_function", "score_samples", "transform")

_SILENT = """
AgglomerativeClustering ClassicalMDS DBSCAN EmpiricalCovariance GraphicalLasso GraphicalLassoCV HDBSCAN LedoitWolf
LocalOutlierFactor MDS MinCovDet NearestNeighbors OAS OPTICS ShrunkCovariance SpectralBiclustering SpectralClustering
SpectralCoclustering SpectralEmbedding TSNE
"""
NOT_SERVED: dict[str, str] = {
    **dict.fromkeys(_SILENT.split(), "has none of the five methods: it answers nothing for rows it was not fitted on"),
    **dict.fromkeys(
        ("LabelBinarizer", "LabelEncoder", "MultiLabelBinarizer"), "transforms targets, not rows of a table"
    ),
    **dict.fromkeys(
        ("DictVectorizer", "FeatureHasher", "PatchExtractor"), "takes dicts, tokens or images, not a table"
    ),
    "Birch": "cannot be written as skops",
}
"""Members of `all_estimators()` that are not served. docs/explanation/estimators.md has the same list (tested)."""


@dataclass(frozen=True)
class Case:
    """One fitted estimator, and the rows it is asked for."""

    name: str
    estimator: Any
    rows: Any


@cache
def _plain() -> tuple[Any, Any]:
    table, labels = datasets.load_iris(return_X_y=True)
    return np.ascontiguousarray(np.abs(table)[::2]), labels[::2]


def _inner() -> list[tuple[Any, ...]]:
    classifier, regressor = linear_model.LogisticRegression(), linear_model.Ridge()
    pair = [("a", classifier), ("b", tree.DecisionTreeClassifier(random_state=0))]
    pair_of_regressors = [("a", regressor), ("b", tree.DecisionTreeRegressor(random_state=0))]
    return [(), (classifier,), (regressor,), (pair,), (pair_of_regressors,)]


def _targets() -> list[Any]:
    _, labels = _plain()
    real, two = labels + np.linspace(0.5, 1.0, len(labels)), (labels > 0).astype(int)
    return [labels, two, real, np.c_[two, 1 - two], np.c_[labels, two], np.c_[real, real * 2]]


def _make(kind: type, args: tuple[Any, ...]) -> Any:
    try:
        made = kind(*args)
    except TypeError:
        return None
    if "random_state" in inspect.signature(kind).parameters:
        made.set_params(random_state=0)
    if isinstance(made, (model_selection.GridSearchCV, model_selection.RandomizedSearchCV)):
        return None
    return made


def fit(kind: type) -> Any:
    """An instance of `kind` fitted on plain data. Raises the last refusal when none of the ways to make it fits."""
    table, _ = _plain()
    last: Exception = TypeError("cannot be made without knowing more")
    for args in _inner():
        made = _make(kind, args)
        if made is None:
            continue
        for target in _targets():
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    return made.fit(table, target)
            except Exception as refusal:
                last = refusal
    raise last


def _logistic() -> Any:
    return linear_model.LogisticRegression(max_iter=2000)


def _special() -> dict[str, tuple[Any, Any]]:
    """Estimators that need other arguments or rows than the rest: the unfitted estimator, and its rows."""
    table, _ = _plain()
    frame, _ = _mixed()
    texts = ["red wine, dry", "white wine", "dark beer"] * 5
    words = feature_extraction.text
    return {
        "ColumnTransformer": (_columns(impute.SimpleImputer()), frame),
        "CountVectorizer": (words.CountVectorizer(), texts),
        "FeatureUnion": (pipeline.FeatureUnion([("p", decomposition.PCA(2)), ("s", impute.SimpleImputer())]), table),
        "FrozenEstimator": (frozen.FrozenEstimator(_logistic().fit(*_plain())), table),
        "GaussianRandomProjection": (random_projection.GaussianRandomProjection(2, random_state=0), table),
        "GridSearchCV": (model_selection.GridSearchCV(_logistic(), {"C": [1.0, 2.0]}, cv=2), table),
        "HashingVectorizer": (words.HashingVectorizer(n_features=32), texts),
        "IsotonicRegression": (isotonic.IsotonicRegression(out_of_bounds="clip"), table[:, :1]),
        "KernelCenterer": (preprocessing.KernelCenterer(), table @ table.T),
        "Pipeline": (pipeline.make_pipeline(preprocessing.StandardScaler(), _logistic()), table),
        "RandomizedSearchCV": (
            model_selection.RandomizedSearchCV(_logistic(), {"C": [1.0, 2.0]}, n_iter=1, cv=2, random_state=0), table
        ),
        "SparseCoder": (decomposition.SparseCoder(table[:3]), table),
        "SparseRandomProjection": (random_projection.SparseRandomProjection(2, random_state=0), table),
        "TfidfVectorizer": (words.TfidfVectorizer(), texts),
    }  # fmt: skip


def plain_cases() -> Iterator[tuple[str, Case | Exception]]:
    """Each member of `all_estimators()`: its case, or why it cannot be fitted here."""
    table, labels = _plain()
    special = _special()
    for name, kind in all_estimators():
        try:
            if name in special:
                estimator, rows = special[name]
                yield name, Case(name, estimator.fit(rows, labels[: len(rows)]), rows)
            else:
                yield name, Case(name, fit(kind), table)
        except Exception as refusal:
            yield name, refusal


def _mixed() -> tuple[pd.DataFrame, Any]:
    chance = np.random.default_rng(5)
    rows = 120
    frame = pd.DataFrame(
        {
            "age": chance.integers(18, 90, rows),
            "income": np.where(chance.random(rows) < 0.15, np.nan, chance.lognormal(10, 1, rows)),
            "city": pd.Series(chance.choice(["Graz", "Linz", "Wien", "São Paulo"], rows), dtype=object),
            "member": chance.random(rows) < 0.5,
        }
    )
    return frame, np.where(frame["age"] + 20 * frame["member"] > 60, "stays", "leaves")


def _columns(numbers: Any) -> Any:
    return compose.ColumnTransformer(
        [
            ("numbers", numbers, ["age", "income"]),
            ("words", preprocessing.OneHotEncoder(handle_unknown="ignore"), ["city"]),
            ("flags", "passthrough", ["member"]),
        ]
    )


def _tables() -> Iterator[Case]:
    frame, label = _mixed()
    amount = frame["age"] * 3.5
    numbers = pipeline.make_pipeline(impute.SimpleImputer(), preprocessing.StandardScaler())
    forest = ensemble.RandomForestClassifier(20, random_state=0)
    both = pipeline.FeatureUnion([("table", _columns(numbers)), ("again", _columns(impute.SimpleImputer()))])
    yield Case("column-transformer", _columns(numbers).fit(frame), frame)
    yield Case("pipeline-logistic", pipeline.make_pipeline(_columns(numbers), _logistic()).fit(frame, label), frame)
    yield Case("pipeline-forest", pipeline.make_pipeline(_columns(numbers), forest).fit(frame, label), frame)
    yield Case("feature-union", pipeline.make_pipeline(both, _logistic()).fit(frame, label), frame)
    table = pipeline.make_pipeline(_columns(numbers), ensemble.HistGradientBoostingRegressor(random_state=0))
    logged = compose.TransformedTargetRegressor(table, func=np.log1p, inverse_func=np.expm1)
    yield Case("transformed-target", logged.fit(frame, amount), frame)
    sparse = pipeline.make_pipeline(preprocessing.OneHotEncoder(handle_unknown="ignore"))
    yield Case("sparse-one-hot", sparse.fit(frame[["city"]]), frame[["city"]])
    ordinal = compose.make_column_transformer((preprocessing.OrdinalEncoder(), ["city"]), remainder="passthrough")
    categories = frame.astype({"city": "category"})
    boosted = ensemble.HistGradientBoostingClassifier(categorical_features="from_dtype", random_state=0)
    yield Case("ordinal", ordinal.fit(frame[["age", "city"]]), frame[["age", "city"]])
    yield Case("category-dtype", boosted.fit(categories[["age", "city"]], label), categories[["age", "city"]])
    text_dtype = frame.astype({"city": "str"})
    yield Case("str-dtype", pipeline.make_pipeline(_columns(numbers), _logistic()).fit(text_dtype, label), text_dtype)
    pandas_out = _columns(numbers).set_output(transform="default")
    yield Case("named-output", pandas_out.fit(frame), frame)
    selector = compose.ColumnTransformer([("n", numbers, compose.make_column_selector(dtype_include=np.number))])
    yield Case("column-selector", selector.fit(frame), frame)


def _meta() -> Iterator[Case]:
    table, labels = _plain()
    names = np.array(["setosa", "versicolor", "virginica"])[labels]
    two = (labels > 0).astype(int)
    frame = pd.DataFrame(table, columns=["sepal length (cm)", "sepal width (cm)", "petal length (cm)", "petal width"])
    scaled = pipeline.make_pipeline(preprocessing.StandardScaler(), svm.SVC(random_state=0))
    grid = model_selection.GridSearchCV(scaled, {"svc__C": [0.5, 1.0]}, cv=3)
    halving = model_selection.RandomizedSearchCV(
        ensemble.RandomForestClassifier(10, random_state=0), {"max_depth": [2, 3]}, n_iter=2, cv=2, random_state=0
    )
    members = [("l", _logistic()), ("t", tree.DecisionTreeClassifier(random_state=0)), ("n", naive_bayes.GaussianNB())]
    regressors = [("r", linear_model.Ridge()), ("k", neighbors.KNeighborsRegressor())]
    real = labels + np.linspace(0.5, 1.0, len(labels))
    yield Case("grid-search", grid.fit(frame, names), frame)
    yield Case("randomized-search", halving.fit(table, names), table)
    yield Case("voting-soft", ensemble.VotingClassifier(members, voting="soft").fit(table, names), table)
    yield Case("voting-hard", ensemble.VotingClassifier(members).fit(table, names), table)
    yield Case("voting-regressor", ensemble.VotingRegressor(regressors).fit(table, real), table)
    yield Case("stacking", ensemble.StackingClassifier(members, cv=3).fit(table, names), table)
    yield Case("stacking-regressor", ensemble.StackingRegressor(regressors, cv=3).fit(table, real), table)
    for method in ("sigmoid", "isotonic", "temperature"):
        made = calibration.CalibratedClassifierCV(naive_bayes.GaussianNB(), method=method, cv=3)
        yield Case(f"calibrated-{method}", made.fit(table, names), table)
    tuned = model_selection.TunedThresholdClassifierCV(_logistic(), cv=3)
    yield Case("tuned-threshold", tuned.fit(table, two), table)
    fixed = model_selection.FixedThresholdClassifier(_logistic(), threshold=0.3, response_method="predict_proba")
    yield Case("fixed-threshold", fixed.fit(table, two), table)
    bagged = ensemble.BaggingClassifier(neighbors.KNeighborsClassifier(), n_estimators=4, random_state=0)
    yield Case("bagging-knn", bagged.fit(table, names), table)
    boosted = ensemble.AdaBoostClassifier(tree.DecisionTreeClassifier(max_depth=2), n_estimators=5, random_state=0)
    yield Case("adaboost", boosted.fit(table, names), table)
    yield Case("one-vs-rest", multiclass.OneVsRestClassifier(svm.LinearSVC(random_state=0)).fit(table, names), table)
    reduced = pipeline.make_pipeline(decomposition.PCA(2), ensemble.HistGradientBoostingClassifier(random_state=0))
    yield Case("pca-boosting", reduced.fit(table, names), table)
    single = ensemble.RandomForestRegressor(10, random_state=0).fit(table.astype(np.float32), real)
    yield Case("float32-matrix", single, table.astype(np.float32))
    narrow = pipeline.make_pipeline(preprocessing.StandardScaler()).fit(table.astype(np.float32))
    yield Case("float32-output", narrow, table.astype(np.float32))
    missing_cells = table.copy()
    missing_cells[::7, 1] = np.nan
    yield Case(
        "missing-cells",
        ensemble.HistGradientBoostingClassifier(random_state=0).fit(missing_cells, names),
        missing_cells,
    )
    yield Case(
        "missing-in-forest", ensemble.RandomForestClassifier(8, random_state=0).fit(missing_cells, names), missing_cells
    )
    yield Case("bool-labels", linear_model.LogisticRegression().fit(table, labels > 0), table)
    yield Case("novelty", neighbors.LocalOutlierFactor(novelty=True).fit(table), table)


def _several_targets() -> Iterator[Case]:
    table, labels = _plain()
    names = np.array(["low", "mid", "high"], dtype=object)
    both = np.c_[labels, (labels > 0).astype(int)]
    words = np.c_[names[labels], names[2 - labels]]
    many, flags = datasets.make_multilabel_classification(80, 6, n_classes=3, random_state=0)
    real = np.c_[labels * 1.5, labels - 0.25]
    forest = ensemble.RandomForestClassifier(8, random_state=0)
    yield Case("multi-output-forest", forest.fit(table, both), table)
    yield Case("multi-output-tree-words", tree.DecisionTreeClassifier(random_state=0).fit(table, words), table)
    yield Case("multi-output-classifier", multioutput.MultiOutputClassifier(_logistic()).fit(table, both), table)
    boosted = ensemble.HistGradientBoostingRegressor(random_state=0)
    yield Case("multi-output-regressor", multioutput.MultiOutputRegressor(boosted).fit(table, real), table)
    yield Case("classifier-chain", multioutput.ClassifierChain(_logistic(), random_state=0).fit(many, flags), many)
    yield Case("regressor-chain", multioutput.RegressorChain(linear_model.Ridge()).fit(table, real), table)
    yield Case("multilabel-knn", neighbors.KNeighborsClassifier().fit(many, flags), many)
    yield Case("multilabel-one-vs-rest", multiclass.OneVsRestClassifier(_logistic()).fit(many, flags), many)


def _texts() -> Iterator[Case]:
    texts = [
        "red wine, dry",
        "white wine",
        "dark beer",
        "pale beer, dry",
        "cider",
        "dry red cider",
        "weißbier 大麦",
    ] * 6
    label = np.array(["beer" if "be" in text or "bier" in text else "other" for text in texts])
    tfidf = feature_extraction.text.TfidfVectorizer()
    yield Case("tfidf", tfidf.fit(texts), texts)
    pipe = pipeline.make_pipeline(
        feature_extraction.text.TfidfVectorizer(ngram_range=(1, 2)), linear_model.LogisticRegression()
    )
    yield Case("tfidf-logistic", pipe.fit(texts, label), texts)
    bayes = pipeline.make_pipeline(feature_extraction.text.CountVectorizer(), naive_bayes.MultinomialNB())
    yield Case("count-bayes", bayes.fit(texts, label), texts)
    hashed = pipeline.make_pipeline(feature_extraction.text.HashingVectorizer(n_features=64), svm.LinearSVC())
    yield Case("hashing-svc", hashed.fit(texts, label), texts)
    frame = pd.DataFrame({"note": texts, "price": np.arange(len(texts)) / 3})
    beside = compose.make_column_transformer(
        (feature_extraction.text.TfidfVectorizer(), "note"), ("passthrough", ["price"])
    )
    yield Case("text-beside-numbers", pipeline.make_pipeline(beside, svm.LinearSVC()).fit(frame, label), frame)
    searched = model_selection.GridSearchCV(pipe, {"logisticregression__C": [1.0, 2.0]}, cv=2)
    yield Case("text-grid-search", searched.fit(texts, label), texts)


def composed_cases() -> Iterator[Case]:
    """Meta-estimators, tables of mixed columns, several targets, texts, labels of every type."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield from _tables()
        yield from _meta()
        yield from _several_targets()
        yield from _texts()
