"""`/invocations`, as MLflow's scoring server and SageMaker's containers have it: tables in many spellings, rows out.

Sources: mlflow.org, "Deploy MLflow Model as a Local Inference Server" (the JSON keys, CSV with a header, predictions);
docs.aws.amazon.com/sagemaker, "Use Your Own Inference Code with Hosting Services" (a bare array, CSV without a header,
answers by Accept, model names in a header).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from typing import Any

from flask import Blueprint
from werkzeug.http import parse_options_header

from tableside.blueprints.predict.tables import inputs, instances
from tableside.contract.schema import Input
from tableside.contract.table import Table
from tableside.decoding import arrow, csv_tables
from tableside.decoding.cells import WORDS
from tableside.decoding.json_tables import from_columns, from_rows, name_cells, names, require_rows
from tableside.decoding.rules import Problems, Rules, malformed
from tableside.decoding.tensors import rows_json
from tableside.errors import RequestRejected, UnsupportedBody
from tableside.web import response
from tableside.web.dispatch import view
from tableside.web.predictions import PredictionRequest, PredictionResult, admit, predict, run_stage
from tableside.web.request import Body, RequestContext, parse_json
from tableside.web.response import Reply

CHOOSERS = ("X-Tableside-Model", "X-Amzn-SageMaker-Target-Model")
ARROW = "application/vnd.apache.arrow.stream"
PARQUET = ("application/vnd.apache.parquet", "application/x-parquet")
SPELLINGS = ("dataframe_split", "dataframe_records", "instances", "inputs")
ENDPOINTS = {
    "invocations_0": "/invocations",
    "invocations_1": "/models/<name>/invocations",
    "invocations_2": "/models/<name>/invoke",
}
READ = (response.JSON, "text/csv", ARROW, PARQUET[0])


class _Request(PredictionRequest, frozen=True):
    bare: bool = False


Reader = Callable[[bytes, Input, Rules], _Request]


def invocations(context: RequestContext, name: str | None = None) -> Reply:
    """Predict. The model is named by the path, a header, or a setting, or is the only one there is."""
    servable = context.extensions.servable(name if name else _spec(context))
    read = _reader(context.header("CONTENT_TYPE"), context.extensions.settings.server.max_inflated_bytes)
    body, as_csv = context.body(), _wants_csv(context.header("HTTP_ACCEPT"))
    query = _query(context)
    limits = admit(context, servable, "invocations", body.weight)
    decoded = run_stage(
        context, "decode", body.weight, _decode, body, read, query, servable.input, servable.policy.rules
    )
    predicted = predict(context, servable, decoded, limits)
    encode = _encode_csv if as_csv else _encode
    text = run_stage(context, "encode", predicted.size_bytes, encode, decoded, predicted)
    return Reply(text, "text/csv; charset=utf-8" if as_csv else response.JSON)


def _query(context: RequestContext) -> str:
    """The output the address names; anything else there would be ignored, so it is refused."""
    given = context.query()
    for key in given:
        if key != "output":
            raise RequestRejected(f"no such query parameter: {key[:80]!r}; there is output")
    return given.get("output", "")


def _spec(context: RequestContext) -> str:
    serving = context.extensions.catalog()
    for header in CHOOSERS:
        if spec := context.header(f"HTTP_{header.upper().replace('-', '_')}"):
            return spec if spec in serving.models else spec.removesuffix(".tar.gz")
    if spec := context.extensions.settings.predict.default_model:
        return spec
    if len(serving.models) == 1:
        return next(iter(serving.models))
    there = ", ".join(sorted(serving.models)[:20]) or "none"
    raise RequestRejected(f"which model? there is {there}; name one in the header {CHOOSERS[0]}, or in the path")


def _decode(body: Body, read: Reader, output: str, schema: Input, rules: Rules) -> _Request:
    decoded = read(body.content(), schema, rules)
    if output and decoded.outputs and list(decoded.outputs) != [output]:
        raise RequestRejected("the query and params.output name different outputs")
    return _Request(require_rows(decoded.table), (output,) if output else decoded.outputs, bare=decoded.bare)


def _reader(content_type: str, limit_bytes: int) -> Reader:
    kind, options = parse_options_header(content_type)
    kind = kind.lower()
    charset = options.get("charset", "utf-8").lower()
    if charset not in ("utf-8", "utf8", "us-ascii"):
        raise UnsupportedBody(f"charset {charset[:40]!r} is not read here; send UTF-8")
    if kind in ("", response.JSON):
        return lambda body, schema, rules: _from_json(body, schema, rules, limit_bytes)
    if kind == "text/csv":
        return _csv_reader(options.get("header"), limit_bytes)
    if kind == ARROW:
        return lambda body, schema, rules: _Request(arrow.from_arrow(body, schema, rules, limit_bytes))
    if kind in PARQUET:
        return lambda body, schema, rules: _Request(arrow.from_parquet(body, schema, rules, limit_bytes))
    hint = "; curl -d sends this type unless told otherwise with -H" if kind.endswith("form-urlencoded") else ""
    raise UnsupportedBody(f"Content-Type {kind[:80]!r} is not read here; use {', '.join(READ)}{hint}")


def _csv_reader(header: str | None, limit_bytes: int) -> Reader:
    if header not in (None, "present", "absent"):
        raise UnsupportedBody("the header parameter of text/csv is present or absent (RFC 4180)")
    known: csv_tables.Header = None if header is None else "present" if header == "present" else "absent"
    return lambda body, schema, rules: _Request(csv_tables.from_csv(body, schema, rules, known, limit_bytes))


def _from_json(body: bytes, schema: Input, rules: Rules, limit_bytes: int) -> _Request:
    content = parse_json(body, object, limit_bytes)
    if isinstance(content, list):
        rows = content
        if content and len(schema.columns) > 1 and not any(isinstance(row, (list, dict)) for row in content):
            rows = [content]  # one row by itself, as SageMaker's clients send it
        return _Request(from_rows(rows, schema, rules, "body"), bare=True)
    if not isinstance(content, dict):
        raise malformed("body", f"expected an object or an array, got {WORDS.get(type(content), 'null')}")
    given = [key for key in SPELLINGS if key in content]
    if len(given) != 1:
        found = ", ".join(given) or "none"
        raise RequestRejected(f"expected exactly one of {', '.join(SPELLINGS)}; the body has {found}")
    return _Request(_READERS[given[0]](content[given[0]], schema, rules), _outputs(content.get("params")))


def _outputs(params: object) -> tuple[str, ...]:
    """`params` names the output; another parameter would change nothing, so it is refused rather than ignored."""
    if params is None:
        return ()
    if not isinstance(params, dict):
        raise malformed("params", f"expected an object, got {WORDS.get(type(params), 'null')}")
    for key in params:
        if key != "output":
            raise malformed(f"params.{key[:80]}", "no such parameter; there is output")
    output = params.get("output")
    if output is not None and not isinstance(output, str):
        raise malformed("params.output", f"expected a string, got {WORDS.get(type(output), 'null')}")
    return (output,) if output else ()


def _split(content: object, schema: Input, rules: Rules) -> Table:
    """pandas' `to_dict("split")`: columns, index and data."""
    if not isinstance(content, dict):
        raise malformed("dataframe_split", "expected an object of columns and data")
    for key in content:
        if key not in ("columns", "data", "index"):
            raise malformed(f"dataframe_split.{key[:80]}", "expected columns, data and index only")
    rows, label = content.get("data"), "dataframe_split.data"
    if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
        raise malformed(label, "expected an array of rows, each an array")
    columns = content.get("columns")
    numbered = isinstance(columns, list) and all(type(name) is int for name in columns)
    if columns is None or (numbered and columns == list(range(len(schema.columns)))):
        return from_rows(rows, schema, rules, label)
    if not isinstance(columns, list) or not all(isinstance(name, str) for name in columns):
        raise malformed("dataframe_split.columns", f"expected an array of names ({names(schema)})")
    return _by_name(columns, rows, schema, rules)


