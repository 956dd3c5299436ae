"""The OpenAPI document: its schemas accept what the decoder accepts, and its examples are valid."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
from collections.abc import Iterator
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
from tableside.contracts.schema import Column, Contract, Golden, Input, Output
from tableside.decoding.cells import to_array
from tableside.decoding.rules import Problems, Rules
from tableside.web import error_replies
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
def test_the_schema_of_a_cell_accepts_what_the_decoder_accepts(column: Column) -> None:
    """For every kind of column, a cell is valid by the schema if, and only if, the decoder accepts it."""
    schema = cell_schemas.cell(column)
    jsonschema.Draft202012Validator.check_schema(schema)
    checked = {repr(value): jsonschema.Draft202012Validator(schema).is_valid(value) for value in CELLS}
    assert checked == {repr(value): decodes(column, value) for value in CELLS}


@given(value=st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | st.booleans())
def test_the_schema_of_a_number_accepts_what_the_decoder_accepts(value: Any) -> None:
    """For each numeric column, any number is valid by the schema if, and only if, the decoder accepts it."""
    for column in COLUMNS[:6]:
        valid = jsonschema.Draft202012Validator(cell_schemas.bare(column)).is_valid(value)
        assert valid == decodes(column, value), column


def test_ranges_and_open_categories_are_no_limits() -> None:
    """The range seen at publish is in the description, and open categories are examples; neither is a limit."""
    schema = cell_schemas.cell(COLUMNS[1])
    assert "1.5 to 9.25" in schema["description"]
    assert not schema.keys() & {"minimum", "maximum", "enum"}
    schema = cell_schemas.cell(COLUMNS[8])
    assert schema["examples"] == list(SHADE)
    assert "enum" not in schema
    assert cell_schemas.cell(COLUMNS[7])["enum"] == [*SHADE, None]


def wide() -> Contract:
    """A model with one column of each kind, whose names are not identifiers."""
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
    """A model with one column and no golden rows."""
    return msgspec.structs.replace(sum_contract(numbers("one"), "single"), golden=Golden((), {"predict": ()}))


MODELS = [Described(sum_contract()), Described(wide()), Described(single())]


@pytest.mark.parametrize("rules", [Rules(), Rules(missing="fill", extra="ignore", duplicate="ignore")])
def test_documents_are_openapi_3_1(rules: Rules) -> None:
    """Documents are valid OpenAPI 3.1, with unique operation ids, and every reference has a target."""
    text = document([Described(each.contract, rules) for each in MODELS], {INVOCATIONS})
    OpenAPIV31SpecValidator(text).validate()
    ids = [operation["operationId"] for path in text["paths"].values() for operation in path.values()]
    assert len(ids) == len(set(ids)) == 8 + 3 * 6
    for reference in references(text):
        found: Any = text
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]


def schemas_in(part: Any) -> Iterator[dict[str, Any]]:
    """Every object of a document that may be a schema."""
    if isinstance(part, dict):
        yield part
    for each in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        yield from schemas_in(each)


WITH_ID = [dataclasses.replace(each, id_column="user_id") for each in MODELS]


@pytest.mark.parametrize("models", [MODELS, WITH_ID], ids=["plain", "with an id column"])
@pytest.mark.parametrize("rules", [Rules(), Rules(missing="fill", extra="ignore", duplicate="ignore")])
def test_generators_can_read_it(models: list[Described], rules: Rules) -> None:
    """Constants and enumerations are strings or integers, and no schema is a boolean: generators take no others."""
    text = document([dataclasses.replace(each, rules=rules) for each in models], {INVOCATIONS})
    OpenAPIV31SpecValidator(text).validate()
    for schema in schemas_in({"paths": text["paths"], "components": text["components"]}):
        listed = [schema["const"]] if "const" in schema else schema.get("enum", [])
        if isinstance(listed, list):
            kinds = {type(each) for each in listed} - {type(None)}
            assert not listed or kinds in ({str}, {int}), schema
            assert not listed or "type" in schema, schema
        for key in ("items", "prefixItems", "contains", "propertyNames", "not"):
            assert not isinstance(schema.get(key), bool), schema
        if isinstance(properties := schema.get("properties"), dict):
            assert not [each for each in properties.values() if isinstance(each, bool)]
        if schema.get("type") == "array" and not isinstance(schema.get("name"), str):
            assert schema.keys() & {"items", "prefixItems"}, schema


def test_names_are_those_that_programs_can_have() -> None:
    """Operation ids are identifiers, also where names differ in a hyphen only; the package is not our client's."""
    contracts = [msgspec.structs.replace(sum_contract(), name=name) for name in ("a-b", "a_b", "a.b", "odd.names-1")]
    text = document([Described(each) for each in contracts], {INVOCATIONS})
    ids = [operation["operationId"] for path in text["paths"].values() for operation in path.values()]
    assert len(ids) == len(set(ids))
    assert [each for each in ids if not each.isidentifier()] == []
    assert {"predict_a_b", "predict_odd_names_1"} <= set(ids)
    package = re.sub(r"\W", "_", text["info"]["title"].lower())
    assert not importlib.util.find_spec(package)
    assert f"{package}_client" != "tableside_client"


