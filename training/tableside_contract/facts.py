"""What a fitted estimator says of itself, as plain data that JSON can hold.

Classes outside of scikit-learn use its attribute names for other things: `transformers_` may be a dict,
`n_features_in_` may be 0, and a property may raise anything. So each attribute is checked before it is believed, and
one that is not what scikit-learn documents counts as absent.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any, Iterable, Iterator, Literal, TypedDict

from tableside_contract import cells
from tableside_contract.cells import Cell
from tableside_contract.environment import same_minor

METHODS = ("predict", "predict_proba", "decision_function", "score_samples", "transform")
"""The methods that can be served, the default one first."""
Kind = Literal["classifier", "regressor", "clusterer", "outlier_detector", "transformer", "other"]
_KEEP_CELLS = ("SimpleImputer", "OneHotEncoder", "OrdinalEncoder", "TargetEncoder")
_MAX_DEPTH = 8
_PLAIN = (type(None), bool, int, float, complex, str, bytes, ModuleType)


class Categories(TypedDict):
    """The values that an encoder was fitted on for one column.

    closed: whether the encoder refuses other values. dtype: the numpy dtype of the fitted values.
    """

    values: list[Cell]
    closed: bool
    dtype: str


class Facts(TypedDict):
    """What a fitted estimator says of itself.

    estimator: the name of its class; of a pipeline also those of its steps. kind: as `Contract.kind`.
    methods: those of METHODS that it has.
    feature_names, n_features: the columns it was fitted on; None if it does not say.
    classes: the labels of a classifier. classes_by_target: the labels of each target, if it has several.
    categories: by column name, for encoders inside a ColumnTransformer that selects its columns by name.
    libraries: the top-level modules whose classes are in the estimator, such as `sklearn`, sorted.
    """

    estimator: str
    kind: Kind
    methods: list[str]
    feature_names: list[str] | None
    n_features: int | None
    classes: list[Cell] | None
    classes_by_target: list[list[Cell]] | None
    categories: dict[str, Categories]
    libraries: list[str]


def describe(estimator: object) -> Facts:
    """Return the facts of a fitted estimator. Never raises for what a class makes of scikit-learn's attributes."""
    classes = attribute(estimator, "classes_")
    by_target = [_values(labels) for labels in classes] if isinstance(classes, (list, tuple)) else []
    several = [labels for labels in by_target if labels is not None]
    return Facts(
        estimator=class_name(estimator),
        kind=kind_of(estimator),
        methods=[method for method in METHODS if callable(attribute(estimator, method))],
        feature_names=feature_names(estimator),
        n_features=n_features(estimator),
        classes=None if several else _values(classes),
        classes_by_target=several if several and len(several) == len(by_target) else None,
        categories=fitted_categories(estimator),
        libraries=libraries(estimator),
    )


def attribute(estimator: object, name: str) -> Any:
    """Return an attribute; None if there is none, or if a property raises whatever it raises."""
    try:
        return getattr(estimator, name, None)
    except Exception:  # noqa: BLE001 - a property of a foreign class may raise anything
        return None


def class_name(estimator: object) -> str:
    """Return the name of the class; of a pipeline `Pipeline(StandardScaler, Ridge)`."""
    parts = steps(estimator)
    inner = f"({', '.join(type(part).__name__ for part in parts)})" if parts else ""
    return f"{type(estimator).__name__}{inner}"


def kind_of(estimator: object) -> Kind:
    """Return classifier, regressor, clusterer, outlier_detector, transformer or other."""
    declared = _declared_kind(estimator)
    if declared:
        return declared
    if attribute(estimator, "predict") is not None:
        clusters = attribute(estimator, "_estimator_type") == "clusterer" or attribute(estimator, "labels_") is not None
        return "clusterer" if clusters else "other"
    return "transformer" if attribute(estimator, "transform") is not None else "other"


