"""A contract as OpenAPI: what a cell may be is what the decoder takes."""

from __future__ import annotations

from typing import Any

import jsonschema
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openapi_spec_validator import OpenAPIV31SpecValidator

from tableside.blueprints.docs.openapi import cell_schemas, components, requests
from tableside.blueprints.docs.openapi.document import INVOCATIONS, Described, document
from tableside.contract.schema import Column, Contract, Golden, Input, Output
from tableside.decoding.cells import to_array
from tableside.decoding.rules import Problems, Rules
from tableside.web import errors
from tests.fakes import numbers, sum_contract

SHADE = ("deep", "pale", "ruby")
COLUMNS = [
    Column("a", "FP64", "float64"),
    Column("a", "FP64", "float64", nullable=True, minimum=1.5, maximum=9.25),
    Column("a", "FP32", "float32"),
    Column("a", "INT64", "int64"),
    Column("a", "INT64", "int8", nullable=True),
    Column("a", "INT64", "uint32"),
    Column("a", "BOOL", "bool"),
    Column("a", "BYTES", "object", nullable=True, categories=SHADE, closed=True),
    Column("a", "BYTES", "object", categories=SHADE),
    Column("a", "INT64", "int64", categories=(1, 2, 3), closed=True),
]
CELLS: list[Any] = [
    None, True, False, 0, 1, 3, 127, 128, -129, 2**32 - 1, 2**32, 2**63 - 1, 2**63, -(2**63) - 1, 2.0, 2.5, 1e39, -1e39,
    1e300, "", "deep", "blue", [], {},
]  # fmt: skip


def decodes(column: Column, value: Any) -> bool:
    found = Problems()
    to_array([value], column, found, lambda row: f"[{row}]")
    return not found


@pytest.mark.parametrize("column", COLUMNS, ids=lambda column: f"{column.dtype}{'?' if column.nullable else ''}")
def test_the_schema_of_a_cell_is_what_the_decoder_takes(column: Column) -> None:
    """For every kind of column and cell: valid by the schema if, and only if, the decoder takes it."""
    schema = cell_schemas.cell(column)
    jsonschema.Draft202012Validator.check_schema(schema)
    checked = {repr(value): jsonschema.Draft202012Validator(schema).is_valid(value) for value in CELLS}
    assert checked == {repr(value): decodes(column, value) for value in CELLS}


@given(value=st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | st.booleans())
def test_so_is_every_number(value: Any) -> None:
    """The same for any number and each numeric column."""
    for column in COLUMNS[:6]:
        valid = jsonschema.Draft202012Validator(cell_schemas.bare(column)).is_valid(value)
        assert valid == decodes(column, value), column


def test_what_was_seen_is_said_and_binds_nobody() -> None:
    """A seen range is in the description; open categories are examples; neither is a limit."""
    schema = cell_schemas.cell(COLUMNS[1])
    assert "1.5 to 9.25" in schema["description"]
    assert not schema.keys() & {"minimum", "maximum", "enum"}
    schema = cell_schemas.cell(COLUMNS[8])
    assert schema["examples"] == list(SHADE)
    assert "enum" not in schema
    assert cell_schemas.cell(COLUMNS[7])["enum"] == [*SHADE, None]


def wide() -> Contract:
    """A model of one column of each kind, with names that are no identifiers."""
    odd = ["sepal length (cm)", "class", "a/b~c", "größe", "x y", "1st", "$ref", "", "a\nb", '"quoted"']
    found = tuple(msgspec.structs.replace(c, name=name) for c, name in zip(COLUMNS, odd, strict=True))
    rows = ((1.0, None, 0.5, 7, None, 1, True, None, "deep", 2), (2.0, 3.5, 1.5, 8, -3, 2, False, "pale", "blue", 1))
    outputs = (Output("predict", "BYTES", 1, True), Output("predict_proba", "FP64", 2, False, ("no", "yes")))
    answers = {"predict": (("no",), ("yes",)), "predict_proba": ((0.75, 0.25), (0.1, 0.9))}
    golden = msgspec.structs.replace(sum_contract().golden, rows=rows, answers=answers)
    return msgspec.structs.replace(
        sum_contract(name="odd.names-1"), kind="classifier", input=Input("frame", found), outputs=outputs, golden=golden
    )


def single() -> Contract:
    """A model of one column, without golden rows."""
    return msgspec.structs.replace(sum_contract(numbers("one"), "single"), golden=Golden((), {"predict": ()}))


MODELS = [Described(sum_contract()), Described(wide()), Described(single())]


