"""`/invocations`, the route of MLflow's scoring server and of SageMaker's containers.

Sources: mlflow.org, "Deploy MLflow Model as a Local Inference Server" (the JSON members, CSV with a header, the
`predictions` member); docs.aws.amazon.com/sagemaker, "Use Your Own Inference Code with Hosting Services" (a bare array,
CSV without a header, CSV answers by Accept, the model's name in a header).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from flask import Blueprint

from tableside.blueprints.predict import answer_formats, body_formats, misplaced, several_outputs, tables
from tableside.blueprints.predict.body_formats import BodyFormat
from tableside.blueprints.predict.several_outputs import OutputQuery
from tableside.contracts.id_column import model_of
from tableside.contracts.schema import Input
from tableside.contracts.table import Table
from tableside.decoding.cells import WORDS
from tableside.decoding.json_tables import from_rows, require_rows
from tableside.decoding.rules import Rules, malformed
from tableside.errors import RequestRejected
from tableside.serving.servable import Servable
from tableside.web import accept, response
from tableside.web.accept import Choice
from tableside.web.dispatch import view
from tableside.web.predictions import PredictionRequest, PredictionResult, admit, answered, predict, run_stage
from tableside.web.request import Body, RequestContext, parse_json
from tableside.web.response import Reply

MODEL_HEADERS = ("X-Tableside-Model", "X-Amzn-SageMaker-Target-Model")
ENDPOINTS = {
    "invocations_0": "/invocations",
    "invocations_1": "/models/<name>/invocations",
    "invocations_2": "/models/<name>/invoke",
}
_NO_NAME = re.compile(r"[^A-Za-z0-9_.-]")
_MAX_NAME, _MAX_NAMES = 40, 5
TABLES: Mapping[str, Callable[[object, Input, Rules], Table]] = {
    "dataframe_split": tables.dataframe_split, "dataframe_records": tables.dataframe_records,
    "instances": tables.instances, "inputs": tables.inputs,
}  # fmt: skip
"""The members that may hold the table, each with the function that reads it."""


class _DecodedRequest(PredictionRequest, frozen=True):
    """is_array: the body was a bare array, and so is the answer. classes: the answer has the class names.

    unused: the names in `params` for which the model has no use.
    """

    is_array: bool = False
    classes: bool = False
    unused: tuple[str, ...] = ()


def infer(context: RequestContext, name: str | None = None) -> Reply:
    """Predict. The model is the one in the path, in a header or in the settings, or else the only one that there is."""
    context.trace.protocol = "invocations"
    servable = context.servable(name or _requested_model(context))
    body, body_format, query, choice = (
        context.body(),
        body_formats.choose(context.header("CONTENT_TYPE"), context.header("HTTP_USER_AGENT")),
        several_outputs.read_query(context),
        accept.choose(context.header("HTTP_ACCEPT"), answer_formats.OFFERED),
    )
    limits = admit(context, servable, "invocations", body.max_content_bytes)
    # A few bytes of Arrow or Parquet may state any number of cells: such a body is always decoded in a native thread.
    size_bytes = body.limit_bytes if body_format.is_columnar else body.max_content_bytes
    decoded = run_stage(
        context, "decode", size_bytes, _decode, body, body_format, query, servable.input, servable.policy.rules
    )
    if decoded.classes or choice is not accept.DEFAULT:
        _check_answer(servable, decoded, choice)
    predicted = predict(context, servable, decoded, limits)
    headers = (_warning(decoded.unused),) if decoded.unused else ()
    if choice.kind == response.JSON:
        return Reply(run_stage(context, "encode", predicted.size_bytes, _encode, decoded, predicted), headers=headers)
    return answer_formats.reply(context, choice, predicted, decoded.classes, headers)


def _requested_model(context: RequestContext) -> str:
    models = context.extensions.catalog().models
    for header in MODEL_HEADERS:
        if spec := context.header(f"HTTP_{header.upper().replace('-', '_')}"):
            return spec if spec in models else spec.removesuffix(".tar.gz")  # SageMaker sends the archive's name
    if spec := context.extensions.settings.predict.default_model:
        return spec
    if len(models) == 1:
        return next(iter(models))
    known = ", ".join(sorted(models)[:20]) or "none"
    raise RequestRejected(
        f"the request does not name a model; there is {known}. Name one in the path (/models/NAME/invocations) or in "
        f"the header {MODEL_HEADERS[0]}"
    )


def _check_answer(servable: Servable, decoded: _DecodedRequest, choice: Choice) -> None:
    """Raise RequestRejected when the answer has no class names, or no place for them or for the outputs."""
    if decoded.classes:
        several_outputs.check_classes(servable, decoded.outputs)
    if decoded.classes and decoded.is_array and choice.kind == response.JSON:
        raise RequestRejected(
            "a bare array is answered with a bare array, which has no place for class names; send the rows as "
            "'instances' of an object"
        )
    answer_formats.check(choice, answered(servable, decoded), decoded.classes)


def _decode(body: Body, body_format: BodyFormat, query: OutputQuery, schema: Input, rules: Rules) -> _DecodedRequest:
    limit_bytes = body.json_limit_bytes if body_format.is_json else body.limit_bytes
    if body_format.read is None:
        decoded = _from_json(body.content(), schema, rules, limit_bytes)
    else:
        decoded = _DecodedRequest(body_format.read(body.content(), schema, rules, limit_bytes))
    outputs = several_outputs.joined(query, tuple(decoded.outputs), "params.output")
    classes = query.classes or decoded.classes
    return _DecodedRequest(
        require_rows(decoded.table, rules), outputs, is_array=decoded.is_array, classes=classes, unused=decoded.unused
    )


def _from_json(body: bytes, schema: Input, rules: Rules, limit_bytes: int) -> _DecodedRequest:
    content = parse_json(body, object, limit_bytes, is_strict=rules.strict_json)
    if isinstance(content, list):
        rows = content
        if content and len(model_of(schema).columns) > 1 and not any(isinstance(row, (list, dict)) for row in content):
            rows = [content]  # SageMaker's clients send one row as a flat array
        return _DecodedRequest(from_rows(rows, schema, rules, "body"), is_array=True)
    if not isinstance(content, dict):
        raise malformed("body", f"expected an object or an array, got {WORDS.get(type(content), 'null')}")
    misplaced.refuse(content, misplaced.INVOCATIONS_PLACE, names=(*misplaced.NAMES, "signature_name", "parameters"))
    members = [key for key in TABLES if key in content]
    if len(members) != 1:
        found = ", ".join(members) or "none"
        raise RequestRejected(f"expected exactly one of {', '.join(TABLES)}; the body has {found}")
    table = TABLES[members[0]](content[members[0]], schema, rules)
    asked = _params(content.get("params"))
    return _DecodedRequest(table, asked.outputs, classes=asked.classes, unused=_unused(content.get("params")))


def _params(params: object) -> OutputQuery:
    """What `params` asks for. Parameters for which the model has no use are ignored, as MLflow does."""
    if params is None:
        return several_outputs.NO_QUERY
    if not isinstance(params, dict):
        raise malformed("params", f"expected an object, got {WORDS.get(type(params), 'null')}")
    misplaced.refuse(params, misplaced.INVOCATIONS_PLACE, "params.", ("outputs", "predict_method"))
    classes = params.get(several_outputs.CLASSES, False)
    if not isinstance(classes, bool):
        raise malformed("params.classes", f"expected true or false, got {WORDS.get(type(classes), 'null')}")
    return OutputQuery(several_outputs.names_in(params.get(several_outputs.OUTPUT), "params.output"), classes)


def _unused(params: object) -> tuple[str, ...]:
    known = (several_outputs.OUTPUT, several_outputs.CLASSES)
    return tuple(key for key in params if key not in known) if isinstance(params, dict) else ()


def _warning(names: Sequence[str]) -> tuple[str, str]:
    """A Warning header (RFC 7234, section 5.5, code 299) that names parameters without effect, some of them."""
    shown = ", ".join(_NO_NAME.sub("?", name[:_MAX_NAME]) for name in names[:_MAX_NAMES])
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return "Warning", f'299 - "params have no effect on this model: {shown}{more}"'


def _encode(decoded: _DecodedRequest, predicted: PredictionResult) -> bytes:
    rows = several_outputs.rows(predicted)
    if decoded.is_array:
        return response.to_json(rows)
    content: dict[str, object] = {"predictions": rows}
    if decoded.classes:
        content["classes"] = several_outputs.class_names(predicted)
    return response.to_json(content)


def mount(blueprint: Blueprint) -> None:
    """Add the routes of MLflow and SageMaker to the blueprint."""
    for endpoint, path in ENDPOINTS.items():
        blueprint.add_url_rule(path, view_func=view(infer), endpoint=endpoint, methods=["POST"])