def _declared_kind(estimator: object) -> Kind | None:
    from sklearn import base

    # From 1.6 on these functions ask for the estimator's tags, and fail for a class without them.
    if hasattr(base.BaseEstimator, "__sklearn_tags__") and attribute(estimator, "__sklearn_tags__") is None:
        return None
    try:
        if base.is_classifier(estimator):
            return "classifier"
        if base.is_regressor(estimator):
            return "regressor"
        return "outlier_detector" if base.is_outlier_detector(estimator) else None
    except Exception:  # noqa: BLE001 - what a foreign class answers to scikit-learn may fail anyhow
        return None


def feature_names(estimator: object, given: Iterable[object] = ()) -> list[str] | None:
    """Return the column names that the estimator was fitted on; None if it has no list of distinct names.

    given: the names of a table of the trainer's. LightGBM keeps an underscore for each space in a name; the names are
    the trainer's own where one of these fits.
    """
    names = _list(attribute(estimator, "feature_names_in_")) or _boosters_names(estimator)
    if not names or any(isinstance(name, (list, dict)) for name in names):
        return None
    texts = [str(name) for name in names]
    if _is_invented(estimator, texts):
        return None
    return _as_given(estimator, texts, [str(name) for name in given]) if len(set(texts)) == len(texts) else None


def _as_given(estimator: object, names: list[str], given: list[str]) -> list[str]:
    if not given or set(names) <= set(given) or "lightgbm" not in libraries(estimator):
        return names
    kept: dict[str, list[str]] = {}
    for name in given:
        kept.setdefault(name.replace(" ", "_"), []).append(name)
    return [kept[name][0] if name not in given and len(kept.get(name, ())) == 1 else name for name in names]


def _boosters_names(estimator: object) -> list[Any] | None:
    """Return the names in a booster that has no `feature_names_in_`, or in the first step of a pipeline."""
    first = _first(estimator)
    if not type(first).__module__.startswith(("catboost.", "lightgbm.")):
        return None
    found = attribute(first, "feature_names_")
    if found is None and callable(attribute(first, "feature_name")):
        found = first.feature_name()
    names = _list(found)
    return None if names is None or _is_invented(first, [str(name) for name in names]) else names


def _is_invented(estimator: object, names: list[str]) -> bool:
    """Whether a booster made these names up for an array: CatBoost counts from "0", LightGBM from "Column_0"."""
    prefix = {"catboost": "", "lightgbm": "Column_"}.get(type(_first(estimator)).__module__.partition(".")[0])
    return prefix is not None and names == [f"{prefix}{at}" for at in range(len(names))]


def _first(estimator: object) -> Any:
    """Return what is given the columns: of a search its best estimator, of a pipeline its first step."""
    for _ in range(_MAX_DEPTH):
        inside = attribute(estimator, "best_estimator_") or next(iter(steps(estimator)), None)
        if inside is None:
            break
        estimator = inside
    return estimator


def n_features(estimator: object) -> int | None:
    """Return the number of columns that the estimator was fitted on; None if it says none, or not a positive number."""
    number = attribute(estimator, "n_features_in_")
    number = number.item() if hasattr(number, "item") and getattr(number, "ndim", 1) == 0 else number
    if isinstance(number, int) and not isinstance(number, bool) and number > 0:
        return number
    names = _list(attribute(_first(estimator), "feature_names_"))  # CatBoost's, which may say 0 columns
    return len(names) if names else None


def steps(estimator: object) -> list[Any]:
    """Return the parts of a pipeline in order; empty for an estimator whose `steps` are not (name, estimator) pairs."""
    found = attribute(estimator, "steps")
    if not isinstance(found, (list, tuple)):
        return []
    pairs = [step for step in found if isinstance(step, (list, tuple)) and len(step) == 2 and isinstance(step[0], str)]
    return [part for _, part in pairs] if len(pairs) == len(found) else []


def fitted_categories(estimator: object) -> dict[str, Categories]:
    """Return the categories of the encoders inside a ColumnTransformer that selects its columns by name."""
    found: dict[str, Categories] = {}
    for step in steps(estimator) or [estimator]:
        for transformer, columns in _transformers(step):
            for encoder in steps(transformer) or [transformer]:
                if type(encoder).__name__ not in _KEEP_CELLS:
                    break  # the next step does not see the column's own cells: after KBinsDiscretizer it sees bins
                groups = _list(attribute(encoder, "categories_"))
                if groups is not None and len(groups) == len(columns):
                    found.update(_categories(encoder, groups, columns))
                    break
    return found


