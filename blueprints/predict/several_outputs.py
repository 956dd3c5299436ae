"""Several outputs in one answer of V1 or `/invocations`, and class names beside them.

The query parameter `output` names them, separated by commas; `classes=true` asks for the class names. One output keeps
the shape that V1 and MLflow give it. For several, a row is an object with a member for each output, and a table by
columns has one column for each, as in TF-Serving's REST API (g3doc/api_rest.md, "Row format", "Column format").
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from tableside.contracts.array_type import Array
from tableside.contracts.schema import Cell, Output
from tableside.decoding.output_tensors import rows_json
from tableside.decoding.rules import malformed
from tableside.errors import RequestRejected
from tableside.serving.servable import Servable
from tableside.web.predictions import PredictionResult
from tableside.web.request import RequestContext

OUTPUT, CLASSES = "output", "classes"
_BOOLEANS = {"true": True, "false": False}


class OutputQuery(msgspec.Struct, frozen=True):
    """What a query string asks for. outputs: their names in order; none means what the body asks for."""

    outputs: tuple[str, ...] = ()
    classes: bool = False


NO_QUERY = OutputQuery()


def read_query(context: RequestContext) -> OutputQuery:
    """Read the query string. A parameter without effect would hide a mistake, so it is refused.

    Raises RequestRejected for another parameter, for a name that is given twice and for `classes` with another value
    than `true` or `false`.
    """
    if not context.environ.get("QUERY_STRING"):
        return NO_QUERY
    query = context.query()
    for key in query:
        if key not in (OUTPUT, CLASSES):
            raise RequestRejected(f"unknown query parameter {key[:80]!r}; there are 'output' and 'classes'")
    if query.get(CLASSES, "false") not in _BOOLEANS:
        raise RequestRejected("the query parameter 'classes' must be true or false")
    asked = ",".join(query.getlist(OUTPUT))
    names = split_names(asked.split(","), "the query parameter 'output'") if asked else ()
    return OutputQuery(names, _BOOLEANS[query.get(CLASSES, "false")])


def split_names(names: Iterable[str], place: str) -> tuple[str, ...]:
    """Return the names without spaces around them. Raises RequestRejected for an empty and for a repeated name.

    place: where they stand in the request, for the error.
    """
    found: dict[str, None] = {}
    for name in (name.strip() for name in names):
        if not name:
            raise RequestRejected(f"{place} has an empty name; separate the outputs by one comma each")
        if name in found:
            raise RequestRejected(f"{place} names {name[:80]!r} twice; name each output once")
        found[name] = None
    return tuple(found)


def names_in(value: object, place: str) -> tuple[str, ...]:
    """Return the outputs that a JSON value names: a string, separated by commas, or an array of strings."""
    if value is None or value == "":
        return ()
    if isinstance(value, str):
        return split_names(value.split(","), place)
    if isinstance(value, list) and value and all(isinstance(name, str) for name in value):
        return split_names(value, place)
    raise malformed(place, "expected a string, or an array of strings")


def joined(query: OutputQuery, named: tuple[str, ...], place: str) -> tuple[str, ...]:
    """Return the outputs to answer: those of the query string or of the body.

    place: where the body names its outputs. Raises RequestRejected when both name outputs, and not the same.
    """
    if query.outputs and named and query.outputs != named:
        raise RequestRejected(f"the query parameter 'output' and {place} name different outputs; send one of them")
    return query.outputs or named


def check_classes(servable: Servable, names: Sequence[str]) -> None:
    """Raise RequestRejected unless one of the requested outputs has class names."""
    outputs = servable.outputs(names)
    if any(output.classes for output in outputs):
        return
    assert servable.contract is not None  # `outputs` has read it
    having = ", ".join(output.name for output in servable.contract.outputs if output.classes)
    advice = f"ask for one that has: {having}" if having else "the model has no output with class names"
    raise RequestRejected(
        f"classes=true has no effect on {', '.join(output.name for output in outputs)}, which has no class names; "
        f"{advice}"
    )


def rows(result: PredictionResult) -> list[object] | Array:
    """Return the rows of an answer: of one output as they are, of several as objects by output name."""
    if len(result.outputs) == 1:
        return rows_json(*result.outputs[0])
    names = [output.name for output, _ in result.outputs]
    columns = [list(rows_json(output, array)) for output, array in result.outputs]
    return [dict(zip(names, cells, strict=True)) for cells in zip(*columns, strict=True)]


def columns(result: PredictionResult) -> dict[str, list[object] | Array] | list[object] | Array:
    """Return the columns of an answer: of one output as they are, of several as an object by output name."""
    if len(result.outputs) == 1:
        return rows_json(*result.outputs[0])
    return {output.name: rows_json(output, array) for output, array in result.outputs}


def class_names(result: PredictionResult) -> dict[str, tuple[Cell, ...]]:
    """Return the classes of each output that has them, in the order of its columns."""
    return {output.name: output.classes for output, _ in result.outputs if output.classes}


def column_names(output: Output) -> list[str]:
    """Return a name for each column of an output in a CSV answer: `predict`, `predict_proba:setosa`, `transform:0`."""
    if output.flat:
        return [output.name]
    return [f"{output.name}:{label}" for label in output.classes or range(output.width)]