def references(part: Any) -> list[str]:
    if isinstance(part, dict):
        own = [part["$ref"]] if isinstance(part.get("$ref"), str) else []
        return own + [each for value in part.values() for each in references(value)]
    return [each for value in part for each in references(value)] if isinstance(part, list) else []


def validator(text: dict[str, Any], schema: dict[str, Any]) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator({**schema, "components": text["components"]})


@pytest.mark.parametrize("model", MODELS[:2], ids=lambda model: model.name)
def test_examples_fit_their_own_schemas(model: Described) -> None:
    """Every example of a request or response is valid by its schema."""
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


def test_mlflow_s_route_is_described_only_if_it_exists() -> None:
    """MLflow's route is in the document only if the application has its URL rule."""
    assert "/models/sums/invocations" in document(MODELS, {INVOCATIONS})["paths"]
    assert "/models/sums/invocations" not in document(MODELS, {"/v2"})["paths"]


def test_a_version_has_paths_of_its_own() -> None:
    """The paths of a versioned model include the version number."""
    paths = document([Described(sum_contract(version=7), versioned=True)])["paths"]
    assert {"/v1/models/sums/versions/7:predict", "/v2/models/sums/versions/7/infer"} <= paths.keys()
    assert "/v2/models/sums" not in paths


def test_a_classifier_s_labels_and_classes_are_named() -> None:
    """The schema of `predict` lists the classes; that of `predict_proba` has them in the order of the columns."""
    schemas = document([Described(wide())])["components"]["schemas"]
    answers = schemas["odd.names-1.RowsAnswer"]["properties"]["predictions"]
    label, probabilities = answers["items"]["anyOf"]
    assert label == {"title": "odd.names-1.RowsAnswer predict", "type": "string", "enum": ["no", "yes"]}
    assert "no, yes" in probabilities["description"]
    assert (probabilities["minItems"], probabilities["items"]) == (2, {"type": ["number", "null"]})


def test_the_schema_follows_the_rules() -> None:
    """Rules that fill missing columns and ignore unknown ones make the schema accept such tables."""
    contract = sum_contract(numbers("a", "b", nullable=True))
    strict, lenient = Rules(), Rules(missing="fill", extra="ignore", duplicate="ignore")
    assert requests.columns(contract, strict)["required"] == ["a", "b"]
    assert "required" not in requests.columns(contract, lenient)
    assert requests.row(contract, strict)["additionalProperties"] is False
    assert "additionalProperties" not in requests.row(contract, lenient)


@pytest.mark.parametrize(
    ("column", "limits"),
    [
        (Column("a", "FP64", "float64", categories=(1.0, 2.5), closed=True), {"minimum": 1.0, "maximum": 2.5}),
        (Column("a", "BOOL", "bool", categories=(True,), closed=True), {"minimum": 1.0, "maximum": 1.0}),
        (Column("a", "BYTES", "object", nullable=True, categories=("x",), closed=True), {"enum": ["x", None]}),
    ],
)
def test_closed_categories_are_listed_where_generators_can_read_them(column: Column, limits: Any) -> None:
    """Fractions and booleans have their range, and a sentence that lists them; text and integers an enumeration."""
    schema = cell_schemas.cell(column)
    assert {key: schema.get(key) for key in limits} == limits
    assert ("enum" in schema) == ("enum" in limits)
    assert "enum" in limits or "Accepted: " in schema["description"]