def _transformers(step: object) -> Iterator[tuple[Any, list[str]]]:
    """Yield each (transformer, names of its columns) of a ColumnTransformer; nothing for another object."""
    found = attribute(step, "transformers_")
    for entry in found if isinstance(found, (list, tuple)) else ():
        if isinstance(entry, (list, tuple)) and len(entry) == 3:
            columns = [entry[2]] if isinstance(entry[2], str) else _list(entry[2]) or []
            yield entry[1], columns if all(isinstance(column, str) for column in columns) else []


def _categories(encoder: object, groups: list[Any], columns: list[str]) -> Iterator[tuple[str, Categories]]:
    closed = str(attribute(encoder, "handle_unknown")) == "error"
    for name, group in zip(columns, groups):
        values = _values(group)
        if values is not None:
            yield str(name), Categories(values=values, closed=closed, dtype=str(getattr(group, "dtype", "object")))


def libraries(estimator: object) -> list[str]:
    """Return the top-level modules whose classes are in the estimator, sorted: `["numpy", "sklearn"]`."""
    found = {type(part).__module__.partition(".")[0] for part in parts(estimator)}
    return sorted(found - {"builtins", "collections"})


def parts(estimator: object) -> Iterator[Any]:
    """Yield the estimator and every object inside it, except numbers, texts and modules.

    Objects of scipy keep the module whose functions they call; what it holds is no part of the estimator.
    """
    seen: set[int] = set()
    waiting: list[Any] = [estimator]
    while waiting:
        part = waiting.pop()
        if isinstance(part, _PLAIN) or id(part) in seen:
            continue
        seen.add(id(part))
        yield part
        waiting.extend(_inside(part))


def written_by(estimator: object) -> str:
    """Return a sentence that says which other scikit-learn an estimator in memory comes from; empty if none shows.

    Releases before 1.6 keep the version that pickled an estimator in its state. Any release leaves out parameters that
    an older one did not know, because unpickling does not call `__init__`.
    """
    import sklearn

    for part in parts(estimator):
        state = attribute(part, "__dict__")
        if isinstance(part, type) or not isinstance(state, dict) or not type(part).__module__.startswith("sklearn."):
            continue
        version = state.get("_sklearn_version")
        if isinstance(version, str) and not same_minor(version, sklearn.__version__):
            return f"the {type(part).__name__} was pickled with scikit-learn {version}"
        lost = _lost_parameter(part) if hasattr(part, "get_params") else ""
        if lost:
            return f"the {type(part).__name__} lacks a parameter, so an older scikit-learn made it ({lost})"
    return ""


def _lost_parameter(part: Any) -> str:
    try:
        part.get_params(deep=False)
    except AttributeError as problem:
        return str(problem)
    except Exception:  # noqa: BLE001 - what else it raises says nothing about releases
        return ""
    return ""


def _inside(part: Any) -> list[Any]:
    """Return the objects that an object holds."""
    if isinstance(part, dict):
        return list(part.values())
    if isinstance(part, (list, tuple, set, frozenset)):
        return list(part)
    if attribute(attribute(part, "dtype"), "kind") == "O" and attribute(part, "ravel"):
        return list(part.ravel())
    state = attribute(part, "__dict__")
    return list(state.values()) if isinstance(state, dict) and not isinstance(part, type) else []


def _list(value: Any) -> list[Any] | None:
    """Return a list, tuple, one-dimensional array or Index as a list; None for anything else."""
    if isinstance(value, (list, tuple)):
        return list(value)
    if getattr(value, "ndim", 0) == 1 and hasattr(value, "tolist"):
        return list(value)
    return None


def _values(values: Any) -> list[Cell] | None:
    """Return a list or one-dimensional array as JSON cells; None for anything else."""
    found = _list(values)
    return None if found is None else [cells.to_json(value) for value in found]
