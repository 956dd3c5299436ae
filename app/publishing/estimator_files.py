"""Reads the trainer's joblib and pickle files. Only publish does that; the server never reads one."""

from __future__ import annotations

import io
from pathlib import Path

from tableside.errors import ContractBroken, FailureKind, PublishFailed


def load(path: Path) -> object:
    """Return the fitted estimator in a joblib or pickle file.

    Reading such a file runs the code in it, so it must be the trainer's own.
    Raises PublishFailed when the file does not exist, cannot be read, or holds no fitted estimator.
    """
    if not path.is_file():
        raise PublishFailed(f"{path}: no such file")
    return check(_unpickle(path, str(path)), str(path))


def load_bytes(content: bytes, label: str) -> object:
    """Return the fitted estimator in the bytes of a joblib, pickle or cloudpickle file.

    label: the name of the file in errors. Raises PublishFailed, as `load` does.
    """
    return check(_unpickle(io.BytesIO(content), label), label)


def _unpickle(file: Path | io.BytesIO, label: str) -> object:
    import joblib

    try:
        loaded: object = joblib.load(file)  # reads what pickle and cloudpickle wrote as well
    except ModuleNotFoundError as problem:
        raise PublishFailed(
            f"{label}: the estimator uses the module {problem.name!r}, which this environment cannot import. Install "
            "the package that provides it, or add its folder to PYTHONPATH"
        ) from problem
    except Exception as problem:
        raise PublishFailed(
            f"{label} cannot be read as a joblib or pickle file: {type(problem).__name__}: {problem}"
        ) from problem
    return loaded


def check(estimator: object, label: str) -> object:
    """Return `estimator` if it is a fitted estimator with `predict` or `transform`.

    label: the name of its file in errors. Raises PublishFailed when it is not one.
    """
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    if not (hasattr(estimator, "predict") or hasattr(estimator, "transform")):
        raise PublishFailed(
            f"{label} holds an object of type {type(estimator).__name__}, not an estimator with predict or transform"
        )
    try:
        check_is_fitted(estimator)
    except NotFittedError as problem:
        raise PublishFailed(
            f"{label}: the {type(estimator).__name__} is not fitted. Call fit before saving it"
        ) from problem
    except TypeError:
        # check_is_fitted works only for subclasses of BaseEstimator. Others fail later, on the golden rows.
        return estimator
    return estimator


def trusted_types_hint(problem: ContractBroken) -> str:
    """Return what to add to the error text for a skops file that holds types on no list; else an empty text."""
    if problem.failure_kind is not FailureKind.UNTRUSTED:
        return ""
    return ". If you trust them, add them to repository.trusted_types"
