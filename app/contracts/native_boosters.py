"""Keeps boosters beside the skops file, each in the format of its own library.

XGBoost, LightGBM and CatBoost each have a documented format that later releases read: `.ubj`, `.txt` and `.cbm`. At
publish every booster in the estimator is replaced by a mark that names its file. At load it is read from there, and
predicts with one thread. A booster must not be loaded before a worker is forked: OpenMP would hang in the worker.

This file also runs in model processes, as tableside.contracts.conversion does: Python 3.8, no import of Tableside.
"""

from __future__ import annotations

import copy
import functools
import os
import re
import tempfile
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Callable, Mapping

if TYPE_CHECKING or __package__:
    from tableside.contracts import object_graph
    from tableside.contracts.object_graph import class_path, package_of
else:
    import object_graph
    from object_graph import class_path, package_of

MARK = "tableside_booster"
"""Key of the dict that stands for a booster in the skops file; its value is the name of the booster's file."""
FILE = re.compile(r"^booster-[0-9]{1,6}\.(ubj|txt|cbm)\Z")
INSTALL = "install the wheel with its extra `libraries`, or in a checkout: pip install -r requirements/libraries.txt"
PACKAGES = ("xgboost", "lightgbm", "catboost", "imblearn", "feature_engine", "skrub", "polars")
"""Import names of the packages in requirements/libraries.txt."""


class BoosterError(Exception):
    """A booster cannot be read. kind: a FailureKind of the server."""

    def __init__(self, text: str, kind: str) -> None:
        super().__init__(text)
        self.kind = kind


Attributes = Mapping[str, Any]
"""What a native format does not hold, as values that skops holds: the best iteration of LightGBM."""


@dataclass(frozen=True)
class _Format:
    suffix: str
    write: Callable[[Any], tuple[bytes, Attributes]]
    read: Callable[[type, bytes, Attributes], Any]


def detach(estimator: object) -> tuple[object, dict[str, bytes]]:
    """Return a copy of the estimator without its boosters, and their files by name.

    The estimator itself is returned where it has no boosters.
    """
    found = [part for part in object_graph.objects(estimator) if class_path(part) in _FORMATS and _is_fitted(part)]
    if not found:
        return estimator, {}
    marks: dict[int, Any] = {}
    files: dict[str, bytes] = {}
    for at, booster in enumerate(found):
        form = _FORMATS[class_path(booster)]
        content, attributes = form.write(booster)
        file = f"booster-{at}.{form.suffix}"
        files[file] = content
        marks[id(booster)] = {MARK: file, "class": class_path(booster), "attributes": dict(attributes)}
    return copy.deepcopy(estimator, marks), files


def _is_fitted(booster: Any) -> bool:
    """Whether there is something to write: a search keeps an unfitted copy of its CatBoost estimator."""
    return package_of(booster) != "catboost" or bool(booster.is_fitted())


def attach(loaded: object, folder: str) -> object:
    """Return the estimator of a skops file with its boosters, read from their files in `folder`.

    The hashes of these files must have been compared with the contract before. Raises BoosterError.
    """
    return object_graph.replace(loaded, lambda value: _read(value, folder) if _is_mark(value) else value)


def classes(loaded: object) -> set[str]:
    """Return the classes of the boosters that `attach` would read, such as `xgboost.core.Booster`."""
    found: set[str] = set()

    def note(value: object) -> object:
        if _is_mark(value):
            found.add(str(value["class"]))  # type: ignore[index]
        return value

    object_graph.replace(loaded, note)
    return found


def _is_mark(value: object) -> bool:
    return isinstance(value, dict) and MARK in value


def _read(mark: Any, folder: str) -> object:
    file, kind = mark[MARK], mark["class"]
    if kind not in _FORMATS or not FILE.match(file):
        raise BoosterError(f"the artifact names the booster {file!r} of the class {kind!r}", "damaged")
    module, _, name = kind.rpartition(".")
    try:
        library = import_module(module)
    except ImportError as absent:
        package = module.partition(".")[0]
        raise BoosterError(
            f"{file} needs the library {package}, which cannot be imported here ({absent}): {INSTALL}",
            "environment",
        ) from absent
    try:
        with open(os.path.join(folder, file), "rb") as opened:
            content = opened.read()
    except OSError as problem:
        raise BoosterError(f"{file} cannot be read: {problem.strerror or problem}", "damaged") from problem
    return _FORMATS[kind].read(getattr(library, name), content, mark["attributes"])


def _write_xgboost(booster: Any) -> tuple[bytes, Attributes]:
    return bytes(booster.save_raw(raw_format="ubj")), {}


def _read_xgboost(kind: Any, content: bytes, _: Attributes) -> Any:
    return kind(params={"nthread": 1}, model_file=bytearray(content))


_LIGHTGBM = ("best_iteration", "best_score")


def _write_lightgbm(booster: Any) -> tuple[bytes, Attributes]:
    # -1: every iteration. By default only those up to the best one are written.
    text = booster.model_to_string(num_iteration=-1)
    return text.encode(), {name: getattr(booster, name) for name in _LIGHTGBM}


def _read_lightgbm(kind: Any, content: bytes, attributes: Attributes) -> Any:
    booster = kind(model_str=content.decode())
    for name in _LIGHTGBM:
        setattr(booster, name, attributes[name])
    return booster


def _write_catboost(estimator: Any) -> tuple[bytes, Attributes]:
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "model.cbm")
        estimator.save_model(path, format="cbm")
        with open(path, "rb") as file:
            return file.read(), {}


def _read_catboost(kind: Any, content: bytes, _: Attributes) -> Any:
    return kind().load_model(blob=content)


_CATBOOST = _Format("cbm", _write_catboost, _read_catboost)
_FORMATS = {
    "xgboost.core.Booster": _Format("ubj", _write_xgboost, _read_xgboost),
    "lightgbm.basic.Booster": _Format("txt", _write_lightgbm, _read_lightgbm),
    **{f"catboost.core.{name}": _CATBOOST for name in ("CatBoost", "CatBoostClassifier", "CatBoostRegressor")},
}

_CATBOOST_METHODS = ("predict", "predict_proba", "predict_log_proba")


def has_threads(part: object) -> bool:
    """Whether an object is of a library whose number of threads `use_one_thread` sets."""
    return package_of(part) in ("xgboost", "lightgbm", "catboost")


def use_one_thread(part: Any) -> None:
    """Make a booster, or the estimator around one, predict with one thread. Does nothing to other objects."""
    package = package_of(part)
    if package in ("xgboost", "lightgbm") and hasattr(part, "n_jobs"):
        part.n_jobs = 1
    elif class_path(part) == "xgboost.core.Booster":
        part.set_param({"nthread": 1})
    elif package == "catboost":
        _use_one_catboost_thread(part)


def _use_one_catboost_thread(estimator: Any) -> None:
    """CatBoost takes the number of threads as an argument of each call, and by default uses all cores."""
    for name in _CATBOOST_METHODS:
        method = getattr(type(estimator), name, None)
        if method is not None and name not in vars(estimator):
            one = functools.partial(method, estimator, thread_count=1)
            setattr(estimator, name, functools.update_wrapper(one, method))


def install_hint(package: str | None) -> str:
    """Return how to install one of the packages of requirements/libraries.txt; empty for another package."""
    return f": {INSTALL}" if package in PACKAGES else ""
