"""Reads models in formats that run no code when they are read: ONNX graphs, and boosters' own files."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from tableside.errors import ContractBroken, PublishFailed
from tableside.install_hints import install_hint
from tableside.runtimes import onnx_model

CATBOOST_CLASSIFIERS = ("Logloss", "CrossEntropy", "MultiClass", "MultiClassOneVsAll")


def is_native(path: Path) -> bool:
    """Return whether a file has the suffix of a format that this module reads."""
    return path.suffix.lower() in _READERS


def types(path: Path, names: Sequence[str]) -> dict[str, str]:
    """Return the dtypes of a CSV sample's columns as the model takes them. Raises PublishFailed."""
    if path.suffix.lower() != ".onnx":
        return dict.fromkeys(names, "float64")
    try:
        return onnx_model.column_types(path.read_bytes(), names)
    except (ContractBroken, OSError) as problem:
        raise PublishFailed(f"{path.name}: {problem}") from problem


def read(path: Path, sample: pd.DataFrame) -> object:
    """Return the estimator in an ONNX graph (.onnx), or a model of XGBoost (.ubj, .json), LightGBM (.txt) or CatBoost
    (.cbm).

    sample: rows that it takes. Raises PublishFailed for a file that its library cannot read, or without the library.
    """
    try:
        return _READERS[path.suffix.lower()](path, sample)
    except ModuleNotFoundError as absent:
        raise PublishFailed(
            f"{path.name} needs the package {absent.name}, which is not installed here. Install it: "
            f"{install_hint('libraries')}"
        ) from absent
    except (ContractBroken, PublishFailed) as problem:
        raise PublishFailed(f"{path.name}: {problem}") from problem
    except Exception as problem:  # each library has its own exceptions
        said = " ".join(str(problem).split())[:300]
        raise PublishFailed(f"{path.name} cannot be read: {type(problem).__name__}: {said}") from problem


def _onnx(path: Path, sample: pd.DataFrame) -> object:
    return onnx_model.read(path.read_bytes(), sample)


def _xgboost(path: Path, sample: pd.DataFrame) -> object:
    import xgboost

    booster = xgboost.Booster(model_file=str(path))
    objective = json.loads(booster.save_config())["learner"]["objective"]["name"]
    kind = xgboost.XGBClassifier if objective.startswith(("binary:", "multi:")) else xgboost.XGBRegressor
    if objective.startswith("rank:"):
        kind = xgboost.XGBRanker
    made: Any = kind()
    made.load_model(str(path))
    return made


def _lightgbm(path: Path, sample: pd.DataFrame) -> object:
    import lightgbm

    return lightgbm.Booster(model_file=str(path))


def _catboost(path: Path, sample: pd.DataFrame) -> object:
    import catboost

    plain = catboost.CatBoost()
    plain.load_model(str(path))
    loss = str(plain.get_all_params().get("loss_function", "")).partition(":")[0]
    made = catboost.CatBoostClassifier() if loss in CATBOOST_CLASSIFIERS else catboost.CatBoostRegressor()
    made.load_model(str(path))
    return made


_READERS: dict[str, Callable[[Path, pd.DataFrame], object]] = {
    ".onnx": _onnx, ".ubj": _xgboost, ".json": _xgboost, ".txt": _lightgbm, ".cbm": _catboost,
}  # fmt: skip
