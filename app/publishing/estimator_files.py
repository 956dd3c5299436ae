"""Reads the trainer's joblib and pickle files. Only publish does that; the server never reads one."""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from tableside.errors import PublishFailed
from tableside.own_code import importer
from tableside.own_code.importer import OwnCode
from tableside.publishing import held_objects
from tableside.settings import Repository
from tableside_contract.environment import same_minor

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
_LOST = re.compile(r"Can't get attribute '(\w+)' on <module '(?:[\w.]+\.)?__(?:mp_)?main__'")
"""What unpickling says about a class or function of the script that trained the model."""


def load(path: Path, code: OwnCode | None = None, versions: Sequence[str] = ()) -> object:
    """Return the fitted estimator in a joblib or pickle file.

    code: the own code that the file names by the trainer's module names. Reading such a file runs the code in it, so it
    must be the trainer's own. versions: the versions of scikit-learn that are known to have written it.
    Raises PublishFailed when the file does not exist, cannot be read, holds no fitted estimator, or one of another
    minor version of scikit-learn than these and the installed one.
    """
    if not path.is_file():
        raise PublishFailed(f"{path}: no such file")
    if path.suffix.lower() in _OTHER_FILES:
        raise PublishFailed(f"{path} {_OTHER_FILES[path.suffix.lower()]}")
    return check(_unpickle(path, str(path), code, versions), str(path))


def read(path: Path) -> bytes:
    """Return the content of the trainer's file. Raises PublishFailed when it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as problem:
        raise PublishFailed(f"{path}: {problem.strerror}") from problem


def load_bytes(
    content: bytes, label: str, code: OwnCode | None = None, versions: Sequence[str] = ()
) -> object:  # fmt: skip
    """Return the fitted estimator in the bytes of a joblib, pickle or cloudpickle file.

    label: the name of the file in errors. code, versions: as for `load`. Raises PublishFailed, as `load` does.
    """
    return check(_unpickle(io.BytesIO(content), label, code, versions), label)


def check_pickle_allowed(path: Path, content: bytes, kind: str, settings: Repository, allow_pickle: bool) -> None:
    """Raise PublishFailed unless the command line or `repository.allowed_pickles` allows to read these bytes."""
    digest = hashlib.sha256(content).hexdigest()
    if not allow_pickle and digest not in {allowed.lower() for allowed in settings.allowed_pickles}:
        raise PublishFailed(
            f"{path} is a {kind} file, and reading one runs the code in it. If you trust its source, add "
            f"--allow-pickle, or add its sha256 to repository.allowed_pickles: {digest}"
        )


def _unpickle(file: Path | io.BytesIO, label: str, code: OwnCode | None, versions: Sequence[str]) -> object:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loaded = _read(file, label, code)
    _check_warnings(caught, label, versions)
    return loaded


def _check_warnings(caught: Sequence[warnings.WarningMessage], label: str, versions: Sequence[str]) -> None:
    """Raise PublishFailed if scikit-learn warned of another minor version that nobody has allowed."""
    import sklearn
    from sklearn.exceptions import InconsistentVersionWarning

    allowed = (sklearn.__version__, *versions)
    for warning in caught:
        if not isinstance(warning.message, InconsistentVersionWarning):
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
            continue
        written = str(warning.message.original_sklearn_version)
        if not any(same_minor(written, each) for each in allowed):
            raise PublishFailed(
                f"{label} was written with scikit-learn {written}, but this environment has {sklearn.__version__}. "
                f"Train the model again with {sklearn.__version__}"
            )


def _read(file: Path | io.BytesIO, label: str, code: OwnCode | None) -> object:
    import joblib

    try:
        with importer.original_names(code) if code is not None else nullcontext():
            loaded: object = joblib.load(file)  # reads what pickle and cloudpickle wrote as well
    except ModuleNotFoundError as problem:
        raise PublishFailed(
            f"{label}: the model uses the module {problem.name!r}, which this environment cannot import. If it is "
            f"your own, pass `--code {_file_of(problem.name)}`; otherwise install the package that provides it"
        ) from problem
    except Exception as problem:
        lost = _LOST.search(str(problem)) if isinstance(problem, AttributeError) else None
        if lost is not None:
            raise PublishFailed(f"{label}: {held_objects.how_to_move('class or function', lost[1])}") from problem
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


def _file_of(module: str | None) -> str:
    """The file or folder that probably holds a module: `churnlib.py`, or `churnlib` for a module inside it."""
    name = module or "FILE"
    return name.partition(".")[0] if "." in name else f"{name}.py"


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
