"""What a model takes and gives, for programs: in V2's metadata, SageMaker's model information, MLflow's signature.

V2 allows numbers, booleans and text as parameters of a tensor, so that lists are JSON text there. Sources: Open
Inference Protocol, inference_rest.md; docs.aws.amazon.com/sagemaker, "Custom Containers Contract for Multi-Model
Endpoints" (`GET /models`); mlflow.org, "Model Signatures and Input Examples".
"""

from __future__ import annotations

from collections.abc import Mapping

from flask import Blueprint, Response

from tableside.contracts.schema import Column, Contract, Datatype, Output
from tableside.decoding.tensors import NUMPY, inputs, metadata
from tableside.web import response
from tableside.web.extensions import catalog, servable

Facts = dict[str, object]
"""What is known of a column or an output, by name."""
MOST_COLUMNS = 200
"""A table of more columns is listed by its inputs only, and not again as a property."""
MOST_CATEGORIES = 1000
"""A column with more categories has their number only."""
_PREDICT = {
    "classifier": "class", "regressor": "value", "clusterer": "cluster",
    "outlier_detector": "1 for an inlier, -1 for an outlier",
}  # fmt: skip
_MEANINGS = {
    "predict_proba": "probability of each class", "transform": "features",
    "score_samples": "score: the lower, the more unusual is the row",
}  # fmt: skip
_MLFLOW_TYPES: Mapping[Datatype, str] = {
    "FP64": "double", "FP32": "float", "INT64": "long", "BOOL": "boolean", "BYTES": "string",
}  # fmt: skip


def of_column(column: Column) -> Facts:
    """Return what a column accepts: its dtype, whether a cell may be missing, categories, and the sample's range.

    closed: whether other categories are refused. Numbers outside of the range are accepted.
    """
    facts: Facts = {"dtype": column.dtype, "nullable": column.nullable}
    if column.minimum is not None and column.maximum is not None:
        facts |= {"minimum": column.minimum, "maximum": column.maximum}
    if column.categories is not None:
        few = len(column.categories) <= MOST_CATEGORIES
        listed: Facts = {"categories": list(column.categories)} if few else {"category_count": len(column.categories)}
        facts |= {**listed, "closed": column.closed}
    return facts


def of_output(contract: Contract, output: Output) -> Facts:
    """Return what an output is: its meaning, whether requests that name none get it, and the class of each column."""
    facts: Facts = {"meaning": _meaning(contract, output), "default": output is contract.default_output}
    labels = output.classes
    if labels is None and output.part is None and contract.kind == "classifier" and output.flat:
        labels = next((other.classes for other in contract.outputs if other.classes and other.part is None), None)
    return facts if labels is None else {**facts, "classes": list(labels)}


def _meaning(contract: Contract, output: Output) -> str:
    if output.source == "predict":
        return _PREDICT.get(contract.kind, "value")
    if output.source != "decision_function":
        return _MEANINGS[output.source]
    if contract.kind == "outlier_detector":
        return "score: below 0 is an outlier"
    return "score: above 0 is the last class" if output.flat else "score of each class or pair of classes"


def _parameters(facts: Mapping[str, object]) -> dict[str, object]:
    """Return facts as parameters of V2, in which a list is JSON text."""
    return {name: response.to_json(fact).decode() if isinstance(fact, list) else fact for name, fact in facts.items()}


def v2_inputs(contract: Contract) -> list[dict[str, object]]:
    """Return the inputs of the V2 metadata, each with what is known of its columns as `parameters`.

    The one tensor of a model that was trained on an array has the list of its columns.
    """
    columns, tensors = contract.input.columns, inputs(contract.input)
    if contract.input.form == "matrix":
        listed = _parameters({"columns": [{"name": column.name, **of_column(column)} for column in columns]})
        return [{**tensors[0], "parameters": listed}]
    return [
        {**tensor, "parameters": _parameters(of_column(column))}
        for tensor, column in zip(tensors, columns, strict=True)
    ]


def v2_outputs(contract: Contract) -> list[dict[str, object]]:
    """Return the outputs of the V2 metadata, each with its meaning and classes as `parameters`."""
    return [
        {
            **metadata(output.name, output.datatype, output.width),
            "parameters": _parameters(of_output(contract, output)),
        }
        for output in contract.outputs
    ]


def v2_properties(contract: Contract) -> dict[str, str]:
    """Return the same as properties of the model, which are text: clients that are generated from the protocol's
    OpenAPI file keep these, and drop parameters of tensors.
    """
    facts = {"outputs": [{"name": output.name, **of_output(contract, output)} for output in contract.outputs]}
    if len(contract.input.columns) <= MOST_COLUMNS:
        facts["columns"] = [{"name": column.name, **of_column(column)} for column in contract.input.columns]
    return {name: response.to_json(each).decode() for name, each in facts.items()}


def signature(contract: Contract) -> dict[str, str]:
    """Return MLflow's signature of a model: inputs, default output and params, each as JSON text."""
    default = contract.default_output
    if contract.input.form == "matrix":
        datatype = contract.input.columns[0].datatype if contract.input.columns else "FP64"
        taken = [_tensor(datatype, len(contract.input.columns))]
    else:
        taken = [_column(column) for column in contract.input.columns]
    given = _tensor(default.datatype, default.width) if not default.flat else {"type": _MLFLOW_TYPES[default.datatype]}
    params = [
        {"name": "output", "type": "string", "default": default.name, "shape": None},
        {"name": "classes", "type": "boolean", "default": False, "shape": None},
    ]
    spelled = {"inputs": taken, "outputs": [given], "params": params}
    return {name: response.to_json(each).decode() for name, each in spelled.items()}


def _column(column: Column) -> dict[str, object]:
    kind = "datetime" if column.is_date else _MLFLOW_TYPES[column.datatype]
    return {"type": kind, "name": column.name, "required": not column.nullable}


def _tensor(datatype: Datatype, width: int) -> dict[str, object]:
    dtype = "str" if datatype == "BYTES" else NUMPY[datatype]
    return {"type": "tensor", "tensor-spec": {"dtype": dtype, "shape": [-1, width]}}


def sagemaker_models() -> Response:
    """The models that can answer, as SageMaker's contract for multi-model endpoints lists them."""
    return response.json_response({"models": [_named(each.name, each.version) for each in catalog().answering()]})


def sagemaker_model(name: str) -> Response:
    """One model, as SageMaker's contract has it, with MLflow's signature and all that is known of it."""
    contract = servable(name).contract
    assert contract is not None  # a servable that can answer has one
    columns = [{"name": each.name, "datatype": each.datatype, **of_column(each)} for each in contract.input.columns]
    outputs = [
        {"name": each.name, "datatype": each.datatype, "width": each.width, **of_output(contract, each)}
        for each in contract.outputs
    ]
    return response.json_response(
        {
            **_named(contract.name, contract.version),
            "version": str(contract.version),
            "estimator": contract.estimator,
            "kind": contract.kind,
            "signature": signature(contract),
            "inputs": columns,
            "outputs": outputs,
        }
    )


def _named(name: str, version: int) -> dict[str, str]:
    return {"modelName": name, "modelUrl": f"{name}/{version}"}


def mount(blueprint: Blueprint) -> None:
    """Add the routes of SageMaker's model information to the blueprint."""
    blueprint.add_url_rule("/models", view_func=sagemaker_models, endpoint="sagemaker_models")
    blueprint.add_url_rule("/models/<name>", view_func=sagemaker_model, endpoint="sagemaker_model")