def test_every_error_status_is_described() -> None:
    """The documented statuses of a prediction are those of the error table and of nginx."""
    control_plane_only = {409, 412}
    possible = {*error_replies.STATUS.values(), 429, 502} - control_plane_only - {499}  # no client receives a 499
    assert possible == set(components.PREDICT_ERRORS)
    fields = {field.name for field in msgspec.structs.fields(components.Error)}
    assert set(error_replies.body(400, "x", instance="i", errors=[], max_bytes=1)) <= fields


def test_the_largest_float_of_32_bits_is_a_limit() -> None:
    """The limits of a float32 column are those of the type."""
    assert cell_schemas.bare(COLUMNS[2])["maximum"] == float(np.finfo(np.float32).max)


def test_tags_are_unique() -> None:
    """Each model has a tag with its estimator and version, and no model name can be the server's own tag."""
    models = [Described(sum_contract(name=name)) for name in ("server", "the-server", "a.b")]
    text = document(models)
    names = [tag["name"] for tag in text["tags"]]
    assert len(names) == len(set(names)) == 4
    used = {tag for path in text["paths"].values() for operation in path.values() for tag in operation["tags"]}
    assert used == set(names)
    assert text["tags"][0]["description"] == "Sum (estimator), version 1"


@pytest.mark.parametrize(
    ("column", "sentences"),
    [
        (Column("a", "FP64", "float64"), None),
        (Column("a", "FP64", "float64", nullable=True), "null is a missing value."),
        (
            Column("a", "FP64", "float64", minimum=0.5, maximum=2.0),
            "The training data had values from 0.5 to 2; other values are accepted.",
        ),
        (
            Column("a", "INT64", "int64", nullable=True),
            "null is a missing value. If a value of the column is missing, integers must lie within 2^53.",
        ),
        (Column("a", "INT64", "int8", nullable=True), "null is a missing value."),
        (
            Column("a", "BYTES", "object", categories=SHADE),
            "The examples are from the training data; other values are accepted.",
        ),
    ],
)
def test_a_column_is_described_in_sentences(column: Column, sentences: str | None) -> None:
    """The description has what the schema itself cannot express, and is absent if there is nothing."""
    assert cell_schemas.cell(column).get("description") == sentences


def test_a_long_list_of_categories_is_cut() -> None:
    """At most MAX_EXAMPLES open categories are examples; closed ones are limits, so all of them are listed."""
    many = tuple(str(at) for at in range(100))
    column = Column("a", "BYTES", "object", categories=many)
    assert cell_schemas.cell(column)["examples"] == list(many[: cell_schemas.MAX_EXAMPLES])
    assert cell_schemas.cell(msgspec.structs.replace(column, closed=True))["enum"] == list(many)


@pytest.mark.parametrize("status", sorted(components.ERRORS))
def test_an_error_response_is_described(status: int) -> None:
    """Every error has an example that is valid by its schema; those to retry have a Retry-After header."""
    text = document(MODELS[:1])
    (name, description) = components.ERRORS[status]
    response = text["components"]["responses"][name]
    assert response["description"] == description
    assert ("Retry-After" in response["headers"]) == (status in (429, 502, 503, 504, 507))
    for content in response["content"].values():
        validator(text, content["schema"]).validate(content["example"])
        assert content["example"]["status"] == status


@pytest.mark.parametrize(
    ("body", "is_valid"),
    [
        ({"instances": [[1.0, 2.0]]}, True),
        ({"instances": [{"a": 1.0, "b": 2.0}], "signature_name": "transform"}, True),
        ({"inputs": {"a": [1.0], "b": [[2.0]]}}, True),
        ({"instances": [[1.0]]}, False),
        ({"instances": [{"a": 1.0, "b": 2.0}, [1.0, 2.0]]}, False),
        ({"instances": [{"a": 1.0, "b": 2.0, "c": 3.0}]}, False),
        ({"instances": [[1.0, 2.0]], "inputs": {"a": [1.0], "b": [2.0]}}, False),
        ({"instances": [[1.0, 2.0]], "signature_name": "proba"}, False),
        ({"inputs": {"a": [1.0]}}, False),
        ({"instances": []}, False),
        ({}, False),
    ],
)
def test_the_schema_of_a_v1_body_accepts_v1_bodies(body: dict[str, Any], is_valid: bool) -> None:
    """A V1 body has rows or columns, all of the contract's names, and an output of the model."""
    text = document(MODELS[:1])
    assert validator(text, {"$ref": "#/components/schemas/sums.PredictRequest"}).is_valid(body) == is_valid


