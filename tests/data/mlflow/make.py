"""Writes the MLflow model directories beside this file, and the estimators' own answers into `expected.json`.

Run it in an environment with mlflow and the scikit-learn version of requirements/base.txt, as README.md describes.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

import mlflow.sklearn
import numpy as np
import pandas as pd
import sklearn
from mlflow.models import infer_signature
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_diabetes, load_iris
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier

HERE = Path(__file__).parent
ROWS = 25
ENVIRONMENT_FILES = ("conda.yaml", "python_env.yaml", "requirements.txt")
"""Publish does not read these files, and their versions would soon be out of date."""


def iris_frame() -> tuple[pd.DataFrame, Any]:
    """Return the iris data with column names, and class names as the target."""
    data = load_iris(as_frame=True)
    return data.data, np.asarray(data.target_names)[data.target]


def customers() -> tuple[pd.DataFrame, Any]:
    """Return a table of text, integers, booleans and numbers, with missing values in all but the integers."""
    random = np.random.default_rng(7)
    count = 120
    frame = pd.DataFrame(
        {
            "plan": random.choice(["basic", "plus", "pro"], count).astype(object),
            "zip": [f"{number:05d}" for number in random.integers(0, 40, count)],
            "months": random.integers(1, 60, count),
            "visits": random.integers(1, 30, count).astype("int32"),
            "spend": random.gamma(3.0, 20.0, count).round(2),
            "abroad": (random.random(count) < 0.3).astype(object),
        }
    )
    churned = (frame["spend"] + 20 * frame["abroad"].astype(bool) + random.normal(0, 20, count) > 70).map(
        {True: "leaves", False: "stays"}
    )
    frame.loc[::11, "plan"] = None
    frame.loc[::7, "spend"] = np.nan
    frame.loc[::13, "abroad"] = np.nan
    return frame, churned.to_numpy(dtype=object)


def customer_pipeline() -> Any:
    """Return a pipeline that imputes and encodes by column name; `months` and `visits` take no missing value."""
    return make_pipeline(
        make_column_transformer(
            (
                make_pipeline(
                    SimpleImputer(strategy="constant", fill_value="none", missing_values=np.nan),
                    OneHotEncoder(handle_unknown="ignore"),
                ),
                ["plan"],
            ),
            (OneHotEncoder(handle_unknown="ignore"), ["zip"]),
            (OneHotEncoder(handle_unknown="ignore"), ["abroad"]),
            (make_pipeline(SimpleImputer(), StandardScaler()), ["spend"]),
            (StandardScaler(), ["months", "visits"]),
        ),
        LogisticRegression(max_iter=500),
    )


def save(name: str, estimator: Any, data: Any, expected: dict[str, Any], **options: Any) -> None:
    """Write one model directory, and add the estimator's answers for the first ROWS rows to `expected`."""
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    mlflow.sklearn.save_model(estimator, folder, pip_requirements=[f"scikit-learn=={sklearn.__version__}"], **options)
    for file in ENVIRONMENT_FILES:
        (folder / file).unlink()
    rows = data[:ROWS]
    cells = rows.astype(object).to_numpy() if isinstance(rows, pd.DataFrame) else rows
    answers = {
        method: getattr(estimator, method)(rows).tolist()
        for method in ("predict", "predict_proba")
        if hasattr(estimator, method)
    }
    plain = [[None if pd.isna(cell) else cell for cell in row] for row in cells.tolist()]
    columns = list(rows.columns) if isinstance(rows, pd.DataFrame) else None
    expected[name] = {"columns": columns, "rows": plain, "answers": answers}


def save_own_code(expected: dict[str, Any]) -> None:
    """Write the directories of a model with a class of its own, whose module MLflow saves as well."""
    sys.path.insert(0, str(HERE / "trainer"))
    from churn_steps import PerMonth

    people, churned = customers()
    spent = people[["spend", "months"]].fillna(10.0)
    fitted = make_pipeline(PerMonth(), StandardScaler(), LogisticRegression(max_iter=500)).fit(spent, churned)
    options = {
        "input_example": spent.iloc[::12], "signature": infer_signature(spent, churned),
        "code_paths": [str(HERE / "trainer" / "churn_steps.py")],
    }  # fmt: skip
    save("own_code_cloudpickle", fitted, spent, expected, serialization_format="cloudpickle", **options)
    save(
        "own_code_skops", fitted, spent, expected, serialization_format="skops",
        skops_trusted_types=["churn_steps.PerMonth"], **options,
    )  # fmt: skip


def main() -> None:
    """Write all model directories and `expected.json`."""
    expected: dict[str, Any] = {}
    frame, species = iris_frame()
    tree = DecisionTreeClassifier(max_depth=3, random_state=0).fit(frame, species)
    save(
        "iris_skops", tree, frame, expected, input_example=frame.iloc[::30], signature=infer_signature(frame, species),
        serialization_format="skops", skops_trusted_types=["sklearn.tree._tree.Tree"],
    )  # fmt: skip
    people, churned = customers()
    pipeline = customer_pipeline().fit(people, churned)
    save(
        "churn_cloudpickle", pipeline, people, expected, input_example=people.iloc[[0, 7, 13, 20, 22]],
        signature=infer_signature(people, churned), serialization_format="cloudpickle",
    )  # fmt: skip
    array, progress = load_diabetes(return_X_y=True)
    array = array[:, :4]
    save(
        "diabetes_array_pickle", Ridge().fit(array, progress), array, expected, input_example=array[:3],
        signature=infer_signature(array, progress), serialization_format="pickle",
    )  # fmt: skip
    plain = frame.to_numpy()
    save(
        "iris_no_example", LogisticRegression(max_iter=500).fit(plain, species), plain, expected,
        signature=infer_signature(plain, species), serialization_format="skops",
    )  # fmt: skip
    house = pd.DataFrame({"area": [50.0, 70.5, 90.0, 120.0], "rooms": [2, 3, 4, 5], "age": [3.0, np.nan, 10.0, 30.0]})
    price = np.array([100.0, 140.0, 190.0, 250.0])
    fitted = make_pipeline(SimpleImputer(), LinearRegression()).fit(house, price)
    save(
        "house_one_row", fitted, house, expected, input_example={"area": 60, "rooms": 2, "age": 5},
        signature=infer_signature(house, price), serialization_format="skops", skops_trusted_types=["numpy.dtype"],
    )  # fmt: skip
    save_own_code(expected)
    text = json.dumps({"scikit-learn": sklearn.__version__, "models": expected}, indent=1)
    (HERE / "expected.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
