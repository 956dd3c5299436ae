"""What a model takes and gives is in its metadata for programs, in the forms of V2, SageMaker and MLflow."""

from __future__ import annotations

import json
from typing import Any

import pytest
from flask.testing import FlaskClient

from tableside.blueprints.predict import model_info
from tableside.contracts.schema import Column, Contract, Input, Output
from tests.conftest import MakeApp, registry_of
from tests.fakes import numbers, sum_contract

COLUMNS = (
    Column("age", "INT64", "int64", minimum=17, maximum=90),
    Column("city", "BYTES", "object", nullable=True, categories=("Graz", "Wien")),
    Column("plan", "BYTES", "category", categories=("a", "b"), closed=True),
    Column("born", "BYTES", "datetime64[ns]"),
    Column("many", "BYTES", "object", categories=tuple(map(str, range(1001)))),
)


def contract(kind: Any, outputs: tuple[Output, ...], schema: Input | None = None) -> Contract:
    made = sum_contract(schema or Input("frame", COLUMNS))
    return Contract(
        **{name: getattr(made, name) for name in made.__struct_fields__} | {"kind": kind, "outputs": outputs}
    )


PROBA = Output("predict_proba", "FP64", 2, False, classes=("no", "yes"))
LABELS = Output("predict", "BYTES", 1, True)


def test_columns_as_parameters_of_v2() -> None:
    """Numbers and booleans as they are; lists as JSON text, because the protocol allows no others."""
    found = {tensor["name"]: tensor["parameters"] for tensor in model_info.v2_inputs(contract("classifier", (LABELS,)))}
    assert found["age"] == {"dtype": "int64", "nullable": False, "minimum": 17, "maximum": 90}
    assert found["city"] == {"dtype": "object", "nullable": True, "categories": '["Graz","Wien"]', "closed": False}
    assert found["plan"]["closed"] is True
    assert found["born"] == {"dtype": "datetime64[ns]", "nullable": False}
    assert found["many"] == {"dtype": "object", "nullable": False, "category_count": 1001, "closed": False}


def test_a_matrix_lists_its_columns() -> None:
    """It is one tensor, which has the list of all columns."""
    schema = numbers("a", "b", nullable=True, minimum=0.5, maximum=2.0)
    (tensor,) = model_info.v2_inputs(contract("regressor", (LABELS,), schema))
    columns = json.loads(str(tensor["parameters"]["columns"]))
    assert columns[1] == {"name": "b", "dtype": "float64", "nullable": True, "minimum": 0.5, "maximum": 2.0}


@pytest.mark.parametrize(
    ("kind", "output", "meaning"),
    [
        ("classifier", LABELS, "class"),
        ("regressor", Output("predict", "FP64", 1, True), "value"),
        ("clusterer", Output("predict", "INT64", 1, True), "cluster"),
        ("outlier_detector", Output("predict", "INT64", 1, True), "1 for an inlier, -1 for an outlier"),
        ("other", Output("predict_1", "FP64", 1, True, method="predict", part=1), "value"),
        ("classifier", PROBA, "probability of each class"),
        ("classifier", Output("decision_function", "FP64", 1, True), "score: above 0 is the last class"),
        ("classifier", Output("decision_function", "FP64", 3, False), "score of each class or pair of classes"),
        ("outlier_detector", Output("decision_function", "FP64", 1, True), "score: below 0 is an outlier"),
        ("outlier_detector", Output("score_samples", "FP64", 1, True), "score: the lower, the more unusual is the row"),
        ("transformer", Output("transform", "FP64", 4, False), "features"),
    ],
)
def test_every_output_has_a_meaning(kind: Any, output: Output, meaning: str) -> None:
    """In words that a program can compare."""
    assert model_info.of_output(contract(kind, (output,)), output)["meaning"] == meaning


def test_the_order_of_classes() -> None:
    """Of probabilities it is that of the columns; labels and binary scores have the same list."""
    score = Output("decision_function", "FP64", 1, True)
    made = contract("classifier", (LABELS, PROBA, score))
    assert [model_info.of_output(made, output).get("classes") for output in made.outputs] == [["no", "yes"]] * 3
    assert [model_info.of_output(made, output)["default"] for output in made.outputs] == [True, False, False]
    assert model_info.v2_outputs(made)[1]["parameters"] == {
        "meaning": "probability of each class", "default": False, "classes": '["no","yes"]',
    }  # fmt: skip


