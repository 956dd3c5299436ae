"""Reads the trainer's joblib and pickle files. Only publish does that; the server never reads one."""

from __future__ import annotations

import io
from pathlib import Path

from tableside.errors import ContractBroken, FailureKind, PublishFailed

_SAVE = "Save the fitted estimator with joblib.dump(estimator, 'model.joblib'), and publish that file"
_TABLE = "holds rows, not an estimator. Name the estimator's file first, and this one with --sample"
_OTHER_FILES = {
    ".py": f"is a Python source file, not a saved estimator. {_SAVE}",
    ".ipynb": f"is a notebook, not a saved estimator. {_SAVE}",
    ".csv": _TABLE,
    ".parquet": _TABLE,
}
"""What files of other kinds are, by their suffix."""
_GIT_LFS = b"version https://git-lfs"


def load(path: Path) -> object:
    """Return the fitted estimator in a joblib or pickle file.

    Reading such a file runs the code in it, so it must be the trainer's own.
    Raises PublishFailed when the file does not exist, cannot be read, or holds no fitted estimator.
    """
    if not path.is_file():
        raise PublishFailed(f"{path}: no such file")
    if path.suffix.lower() in _OTHER_FILES:
        raise PublishFailed(f"{path} {_OTHER_FILES[path.suffix.lower()]}")
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
        raise PublishFailed(f"{label} {_unreadable(file, problem)}") from problem
    return loaded


def _unreadable(file: Path | io.BytesIO, problem: Exception) -> str:
    """Return why a file cannot be read and what to do, as the rest of a sentence that begins with its name."""
    content = file.getvalue() if isinstance(file, io.BytesIO) else file.read_bytes()
    if content.startswith(_GIT_LFS):
        return "is a pointer of Git LFS, not the file itself. Get it with `git lfs pull`"
    if not content:
        return f"is empty. {_SAVE}"
    text = str(problem)
    if isinstance(problem, EOFError) or "truncated" in text or "EOF" in text:
        return f"is incomplete: it ends after {len(content)} bytes, before the estimator does. Save or copy it again"
    return f"cannot be read as a joblib or pickle file: {type(problem).__name__}: {text}"


def check(estimator: object, label: str) -> object:
    """Return `estimator` if it is a fitted estimator with `predict` or `transform`.

    label: the name of its file in errors. Raises PublishFailed when it is not one.
    """
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    if isinstance(estimator, type):
        raise PublishFailed(f"{label} holds the class {estimator.__name__}, not a fitted estimator. {_SAVE}")
    if not _answers_rows(estimator):
        raise PublishFailed(f"{label} {_without_methods(estimator)}")
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


def _answers_rows(estimator: object) -> bool:
    return hasattr(estimator, "predict") or hasattr(estimator, "transform")


def _without_methods(content: object) -> str:
    """Return what an object without predict and transform is, as the rest of a sentence that begins with its file."""
    kind = type(content).__name__
    entries = (
        content.items()
        if isinstance(content, dict)
        else enumerate(content)
        if isinstance(content, (list, tuple))
        else ()
    )
    for key, entry in entries:
        if _answers_rows(entry):
            return (
                f"holds a {kind}, not an estimator. Its entry {key!r} is one ({type(entry).__name__}): save only that, "
                f"joblib.dump(content[{key!r}], 'model.joblib')"
            )
    if hasattr(content, "fit_predict"):
        return f"holds a {kind}, which has no predict: it labels only the rows that it was fitted on"
    return f"holds an object of type {kind}, not an estimator with predict or transform. {_SAVE}"


def trusted_types_hint(problem: ContractBroken) -> str:
    """Return what to add to the error text for a skops file that holds types on no list; else an empty text."""
    if problem.failure_kind is not FailureKind.UNTRUSTED:
        return ""
    return ". If you trust them, add them to repository.trusted_types"
