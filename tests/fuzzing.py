"""Schemathesis over a document: what it allows is sent, and what it forbids, to every operation; all checks are on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import schemathesis
from flask import Flask
from hypothesis.internal.conjecture import providers
from hypothesis.internal.constants_ast import Constants
from schemathesis.checks import CheckContext
from schemathesis.config import SchemathesisConfig
from schemathesis.core.transport import Response
from schemathesis.engine import events, from_schema
from schemathesis.generation.case import Case
from schemathesis.hooks import HookContext
from schemathesis.specs.openapi.checks import positive_data_acceptance
from sortedcontainers import SortedSet

SEED = 20
BINARY_HEADER = "Inference-Header-Content-Length"
REFUSED_BY_THE_MODEL = b'"detail":"the estimator of model '
RANGES = {
    f"{sign}INT{bits}": (0 if sign else -(2 ** (bits - 1)), 2 ** (bits if sign else bits - 1) - 1)
    for sign in ("", "U")
    for bits in (8, 16, 32, 64)
}
LARGEST = {"FP16": 65504.0, "FP32": 3.4e38, "FP64": 1.8e308}


def flat(data: list[Any]) -> list[Any]:
    return [cell for part in data for cell in (flat(part) if isinstance(part, list) else [part])]


def holds(datatype: str, cells: list[Any]) -> bool:
    """Whether a tensor of that datatype can hold these cells."""
    numbers = [cell for cell in cells if isinstance(cell, (int, float)) and not isinstance(cell, bool)]
    if datatype in RANGES:
        low, high = RANGES[datatype]
        return all(cell == int(cell) and low <= cell <= high for cell in numbers)
    return all(abs(cell) <= LARGEST.get(datatype, 1.8e308) for cell in numbers)


def agree_on_rows(columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
    rows = min(map(len, columns.values()), default=0)
    return {name: cells[:rows] for name, cells in columns.items()}


def fit_tensors(inputs: list[dict[str, Any]], example: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same cells in tensors that agree: shape with data, data with datatype, one tensor for each column."""
    names = [tensor["name"] for tensor in example]
    if len(inputs) == 1 and len(inputs[0]["shape"]) == 2 and inputs[0]["shape"][1] == len(names) > 1:
        cells = flat(inputs[0]["data"])
        rows = len(cells) // len(names)
        kept = cells[: rows * len(names)]
        datatype = inputs[0]["datatype"] if holds(inputs[0]["datatype"], kept) else "FP64"
        return [{**inputs[0], "shape": [rows, len(names)], "datatype": datatype, "data": kept}]
    given = {tensor["name"]: tensor for tensor in inputs}
    whole = {tensor["name"]: {**tensor, **given.get(tensor["name"], {})} for tensor in example}
    cells = agree_on_rows({name: flat(tensor["data"]) for name, tensor in whole.items()})
    own = {tensor["name"]: tensor["datatype"] for tensor in example}
    return [
        {
            **tensor,
            "shape": [len(cells[name]), *([1] if len(tensor["shape"]) == 2 else [])],
            "datatype": tensor["datatype"] if holds(tensor["datatype"], cells[name]) else own[name],
            "data": [[cell] for cell in cells[name]] if len(tensor["shape"]) == 2 else cells[name],
        }
        for name, tensor in whole.items()
    ]


def tables(body: Any) -> list[Any]:
    """Wherever rows, columns or tensors may be in a body of V1, V2 or MLflow."""
    if not isinstance(body, dict):
        return [body]
    split = body.get("dataframe_split")
    return [
        *(body.get(key) for key in ("instances", "inputs", "dataframe_records")),
        split.get("data") if isinstance(split, dict) else None,
    ]


def exact_beside_gaps(body: Any, row: dict[str, Any]) -> None:
    """Integers within 2^53 in columns that take missing cells."""
    names = list(row["properties"])
    for at, name in enumerate(names):
        if row["properties"][name]["type"] == ["integer", "null"]:
            for spelled in tables(body):
                for holder, key in places(spelled, name, at):
                    if isinstance(holder[key], (int, float)):
                        holder[key] = max(-(2**53), min(2**53, holder[key]))


def places(spelled: Any, name: str, at: int) -> Iterator[tuple[Any, Any]]:
    """Where the cells of a column are, in rows, columns or tensors."""
    if isinstance(spelled, dict):
        spelled = [{"name": name, "data": spelled.get(name, [])}]
    for row in spelled or []:
        if isinstance(row, list):
            yield row, at
        elif not isinstance(row, dict):
            return
        elif row.get("name") == name and "data" in row:
            for place, cell in enumerate(row["data"]):
                yield (cell, 0) if isinstance(cell, list) else (row["data"], place)
        elif name in row:
            yield row, name


def ask_for_outputs_once(case: Case) -> None:
    """The query or the body names the outputs, not both, and class names are asked for where there are some."""
    query, params = case.query or {}, case.body.get("params")
    params = params if isinstance(params, dict) else {}
    if query.pop("classes", False) or params.pop("classes", False):
        query["output"], query["classes"] = "predict_proba", "true"
    if "output" in query:
        params.pop("output", None)
        case.body.pop("signature_name", None)


