"""`/invocations`, the route of MLflow's scoring server and of SageMaker's containers.

Sources: mlflow.org, "Deploy MLflow Model as a Local Inference Server" (the JSON members, CSV with a header, the
`predictions` member); docs.aws.amazon.com/sagemaker, "Use Your Own Inference Code with Hosting Services" (a bare array,
CSV without a header, CSV answers by Accept, the model's name in a header).
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence

from flask import Blueprint
from werkzeug.http import parse_options_header

from tableside.blueprints.predict import misplaced, several_outputs, tables
from tableside.blueprints.predict.several_outputs import OutputQuery
from tableside.contract.array_type import Array
from tableside.contract.schema import Input
from tableside.contract.table import Table
from tableside.decoding import arrow, csv_tables
from tableside.decoding.cells import WORDS
from tableside.decoding.json_tables import from_rows, require_rows
from tableside.decoding.rules import Rules, malformed
from tableside.errors import RequestRejected, UnsupportedBody
from tableside.serving.servable import Servable
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


Reader = Callable[[bytes, Input, Rules, int], _DecodedRequest]
"""Decodes a body, given how many bytes its table may take, or how much its JSON may count."""


def infer(context: RequestContext, name: str | None = None) -> Reply:
    """Predict. The model is the one in the path, in a header or in the settings, or else the only one that there is."""
    servable = context.extensions.servable(name or _requested_model(context))
    body, reader, query, as_csv = (
        context.body(),
        _choose_reader(context.header("CONTENT_TYPE")),
        several_outputs.read_query(context),
        _accepts_csv(context.header("HTTP_ACCEPT")),
    )
    limits = admit(context, servable, "invocations", body.max_content_bytes)
    # A few bytes of Arrow or Parquet may state any number of cells: such a body is always decoded in a native thread.
    size_bytes = body.limit_bytes if reader in COLUMNAR else body.max_content_bytes
    decoded = run_stage(
        context, "decode", size_bytes, _decode, body, reader, query, servable.input, servable.policy.rules
    )
    if decoded.classes:
        _check_classes(servable, decoded, as_csv)
    predicted = predict(context, servable, decoded, limits)
    encode = _encode_csv if as_csv else _encode
    text = run_stage(context, "encode", predicted.size_bytes, encode, decoded, predicted)
    headers = (_warning(decoded.unused),) if decoded.unused else ()
    return Reply(text, _csv_type(decoded) if as_csv else response.JSON, headers=headers)


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


def _check_classes(servable: Servable, decoded: _DecodedRequest, as_csv: bool) -> None:
    """Raise RequestRejected when the answer has no class names, or no place for them."""
    several_outputs.check_classes(servable, decoded.outputs)
    if decoded.is_array and not as_csv:
        raise RequestRejected(
            "a bare array is answered with a bare array, which has no place for class names; send the rows as "
            "'instances' of an object"
        )


def _accepts_csv(accept: str) -> bool:
    kinds = [part.partition(";")[0].strip().lower() for part in accept.split(",")]
    return "text/csv" in kinds and response.JSON not in kinds


def _choose_reader(content_type: str) -> Reader:
    kind, options = parse_options_header(content_type)
    kind = kind.lower()
    charset = options.get("charset", "utf-8").lower()
    if charset not in ("utf-8", "utf8", "us-ascii"):
        raise UnsupportedBody(f"charset {charset[:40]!r} is not supported; send UTF-8")
    if kind in ("", response.JSON):
        return _from_json
    if kind == "text/csv":
        return _csv_reader(options.get("header"))
    if kind == ARROW:
        return _from_arrow
    if kind in PARQUET:
        return _from_parquet
    hint = ". curl -d sends this type; add -H 'Content-Type: application/json'" if kind.endswith("urlencoded") else ""
    raise UnsupportedBody(f"Content-Type {kind[:80]!r} is not supported; use {', '.join(CONTENT_TYPES)}{hint}")


def _from_arrow(body: bytes, schema: Input, rules: Rules, limit_bytes: int) -> _DecodedRequest:
    return _DecodedRequest(arrow.from_arrow(body, schema, rules, limit_bytes))


def _from_parquet(body: bytes, schema: Input, rules: Rules, limit_bytes: int) -> _DecodedRequest:
    return _DecodedRequest(arrow.from_parquet(body, schema, rules, limit_bytes))


COLUMNAR = (_from_arrow, _from_parquet)


def _csv_reader(header: str | None) -> Reader:
    if header not in (None, "present", "absent"):
        raise UnsupportedBody("the header parameter of text/csv must be 'present' or 'absent' (RFC 4180)")
    known: csv_tables.Header = None if header is None else "present" if header == "present" else "absent"
    return lambda body, schema, rules, limit_bytes: _DecodedRequest(
        csv_tables.from_csv(body, schema, rules, known, limit_bytes)
    )


def _decode(body: Body, reader: Reader, query: OutputQuery, schema: Input, rules: Rules) -> _DecodedRequest:
    limit_bytes = body.json_limit_bytes if reader is _from_json else body.limit_bytes
    decoded = reader(body.content(), schema, rules, limit_bytes)
    outputs = several_outputs.joined(query, tuple(decoded.outputs), "params.output")
    classes = query.classes or decoded.classes
    return _DecodedRequest(
        require_rows(decoded.table, rules), outputs, is_array=decoded.is_array, classes=classes, unused=decoded.unused
    )


def _from_json(body: bytes, schema: Input, rules: Rules, limit_bytes: int) -> _DecodedRequest:
    content = parse_json(body, object, limit_bytes, is_strict=rules.strict_json)
    if isinstance(content, list):
        rows = content
        if content and len(schema.columns) > 1 and not any(isinstance(row, (list, dict)) for row in content):
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


def _csv_type(decoded: _DecodedRequest) -> str:
    return "text/csv; charset=utf-8; header=present" if decoded.classes else "text/csv; charset=utf-8"


def _encode_csv(decoded: _DecodedRequest, predicted: PredictionResult) -> bytes:
    """One line for each row, as SageMaker's containers answer, with the columns of all outputs side by side.

    NaN and infinity are empty cells. With class names, the first line has the names of the columns; else there is none.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if decoded.classes:
        writer.writerow([name for output, _ in predicted.outputs for name in several_outputs.column_names(output)])
    for parts in zip(*(_csv_rows(array) for _, array in predicted.outputs), strict=True):
        writer.writerow([cell for part in parts for cell in _csv_cells(part)])
    return text.getvalue().encode()


def _csv_rows(array: Array) -> Array:
    matrix = array.reshape(len(array), -1)
    return matrix if matrix.dtype.kind == "f" else matrix.astype(object)


def _csv_cells(row: Array) -> list[str]:
    if row.dtype.kind == "O":
        return ["" if cell is None or cell != cell else str(cell) for cell in row.tolist()]
    return ["" if cell != cell or abs(cell) == float("inf") else str(cell) for cell in row]


def mount(blueprint: Blueprint) -> None:
    """Add the routes of MLflow and SageMaker to the blueprint."""
    for endpoint, path in ENDPOINTS.items():
        blueprint.add_url_rule(path, view_func=view(infer), endpoint=endpoint, methods=["POST"])
