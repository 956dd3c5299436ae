"""The trainer's own file, read at publish only."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from tableside.errors import PublishFailed


def load(path: Path) -> Any:
    """A fitted estimator from a joblib or pickle file.

    Reading such a file runs code that is in it: this is for the trainer's own files, and never happens in the server.
    Raises PublishFailed for a file that is not there, cannot be read, or holds no fitted estimator.
    """
    if not path.is_file():
        raise PublishFailed(f"{path}: no such file")
    return check(_unpickle(path, str(path)), str(path))


def load_bytes(content: bytes, label: str) -> Any:
    """As `load`, from the bytes of a joblib, pickle or cloudpickle file; `label` names it in errors."""
    return check(_unpickle(io.BytesIO(content), label), label)


def _unpickle(file: Any, label: str) -> Any:
    import joblib

    try:
        return joblib.load(file)  # reads what pickle and cloudpickle wrote as well
    except ModuleNotFoundError as problem:
        raise PublishFailed(f"{label}: needs the package {problem.name}, which is not installed here") from problem
    except Exception as problem:
        raise PublishFailed(f"{label}: cannot be read as joblib: {type(problem).__name__}: {problem}") from problem


def check(estimator: Any, label: str) -> Any:
    """The estimator, if it is a fitted one. Raises PublishFailed; `label` names its file."""
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    if not (hasattr(estimator, "predict") or hasattr(estimator, "transform")):
        raise PublishFailed(f"{label}: holds a {type(estimator).__name__}, not an estimator with predict or transform")
    try:
        check_is_fitted(estimator)
    except NotFittedError as problem:
        raise PublishFailed(
            f"{label}: the {type(estimator).__name__} is not fitted; call fit before saving it"
        ) from problem
    except TypeError:
        return estimator  # scikit-learn's check does not know it; the golden rows will
    return estimator