def fit_split(split: Any, example: dict[str, Any], is_mixed: bool) -> None:
    """Each column once; and rows with cells of several kinds, each where the columns of the body say."""
    if not isinstance(split, dict):
        return
    names = example["columns"]
    if split.get("columns"):
        split["columns"] = list(dict.fromkeys([*map(str, split["columns"]), *names]))
    if is_mixed:
        given = split.get("columns") or names
        rows = [example["data"][at % len(example["data"])] for at in range(len(split["data"]))]
        split["data"] = [[row[names.index(name)] for name in given] for row in rows]


def make_sizes_agree(context: HookContext, case: Case, kwargs: dict[str, Any]) -> None:
    """What a schema cannot say: sizes agree with one another. All else stays as it was generated."""
    if case.meta is None or not case.meta.generation.mode.is_positive or case.media_type != "application/json":
        return
    case.headers.pop(BINARY_HEADER, None)
    model = case.operation.tags[0]
    exact_beside_gaps(case.body, case.operation.schema.raw_schema["components"]["schemas"][f"{model}.Row"])
    if not isinstance(case.body, dict):
        (case.query or {}).pop("classes", None)
        return
    ask_for_outputs_once(case)
    examples = case.operation.definition.raw["requestBody"]["content"]["application/json"]["examples"]
    if "dataframe_split" in examples:
        is_mixed = "prefixItems" in case.operation.schema.raw_schema["components"]["schemas"][f"{model}.Values"]
        fit_split(case.body.get("dataframe_split"), examples["dataframe_split"]["value"]["dataframe_split"], is_mixed)
    if not isinstance(case.body.get("inputs"), (list, dict)):
        return
    if isinstance(case.body["inputs"], dict):
        case.body["inputs"] = agree_on_rows(case.body["inputs"])
    elif case.operation.path.endswith("/infer"):
        content = case.operation.definition.raw["requestBody"]["content"]["application/json"]
        # JSON Schema cannot say that no two outputs may have one name.
        if isinstance(outputs := case.body.get("outputs"), list):
            case.body["outputs"] = list({str(output.get("name")): output for output in outputs}.values())
        example = content["examples"]["one tensor per column"]["value"]["inputs"]
        case.body["inputs"] = fit_tensors(case.body["inputs"], example)


@schemathesis.check
def what_the_schema_allows_is_accepted(ctx: CheckContext, response: Response, case: Case) -> bool | None:
    """But for bodies whose inside no schema describes, as CSV, and for values the estimator itself refuses."""
    if case.media_type != "application/json" and case.method == "POST" or REFUSED_BY_THE_MODEL in response.content:
        return None
    return positive_data_acceptance(ctx, response, case)


@dataclass
class Seen:
    """What a run sent and got."""

    operations: set[str] = field(default_factory=set)
    sent: Counter[str] = field(default_factory=Counter)
    answers: Counter[int] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        phases = ", ".join(f"{count} {phase}" for phase, count in self.sent.items())
        statuses = ", ".join(f"{count} x {status}" for status, count in sorted(self.answers.items()))
        return f"schemathesis sent {self.sent.total()} inputs ({phases}) and got {statuses}"


def run(served: Flask | str, examples: int, document: str = "/openapi.json") -> Seen:
    """Every phase of schemathesis with every check, the same inputs each time, on an application or an address."""
    # Hypothesis mixes in constants of whatever modules other tests have loaded, which differ from run to run.
    none = Constants(integers=SortedSet(), floats=SortedSet(), bytes=SortedSet(), strings=SortedSet())
    schemathesis.hook("before_call")(make_sizes_agree)
    try:
        with patch.object(providers, "_get_local_constants", return_value=none):
            return _run(served, examples, document)
    finally:
        schemathesis.hooks.unregister(make_sizes_agree)


def _run(served: Flask | str, examples: int, document: str) -> Seen:
    config = SchemathesisConfig.from_dict(
        {
            "seed": SEED,
            "generation": {"deterministic": True, "max-examples": examples},
            "checks": {"positive_data_acceptance": {"enabled": False}},
            # Both feed answers back, which hold request ids: no two runs would send the same.
            "phases": {"stateful": {"enabled": False}, "fuzzing": {"extra-data-sources": {"responses": False}}},
            # Nor should a change anywhere in the code change what is sent.
            "analysis": {"constants": {"enabled": False}},
        }
    )
    if isinstance(served, str):
        schema = schemathesis.openapi.from_url(f"{served}{document}", config=config)
    else:
        schema = schemathesis.openapi.from_wsgi(document, served, config=config)
    seen = Seen()
    for event in from_schema(schema).execute():
        if isinstance(event, (events.NonFatalError, events.FatalError)):
            seen.findings.append(f"schemathesis itself: {event}")
        if isinstance(event, events.ScenarioFinished):
            seen.sent[event.phase.value] += len(event.recorder.interactions)
            seen.operations.add(event.recorder.label)
            responses = [each.response for each in event.recorder.interactions.values() if each.response]
            seen.answers.update(response.status_code for response in responses)
            seen.findings += _findings(event.recorder)
    return seen


def _findings(recorder: Any) -> Iterator[str]:
    for key, checks in recorder.checks.items():
        for check in checks:
            if check.failure_info is not None:
                response = recorder.interactions[key].response
                shown = response.content[:400] if response is not None else b""
                found = check.failure_info
                said = f"{found.failure.message[:400]}\n{found.code_sample[:800]}\n{shown!r}"
                yield f"{recorder.label}: {check.name}: {said}"