def _by_name(columns: list[str], rows: list[list[Any]], schema: Input, rules: Rules) -> Table:
    problems = Problems(rules)
    at_of: dict[str, int] = {}
    for at, name in enumerate(columns):
        if name in at_of and rules.duplicate == "refuse":
            problems.add(f"dataframe_split.columns[{at}]", "this column is given twice")
        at_of.setdefault(name, at)
    for at, row in enumerate(rows):
        if len(row) != len(columns):
            problems.add(f"dataframe_split.data[{at}]", f"expected {len(columns)} values, got {len(row)}")

    def path(name: str, row: int) -> str:
        return f"dataframe_split.data[{row}][{at_of[name]}] ({name})"

    if problems:
        width = len(columns)
        whole = {n: [(at, row[i]) for at, row in enumerate(rows) if len(row) == width] for n, i in at_of.items()}
        name_cells(whole, schema, problems, path)
        raise problems.refusal()
    cells = {name: [row[at] for row in rows] for name, at in at_of.items()}
    return from_columns(cells, schema, rules, path)


def _records(content: object, schema: Input, rules: Rules) -> Table:
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        raise malformed("dataframe_records", "expected an array of objects, one a row")
    return from_rows(content, schema, rules, "dataframe_records")


_READERS: Mapping[str, Callable[[object, Input, Rules], Table]] = {
    "dataframe_split": _split, "dataframe_records": _records, "instances": instances, "inputs": inputs
}  # fmt: skip


def _wants_csv(accept: str) -> bool:
    kinds = [part.partition(";")[0].strip().lower() for part in accept.split(",")]
    return "text/csv" in kinds and response.JSON not in kinds


def _encode(decoded: _Request, predicted: PredictionResult) -> bytes:
    rows = rows_json(*predicted.outputs[0])
    return response.to_json(rows if decoded.bare else {"predictions": rows})


def _encode_csv(_asked: _Request, predicted: PredictionResult) -> bytes:
    """One line a row and no header, as SageMaker's containers answer; a number that is not finite is an empty cell."""
    _, array = predicted.outputs[0]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    finite = array.reshape(len(array), -1)
    for row in finite.astype(object) if finite.dtype.kind != "f" else finite:
        writer.writerow(_texts(row))
    return text.getvalue().encode()


def _texts(row: Any) -> list[str]:
    if row.dtype.kind == "O":
        return ["" if cell is None or cell != cell else str(cell) for cell in row.tolist()]
    return ["" if cell != cell or abs(cell) == float("inf") else str(cell) for cell in row]


def mount(blueprint: Blueprint) -> None:
    """Add the routes of MLflow and SageMaker."""
    for endpoint, path in ENDPOINTS.items():
        blueprint.add_url_rule(path, view_func=view(invocations), endpoint=endpoint, methods=["POST"])
