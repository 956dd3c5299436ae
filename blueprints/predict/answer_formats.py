"""Answers of V1 and `/invocations` other than JSON: CSV, JSON lines and npy, by the Accept header.

One output is one row, line or array, as its protocol has it. NaN and infinity are an empty cell in CSV, null in JSON
lines, and themselves in npy.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence

import numpy as np

from tableside.blueprints.predict import several_outputs
from tableside.contracts.array_type import Array
from tableside.contracts.schema import Output
from tableside.errors import AnswerTooLarge, RequestRejected
from tableside.web import response
from tableside.web.accept import Choice
from tableside.web.predictions import PredictionResult, run_stage
from tableside.web.request import RequestContext
from tableside.web.response import Reply
from tableside.web.table_types import CSV, JSON_LINES, NPY

_SPECIAL = re.compile(r'[",\r\n]')
OFFERED = (response.JSON, CSV, *JSON_LINES, NPY)
"""The media types of answers, the preferred one first."""


def check(choice: Choice, outputs: Sequence[Output], has_classes: bool) -> None:
    """Raise RequestRejected, before anything is predicted, for an answer that the format cannot hold.

    outputs: all that the answer will have. has_classes: whether the class names are asked for.
    """
    if has_classes and choice.kind == CSV and choice.header is False:
        raise RequestRejected("class names are the header line of CSV, and Accept says header=absent; send one of them")
    if has_classes and choice.kind in (*JSON_LINES, NPY):
        raise RequestRejected(
            f"{choice.kind} has one row after the other and no place for class names; accept application/json, or "
            "text/csv, whose header line has them"
        )
    if choice.kind == NPY and len(outputs) > 1:
        raise RequestRejected(f"{NPY} holds one array; ask for one output, send no ids, or accept application/json")


def reply(
    context: RequestContext,
    choice: Choice,
    predicted: PredictionResult,
    has_classes: bool,
    headers: tuple[tuple[str, str], ...] = (),
) -> Reply:
    """Return the answer in a format other than JSON.

    Raises AnswerTooLarge, and RequestRejected for text that npy cannot hold.
    """
    has_header = has_classes or choice.header is True
    limit_bytes = context.extensions.settings.server.max_answer_bytes
    body = run_stage(context, "encode", predicted.size_bytes, _encode, choice.kind, predicted, has_header, limit_bytes)
    return Reply(body, _content_type(choice, has_header), headers=headers)


def _content_type(choice: Choice, has_header: bool) -> str:
    """CSV has a charset only where the client asked for one: SageMaker's clients compare the whole header."""
    if choice.kind != CSV:
        return choice.kind
    return CSV + ("; charset=utf-8" if choice.charset else "") + ("; header=present" if has_header else "")


def _encode(kind: str, predicted: PredictionResult, has_header: bool, limit_bytes: int) -> bytes:
    if kind == CSV:
        return _csv(predicted, has_header)
    if kind == NPY:
        return _npy(predicted.outputs[0][1], limit_bytes)
    return b"".join(response.to_json(row) + b"\n" for row in several_outputs.rows(predicted))


def _csv(predicted: PredictionResult, has_header: bool) -> bytes:
    """One line for each row, as SageMaker's containers answer, with the columns of all outputs side by side.

    has_header: whether the first line has the names of the columns.
    """
    lines: list[str] = []
    if has_header:
        names = [name for output, _ in predicted.outputs for name in several_outputs.column_names(output)]
        lines.append(_csv_line(names))
    for parts in zip(*(_csv_rows(array) for _, array in predicted.outputs), strict=True):
        lines.append(_csv_line([cell for part in parts for cell in _csv_cells(part)]))
    return "".join(lines).encode()


def _csv_line(cells: Sequence[str]) -> str:
    """Return a record of RFC 4180. Python's csv module leaves a lone CR without quotes, and then cannot read it."""
    if cells == [""]:
        return '""\n'  # an empty line would be no record
    return ",".join([_quoted(cell) if _SPECIAL.search(cell) else cell for cell in cells]) + "\n"


def _quoted(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"'


def _csv_rows(array: Array) -> Array:
    matrix = array.reshape(len(array), -1)
    return matrix if matrix.dtype.kind == "f" else matrix.astype(object)


def _csv_cells(row: Array) -> list[str]:
    if row.dtype.kind == "O":
        return ["" if cell is None or cell != cell else str(cell) for cell in row.tolist()]
    return ["" if cell != cell or abs(cell) == float("inf") else str(cell) for cell in row]


def _npy(array: Array, limit_bytes: int) -> bytes:
    """One array as `numpy.save` writes it, without pickle."""
    if array.dtype.kind == "O":
        array = _as_text(array, limit_bytes)
    file = io.BytesIO()
    np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)
    return file.getvalue()


def _as_text(array: Array, limit_bytes: int) -> Array:
    """Return objects as an array of text, each of the width of the longest.

    Raises RequestRejected if one is no text, or ends with NUL, which such an array does not keep.
    """
    cells = array.reshape(-1).tolist()
    if not all(isinstance(cell, str) and not cell.endswith("\0") for cell in cells):
        raise RequestRejected(f"{NPY} cannot hold every cell of this answer; accept application/json")
    size_bytes = 4 * len(cells) * max(map(len, cells), default=0)
    if size_bytes > limit_bytes:
        raise AnswerTooLarge(size_bytes, limit_bytes)
    return array.astype(str)