@pytest.mark.parametrize(
    ("tensors", "is_valid"),
    [
        ([{"name": "x", "shape": [1, 2], "datatype": "FP64", "data": [1.0, 2.0]}], True),
        ([{"name": "x", "shape": [1, 2], "datatype": "INT8", "data": [[1, 2]]}], True),
        ([{"name": n, "shape": [1], "datatype": "FP64", "data": [1.0]} for n in ("b", "a")], True),
        ([{"name": "x", "shape": [1, 3], "datatype": "FP64", "data": [1.0, 2.0, 3.0]}], False),
        ([{"name": "x", "shape": [1, 2], "datatype": "BYTES", "data": ["1", "2"]}], False),
        ([{"name": n, "shape": [1], "datatype": "FP64", "data": [1.0]} for n in ("a", "c")], False),
        ([{"name": "a", "shape": [1], "datatype": "FP64", "data": [1.0]}], False),
        ([], False),
    ],
)
def test_the_schema_of_a_v2_body_accepts_v2_bodies(tensors: list[Any], is_valid: bool) -> None:
    """A V2 body has one numeric matrix, or one tensor for each column, of a datatype that the column takes."""
    text = document(MODELS[:1])
    schema = {"$ref": "#/components/schemas/sums.InferRequest"}
    assert validator(text, schema).is_valid({"inputs": tensors}) == is_valid


def many_columns(count: int, kinds: int = 3) -> Described:
    """A model of so many columns and classes, whose columns accept a few different kinds of cells."""
    found = tuple(
        Column(f"a_rather_long_column_name_{at}", "INT64", "int64", categories=(at % kinds, -1), closed=True)
        for at in range(count)
    )
    classes = tuple(f"class_{at}" for at in range(count))
    outputs = (Output("predict", "BYTES", 1, True), Output("predict_proba", "FP64", count, False, classes))
    row = tuple(at % kinds for at in range(count))
    answers = {"predict": (("class_1",),), "predict_proba": (tuple([1.0 / count] * count),)}
    golden = Golden((row,), answers)
    return Described(
        msgspec.structs.replace(
            sum_contract(name="wide"), kind="classifier", input=Input("frame", found), outputs=outputs, golden=golden
        )
    )


@pytest.mark.parametrize("kinds", [3, 500])
@pytest.mark.parametrize("extra", ["refuse", "ignore"])
def test_the_size_of_a_document_does_not_grow_with_the_columns(kinds: int, extra: Any) -> None:
    """20,000 columns and classes take no more than 60,000 bytes; the document is valid and says where all names are."""
    sizes = []
    for count in (1000, 20_000):
        model = Described(many_columns(count, kinds).contract, Rules(extra=extra))
        text = document([model], {INVOCATIONS})
        OpenAPIV31SpecValidator(text).validate()
        sizes.append(len(msgspec.json.encode(text)))
        assert "GET /v2/models/wide" in text["components"]["schemas"]["wide.Row"]["description"]
    assert sizes[1] < sizes[0] + 200
    assert sizes[1] < 60_000


def test_a_summary_accepts_what_the_model_accepts() -> None:
    """Rows by name and by position, columns, tensors and MLflow's split are valid by the schemas of a wide table."""
    model = many_columns(300)
    text, golden = document([model], {INVOCATIONS}), [list(model.contract.golden.rows[0])]
    names = [column.name for column in model.contract.input.columns]
    named = dict(zip(names, golden[0], strict=True))
    tensors = [{"name": n, "shape": [1], "datatype": "INT64", "data": [cell]} for n, cell in named.items()]
    bodies = {
        "/v1/models/wide:predict": [
            {"instances": golden}, {"instances": [named]}, {"inputs": {name: [named[name]] for name in names}},
        ],
        "/v2/models/wide/infer": [{"inputs": tensors}],
        "/models/wide/invocations": [{"dataframe_split": {"columns": names, "data": golden}}, golden],
    }  # fmt: skip
    for path, values in bodies.items():
        content = text["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        assert content["examples"] == {}
        for value in values:
            validator(text, content["schema"]).validate(value)
    short = {"instances": [golden[0][:-1]]}
    predict = text["paths"]["/v1/models/wide:predict"]["post"]["requestBody"]["content"]["application/json"]
    assert not validator(text, predict["schema"]).is_valid(short)
    assert document([many_columns(200)])["components"]["schemas"]["wide.Row"]["properties"]