@pytest.mark.parametrize("rules", [Rules(), Rules(missing="fill", extra="ignore", duplicate="ignore")])
def test_documents_are_openapi_3_1(rules: Rules) -> None:
    """Documents validate against OpenAPI 3.1; operation ids are unique; every reference leads somewhere."""
    text = document([Described(each.contract, rules) for each in MODELS], {INVOCATIONS})
    OpenAPIV31SpecValidator(text).validate()
    ids = [operation["operationId"] for path in text["paths"].values() for operation in path.values()]
    assert len(ids) == len(set(ids)) == 7 + 3 * 6
    for reference in references(text):
        found: Any = text
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]


def references(part: Any) -> list[str]:
    if isinstance(part, dict):
        own = [part["$ref"]] if isinstance(part.get("$ref"), str) else []
        return own + [each for value in part.values() for each in references(value)]
    return [each for value in part for each in references(value)] if isinstance(part, list) else []


def validator(text: dict[str, Any], schema: dict[str, Any]) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator({**schema, "components": text["components"]})


@pytest.mark.parametrize("model", MODELS[:2], ids=lambda model: model.name)
def test_examples_fit_their_own_schemas(model: Described) -> None:
    """Every example of a request and of an answer is valid by the schema beside it."""
    text = document([model], {INVOCATIONS})
    checked = 0
    for path in text["paths"].values():
        for operation in path.values():
            for side in (operation.get("requestBody"), operation["responses"]["200"]):
                content = (side or {}).get("content", {}).get("application/json", {})
                values = [each["value"] for each in content.get("examples", {}).values()]
                for value in values + ([content["example"]] if "example" in content else []):
                    validator(text, content["schema"]).validate(value)
                    checked += 1
    assert checked >= 11


def test_invocations_are_described_where_they_are() -> None:
    """MLflow's route is in the document only if the application has it."""
    assert "/models/sums/invocations" in document(MODELS, {INVOCATIONS})["paths"]
    assert "/models/sums/invocations" not in document(MODELS, {"/v2"})["paths"]


def test_a_version_has_paths_of_its_own() -> None:
    """A document of one version asks for that version by number."""
    paths = document([Described(sum_contract(version=7), versioned=True)])["paths"]
    assert {"/v1/models/sums/versions/7:predict", "/v2/models/sums/versions/7/infer"} <= paths.keys()
    assert "/v2/models/sums" not in paths


def test_a_classifier_s_labels_and_classes_are_named() -> None:
    """`predict` answers one of the classes; `predict_proba` says which column is which class."""
    schemas = document([Described(wide())])["components"]["schemas"]
    answers = schemas["odd.names-1.PredictResponse"]["anyOf"][0]["properties"]["predictions"]
    label, probabilities = answers["items"]["anyOf"]
    assert label == {"title": "predict", "type": "string", "enum": ["no", "yes"]}
    assert "no, yes" in probabilities["description"]
    assert (probabilities["minItems"], probabilities["items"]) == (2, {"type": ["number", "null"]})


def test_policies_show() -> None:
    """Who fills missing columns and ignores unknown ones gets a schema that says so."""
    contract = sum_contract(numbers("a", "b", nullable=True))
    strict, lenient = Rules(), Rules(missing="fill", extra="ignore", duplicate="ignore")
    assert requests.columns(contract, strict)["required"] == ["a", "b"]
    assert "required" not in requests.columns(contract, lenient)
    assert requests.row(contract, strict)["additionalProperties"] is False
    assert "additionalProperties" not in requests.row(contract, lenient)


def test_every_error_status_is_described() -> None:
    """What the error table can answer to a prediction, and nginx, is among the documented responses."""
    asked = {*errors.STATUS.values(), 429, 502} - {401, 499}  # nobody is there to read a 499
    assert asked == set(components.PREDICT_ERRORS)
    fields = {field.name for field in msgspec.structs.fields(components.Error)}
    assert set(errors.body(400, "x", instance="i", errors=[], max_bytes=1)) <= fields


def test_the_largest_float_of_32_bits_is_a_limit() -> None:
    """A float32 column's limits are the type's."""
    assert cell_schemas.bare(COLUMNS[2])["maximum"] == float(np.finfo(np.float32).max)


def test_tags_are_unique_whatever_models_are_named() -> None:
    """The server's own tag is none a model could have; each model has one, with its estimator and version."""
    models = [Described(sum_contract(name=name)) for name in ("server", "the-server", "a.b")]
    text = document(models)
    names = [tag["name"] for tag in text["tags"]]
    assert len(names) == len(set(names)) == 4
    used = {tag for path in text["paths"].values() for operation in path.values() for tag in operation["tags"]}
    assert used == set(names)
    assert text["tags"][0]["description"] == "Sum (estimator), version 1"
