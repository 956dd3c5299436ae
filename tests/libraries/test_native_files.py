"""Boosters' own files as models: what is served is what the booster that wrote the file answers, to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import catboost
import lightgbm
import numpy as np
import pandas as pd
import pytest
import xgboost

from tableside.decoding.json_tables import from_rows
from tableside.errors import PublishFailed
from tableside.publishing import native_files, publish, sources
from tableside.settings import Repository
from tests.unit.test_reloading import registry_for

ROWS = pd.DataFrame({"a": np.linspace(0, 1, 120), "b": np.linspace(5, 2, 120) % 1.7, "c": np.arange(120.0) % 11})
CLASSES = (ROWS["a"] * 2.99).astype(int).to_numpy()
VALUES = (ROWS["a"] ** 2 + ROWS["c"]).to_numpy()
LIBRARIES = ("xgboost", "lightgbm", "catboost")


def trained(kind: str, path: Path) -> Any:
    """Train and save a booster in its own format. Returns the one in memory."""
    if kind == "catboost":
        made = catboost.CatBoostClassifier(iterations=8, verbose=False, allow_writing_files=False).fit(ROWS, CLASSES)
        made.save_model(str(path))
    elif kind == "lightgbm":
        made = lightgbm.train({"objective": "regression", "verbose": -1}, lightgbm.Dataset(ROWS, VALUES), 8)
        made.save_model(str(path))
    elif kind == "xgboost classifier":
        made = xgboost.XGBClassifier(n_estimators=8).fit(ROWS, CLASSES)
        made.save_model(str(path))
    else:
        made = xgboost.XGBRegressor(n_estimators=8).fit(ROWS, VALUES)
        made.get_booster().save_model(str(path))  # as xgboost.train does
    return made


@pytest.mark.parametrize(
    ("kind", "suffix", "method", "served_as"),
    [
        ("xgboost classifier", ".ubj", "predict_proba", "classifier"),
        ("xgboost classifier", ".json", "predict", "classifier"),
        ("xgboost regressor", ".ubj", "predict", "regressor"),
        ("lightgbm", ".txt", "predict", "other"),
        ("catboost", ".cbm", "predict_proba", "classifier"),
    ],
)
def test_a_file_answers_as_its_booster(tmp_path: Path, kind: str, suffix: str, method: str, served_as: str) -> None:
    """Published from the file and a CSV sample, as `tableside publish` and an upload do."""
    path, sample, root = tmp_path / f"m{suffix}", tmp_path / "rows.csv", tmp_path / "models"
    made = trained(kind, path)
    ROWS.to_csv(sample, index=False)
    policy = Repository(trusted_libraries=LIBRARIES)
    prepared = sources.prepare(path, sources.Request(sample), policy)
    publish.publish(
        "m", prepared.estimator, prepared.sample, repository=root, quick=True, source=prepared.source,
        trusted_libraries=LIBRARIES,
    )  # fmt: skip
    registry = registry_for(root, TABLESIDE__REPOSITORY__TRUSTED_LIBRARIES=",".join(LIBRARIES))
    registry.reload(1)
    servable = registry.wait_servable("m", None, 60)
    assert servable.contract is not None
    assert servable.runtime is not None
    assert servable.contract.kind == served_as
    data = servable.runtime.prepare(from_rows(ROWS.to_numpy().tolist(), servable.contract.input))
    wanted = np.asarray(getattr(made, method)(ROWS)).reshape(len(ROWS), -1)
    assert np.asarray(servable.runtime.run(method, data)).reshape(len(ROWS), -1).tolist() == wanted.tolist()


@pytest.mark.parametrize("suffix", [".ubj", ".json", ".txt", ".cbm"])
def test_a_file_of_something_else_is_refused(tmp_path: Path, suffix: str) -> None:
    """With the file's name; nothing ends the process."""
    (tmp_path / f"m{suffix}").write_bytes(b"neither a booster nor anything else")
    with pytest.raises(PublishFailed, match=rf"m\{suffix} cannot be read"):
        native_files.read(tmp_path / f"m{suffix}", ROWS)
