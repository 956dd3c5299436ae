"""The trainer's own file, read at publish only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from app.errors import PublishFailed


def load(path: Path) -> Any:
    """A fitted estimator from a joblib or pickle file.

    Reading such a file runs code that is in it: this is for the trainer's own files, and never happens in the server.
    Raises PublishFailed for a file that is not there, cannot be read, or holds no fitted estimator.
    """
    import joblib
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    if not path.is_file():
        raise PublishFailed(f"{path}: no such file")
    try:
        estimator = joblib.load(path)
    except Exception as problem:
        raise PublishFailed(f"{path}: cannot be read as joblib: {type(problem).__name__}: {problem}") from problem
    if not (hasattr(estimator, "predict") or hasattr(estimator, "transform")):
        raise PublishFailed(f"{path}: holds a {type(estimator).__name__}, not an estimator with predict or transform")
    try:
        check_is_fitted(estimator)
    except NotFittedError as problem:
        raise PublishFailed(
            f"{path}: the {type(estimator).__name__} is not fitted; call fit before joblib.dump"
        ) from problem
    except TypeError:
        return estimator  # scikit-learn's check does not know it; the golden rows will
    return estimator
