"""scikit-learn estimators from skops files. Pickle is never loaded here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tableside.contract.answers import MethodAnswer
from tableside.contract.array_type import Array
from tableside.contract.table import Table
from tableside.errors import ContractBroken, FailureKind
from tableside.runtimes.trusted_types import TRUSTED

METHODS = ("predict", "predict_proba", "decision_function", "score_samples", "transform")


def warm_up() -> None:
    """Import what every artifact needs, so that a load's time is its own."""
    import sklearn.pipeline  # noqa: F401
    import skops.io  # noqa: F401


class SklearnRuntime:
    """An estimator that was loaded from a skops file, or the trainer's own at publish."""

    platform = "scikit-learn_skops"

    def __init__(self, estimator: Any) -> None:
        self.estimator = single_threaded(estimator)

    def prepare(self, table: Table) -> Any:
        """The DataFrame, matrix or list of texts the estimator was trained on."""
        return table.to_input()

    def run(self, method: str, data: Any) -> MethodAnswer:
        """See `Runtime.run`. Sparse answers are made dense; a DataFrame's values are taken in its column order."""
        answer = getattr(self.estimator, method)(data)
        return [as_array(part) for part in answer] if isinstance(answer, list) else as_array(answer)


def as_array(answer: Any) -> Array:
    """An estimator's answer as one array."""
    if hasattr(answer, "toarray"):
        answer = answer.toarray()
    if hasattr(answer, "to_numpy"):
        answer = answer.to_numpy()
    array: Array = np.asarray(answer)
    if array.dtype == np.float16:
        return array.astype(np.float32)
    return array.astype(np.float64) if array.dtype == np.longdouble != np.float64 else array


def load(path: Path, trusted: Iterable[str] = ()) -> SklearnRuntime:
    """Load a skops file whose types are all on our list, skops' own, or `trusted` (the operator's).

    Raises ContractBroken naming the types that are on none of them, or what the file's damage is.
    """
    import skops.io

    allowed = TRUSTED | set(trusted)
    try:
        unknown = sorted(set(skops.io.get_untrusted_types(file=path)) - allowed)
        if unknown:
            raise ContractBroken(
                f"{path.name} holds types that are not trusted: {', '.join(unknown)}", FailureKind.UNTRUSTED
            )
        needed = [kind for kind in skops.io.get_untrusted_types(file=path) if kind in allowed]
        return SklearnRuntime(skops.io.load(path, trusted=needed))
    except ContractBroken:
        raise
    except Exception as damage:
        raise ContractBroken(
            f"{path.name} cannot be loaded: {type(damage).__name__}: {damage}", FailureKind.OTHER
        ) from damage


def single_threaded(estimator: Any) -> Any:
    """Set every `n_jobs` in the estimator and its parts to 1: workers are the parallelism here."""
    for part in parts(estimator):
        if getattr(part, "n_jobs", None) not in (None, 1):
            part.n_jobs = 1
    return estimator


def parts(estimator: Any) -> Iterator[Any]:
    """The estimator and every one within it."""
    seen: set[int] = set()
    stack = [estimator]
    while stack:
        part = stack.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, (list, tuple)):
            stack.extend(part)
        elif isinstance(part, np.ndarray) and part.dtype == object:
            stack.extend(part.ravel())
        elif isinstance(part, dict):
            stack.extend(part.values())
        elif hasattr(part, "get_params") and hasattr(part, "__dict__"):
            yield part
            stack.extend(vars(part).values())
