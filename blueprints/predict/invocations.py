"""`/invocations`, the route of MLflow's scoring server and of SageMaker's containers.

Sources: mlflow.org, "Deploy MLflow Model as a Local Inference Server" (the JSON members, CSV with a header, the
`predictions` member); docs.aws.amazon.com/sagemaker, "Use Your Own Inference Code with Hosting Services" (a bare array,
CSV without a header, CSV answers by Accept, the model's name in a header).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping

from flask import Blueprint
from werkzeug.http import parse_options_header

from tableside.blueprints.predict import tables
from tableside.contract.array_type import Array
from tableside.contract.schema import Input
from tableside.contract.table import Table
from tableside.decoding import arrow, csv_tables
from tableside.decoding.cells import WORDS
from tableside.decoding.json_tables import from_rows, require_rows
from tableside.decoding.rules import Rules, malformed
from tableside.decoding.tensors import rows_json
from tableside.errors import RequestRejected, UnsupportedBody
from tableside.web import response
from tableside.web.dispatch import view
from tableside.web.predictions import PredictionRequest, PredictionResult, admit, predict, run_stage
from tableside.web.request import Body, RequestContext, parse_json
from tableside.web.response import Reply

MODEL_HEADERS = ("X-Tableside-Model", "X-Amzn-SageMaker-Target-Model")
ARROW = "application/vnd.apache.arrow.stream"
PARQUET = ("application/vnd.apache.parquet", "application/x-parquet")
CONTENT_TYPES = (response.JSON, "text/csv", ARROW, PARQUET[0])
ENDPOINTS = {
    "invocations_0": "/invocations",
    "invocations_1": "/models/<name>/invocations",
    "invocations_2": "/models/<name>/invoke",
}
TABLES: Mapping[str, Callable[[object, Input, Rules], Table]] = {
    "dataframe_split": tables.dataframe_split, "dataframe_records": tables.dataframe_records,
    "instances": tables.instances, "inputs": tables.inputs,
}  # fmt: skip
"""The members that may hold the table, each with the function that reads it."""


class _DecodedRequest(PredictionRequest, frozen=True):
    """is_array: the body was a bare array, and so is the answer."""

    is_array: bool = False


Reader = Callable[[bytes, Input, Rules], _DecodedRequest]


def infer(context: RequestContext, name: str | None = None) -> Reply:
    """Predict. The model is the one in the path, in a header or in the settings, or else the only one that there is."""
    servable = context.extensions.servable(name or _requested_model(context))
    reader = _choose_reader(context.header("CONTENT_TYPE"), context.extensions.settings.server.max_inflated_bytes)
    body, output, as_csv = context.body(), _requested_output(context), _accepts_csv(context.header("HTTP_ACCEPT"))
    size_bytes = body.max_content_bytes
    limits = admit(context, servable, "invocations", size_bytes)
    decoded = run_stage(
        context, "decode", size_bytes, _decode, body, reader, output, servable.input, servable.policy.rules
    )
    predicted = predict(context, servable, decoded, limits)
    encode = _encode_csv if as_csv else _encode
    text = run_stage(context, "encode", predicted.size_bytes, encode, decoded, predicted)
    return Reply(text, "text/csv; charset=utf-8" if as_csv else response.JSON)


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


def _requested_output(context: RequestContext) -> str:
    """The output that the query string names. A parameter without effect would hide a mistake, so it is an error."""
    query = context.query()
    for key in query:
        if key != "output":
            raise RequestRejected(f"unknown query parameter {key[:80]!r}; the only one is 'output'")
    return query.get("output", "")


def _accepts_csv(accept: str) -> bool:
    kinds = [part.partition(";")[0].strip().lower() for part in accept.split(",")]
    return "text/csv" in kinds and response.JSON not in kinds


def _choose_reader(content_type: str, limit_bytes: int) -> Reader:
    kind, options = parse_options_header(content_type)
    kind = kind.lower()
    charset = options.get("charset", "utf-8").lower()
    if charset not in ("utf-8", "utf8", "us-ascii"):
        raise UnsupportedBody(f"charset {charset[:40]!r} is not supported; send UTF-8")
    if kind in ("", response.JSON):
        return lambda body, schema, rules: _from_json(body, schema, rules, limit_bytes)
    if kind == "text/csv":
        return _csv_reader(options.get("header"), limit_bytes)
    if kind == ARROW:
        return lambda body, schema, rules: _DecodedRequest(arrow.from_arrow(body, schema, rules, limit_bytes))
    if kind in PARQUET:
        return lambda body, schema, rules: _DecodedRequest(arrow.from_parquet(body, schema, rules, limit_bytes))
    hint = ". curl -d sends this type; add -H 'Content-Type: application/json'" if kind.endswith("urlencoded") else ""
    raise UnsupportedBody(f"Content-Type {kind[:80]!r} is not supported; use {', '.join(CONTENT_TYPES)}{hint}")


def _csv_reader(header: str | None, limit_bytes: int) -> Reader:
    if header not in (None, "present", "absent"):
        raise UnsupportedBody("the header parameter of text/csv must be 'present' or 'absent' (RFC 4180)")
    known: csv_tables.Header = None if header is None else "present" if header == "present" else "absent"
    return lambda body, schema, rules: _DecodedRequest(csv_tables.from_csv(body, schema, rules, known, limit_bytes))


def _decode(body: Body, reader: Reader, output: str, schema: Input, rules: Rules) -> _DecodedRequest:
    decoded = reader(body.content(), schema, rules)
    if output and decoded.outputs and list(decoded.outputs) != [output]:
        raise RequestRejected("the query parameter 'output' and params.output name different outputs; send one of them")
    outputs = (output,) if output else decoded.outputs
    return _DecodedRequest(require_rows(decoded.table), outputs, is_array=decoded.is_array)


def _from_json(body: bytes, schema: Input, rules: Rules, limit_bytes: int) -> _DecodedRequest:
    content = parse_json(body, object, limit_bytes)
    if isinstance(content, list):
        rows = content
        if content and len(schema.columns) > 1 and not any(isinstance(row, (list, dict)) for row in content):
            rows = [content]  # SageMaker's clients send one row as a flat array
        return _DecodedRequest(from_rows(rows, schema, rules, "body"), is_array=True)
    if not isinstance(content, dict):
        raise malformed("body", f"expected an object or an array, got {WORDS.get(type(content), 'null')}")
    members = [key for key in TABLES if key in content]
    if len(members) != 1:
        found = ", ".join(members) or "none"
        raise RequestRejected(f"expected exactly one of {', '.join(TABLES)}; the body has {found}")
    table = TABLES[members[0]](content[members[0]], schema, rules)
    return _DecodedRequest(table, _outputs(content.get("params")))


def _outputs(params: object) -> tuple[str, ...]:
    """The output that `params` names. A parameter without effect would hide a mistake, so it is an error."""
    if params is None:
        return ()
    if not isinstance(params, dict):
        raise malformed("params", f"expected an object, got {WORDS.get(type(params), 'null')}")
    for key in params:
        if key != "output":
            raise malformed(f"params.{key[:80]}", "unknown parameter; the only one is 'output'")
    output = params.get("output")
    if output is not None and not isinstance(output, str):
        raise malformed("params.output", f"expected a string, got {WORDS.get(type(output), 'null')}")
    return (output,) if output else ()


def _encode(decoded: _DecodedRequest, predicted: PredictionResult) -> bytes:
    rows = rows_json(*predicted.outputs[0])
    return response.to_json(rows if decoded.is_array else {"predictions": rows})


def _encode_csv(_decoded: _DecodedRequest, predicted: PredictionResult) -> bytes:
    """One line for each row and no header, as SageMaker's containers answer. NaN and infinity are empty cells."""
    _, array = predicted.outputs[0]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    matrix = array.reshape(len(array), -1)
    for row in matrix if matrix.dtype.kind == "f" else matrix.astype(object):
        writer.writerow(_csv_cells(row))
    return text.getvalue().encode()


def _csv_cells(row: Array) -> list[str]:
    if row.dtype.kind == "O":
        return ["" if cell is None or cell != cell else str(cell) for cell in row.tolist()]
    return ["" if cell != cell or abs(cell) == float("inf") else str(cell) for cell in row]


def mount(blueprint: Blueprint) -> None:
    """Add the routes of MLflow and SageMaker to the blueprint."""
    for endpoint, path in ENDPOINTS.items():
        blueprint.add_url_rule(path, view_func=view(infer), endpoint=endpoint, methods=["POST"])