def test_a_wide_table_is_listed_once() -> None:
    """By its inputs."""
    wide = contract("regressor", (LABELS,), numbers(*(f"x{at}" for at in range(201)), form="frame"))
    assert set(model_info.v2_properties(wide)) == {"outputs"}
    assert len(model_info.v2_inputs(wide)) == 201


def test_several_targets_have_no_common_classes() -> None:
    """Which target a list belongs to, only its own output says."""
    parts = (
        Output("predict", "BYTES", 2, False),
        Output("predict_proba_0", "FP64", 2, False, classes=("a", "b"), method="predict_proba", part=0),
        Output("decision_function_1", "FP64", 1, True, method="decision_function", part=1),
    )
    made = contract("classifier", parts)
    assert ["classes" in model_info.of_output(made, each) for each in parts] == [False, True, False]


def test_mlflows_signature() -> None:
    """Inputs by name and type with `required`, the default output, and the params that are read."""
    found = {
        name: json.loads(text) for name, text in model_info.signature(contract("classifier", (LABELS, PROBA))).items()
    }
    assert found["inputs"][:2] == [
        {"type": "long", "name": "age", "required": True}, {"type": "string", "name": "city", "required": False},
    ]  # fmt: skip
    assert found["inputs"][3]["type"] == "datetime"
    assert found["outputs"] == [{"type": "string"}]
    assert [(each["name"], each["type"]) for each in found["params"]] == [("output", "string"), ("classes", "boolean")]
    matrix = model_info.signature(contract("transformer", (PROBA,), numbers("a", "b", "c")))
    tensor = {"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, 3]}}
    assert json.loads(matrix["inputs"]) == [tensor]
    assert json.loads(matrix["outputs"])[0]["tensor-spec"] == {"dtype": "float64", "shape": [-1, 2]}


def test_the_metadata_of_an_example(client: FlaskClient, trained: Any) -> None:
    """Over HTTP: the estimator's own classes and the ranges of its sample."""
    estimator, frame = trained["iris"]
    found = client.get("/v2/models/iris").get_json()
    outputs = {output["name"]: output["parameters"] for output in found["outputs"]}
    assert json.loads(outputs["predict_proba"]["classes"]) == estimator.classes_.tolist()
    assert json.loads(outputs["predict"]["classes"]) == estimator.classes_.tolist()
    properties = found["properties"]
    assert all(isinstance(text, str) for text in properties.values())
    assert json.loads(properties["outputs"])[1] == {
        "name": "predict_proba", "meaning": "probability of each class", "default": False,
        "classes": estimator.classes_.tolist(),
    }  # fmt: skip
    assert [column["name"] for column in json.loads(properties["columns"])] == list(frame.columns)
    for tensor in found["inputs"]:
        assert tensor["parameters"]["minimum"] == frame[tensor["name"]].min()
        assert tensor["parameters"]["maximum"] == frame[tensor["name"]].max()
        assert all(isinstance(value, (str, int, float, bool)) for value in tensor["parameters"].values())


def test_sagemakers_model_information(client: FlaskClient, make_app: MakeApp) -> None:
    """The list and one model, by the names of SageMaker's contract; what cannot answer is left out."""
    models = client.get("/models").get_json()["models"]
    assert {"modelName": "iris", "modelUrl": "iris/1"} in models
    found = client.get("/models/iris").get_json()
    assert (found["modelName"], found["modelUrl"], found["kind"]) == ("iris", "iris/1", "classifier")
    assert found["outputs"][0]["classes"] == ["setosa", "versicolor", "virginica"]
    assert json.loads(found["signature"]["inputs"])[0]["name"] == found["inputs"][0]["name"] == "sepal length (cm)"
    assert client.get("/models/iris@champion").get_json()["modelName"] == "iris"
    assert client.get("/models/rose").status_code == 404
    app = make_app()
    (servable,) = registry_of(app).catalog
    servable.unload()
    assert app.test_client().get("/models").get_json() == {"models": []}
    assert app.test_client().get("/models/iris").status_code == 503
