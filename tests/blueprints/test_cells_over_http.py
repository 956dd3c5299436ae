"""What becomes of unusual cells, as docs/reference/tables.md states: exact, missing, or refused with their place."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient

from tableside.contracts.schema import Column, Input
from tableside.repository.model_toml import ColumnConfig
from tests.conftest import QUICK, MakeApp, error_of, serve
from tests.fakes import FailingRuntime, RecordingRuntime

COLUMNS = {
    "real": Column("c", "FP64", "float64"),
    "real?": Column("c", "FP64", "float64", nullable=True),
    "single": Column("c", "FP32", "float32"),
    "whole": Column("c", "INT64", "int64"),
    "whole?": Column("c", "INT64", "int64", nullable=True),
    "byte": Column("c", "INT64", "int8"),
    "flag": Column("c", "BOOL", "bool"),
    "text": Column("c", "BYTES", "object"),
    "text?": Column("c", "BYTES", "object", nullable=True),
    "shade": Column("c", "BYTES", "object", categories=("red", "pale"), closed=True),
    "open": Column("c", "BYTES", "object", categories=("red", "pale")),
}
LONG = "x" * 1_000_000
Send = Callable[..., Any]


@pytest.fixture
def served(make_app: MakeApp) -> tuple[FlaskClient, RecordingRuntime]:
    """One model for each kind of column; one runtime serves them all and remembers its inputs."""
    app, runtime = make_app(empty=True, **QUICK), RecordingRuntime()
    serve(app, {_model(kind): (Input("frame", (column,)), runtime) for kind, column in COLUMNS.items()})
    return app.test_client(), runtime


def _model(kind: str) -> str:
    return kind.replace("?", "-nullable")


def body(cells: str) -> str:
    return f'{{"inputs": {{"c": [{cells}]}}}}'


@pytest.mark.parametrize(
    ("kind", "cells", "given"),
    [
        ("real", "9007199254740993", 9007199254740992.0),  # 2^53 + 1: the nearest double
        ("real", "123456789012345678901234567890", 123456789012345678901234567890.0),
        ("real", "-0.0", -0.0),
        ("real", "5e-324", 5e-324),
        ("real", "1e-400", 0.0),
        ("real", "1.7976931348623157e308", 1.7976931348623157e308),
        ("real", "0.1", 0.1),
        ("real?", "null", np.nan),
        ("real?", "NaN", np.nan),
        ("whole?", "NaN", np.nan),
        ("text?", "NaN", np.nan),
        ("single", "0.1", float(np.float32(0.1))),
        ("single", "1e-46", 0.0),
        ("whole", "9007199254740993", 9007199254740993),
        ("whole", "9223372036854775807", 9223372036854775807),
        ("whole", "5.0", 5),
        ("whole", "5e3", 5000),
        ("byte", "-128", -128),
        ("flag", "true", True),
        ("flag", "1", True),
        ("flag", "0.0", False),
        ("text", '""', ""),
        ("text", '"\\u0000"', "\0"),
        ("text", '"e\\u0301"', "e\u0301"),  # not normalized to one character
        ("text", '"\\ud83c\\udf77 \u00fc"', "\U0001f377 \u00fc"),
        ("text", '"2026-11-21"', "2026-11-21"),  # a date is text
        ("text", '"NaN"', "NaN"),
        ("text", f'"{LONG}"', LONG),
        ("text?", "null", np.nan),
        ("shade", '"pale"', "pale"),
        ("open", '"green"', "green"),  # the fitted estimator takes what it does not know
    ],
)
def test_a_cell_is_exact(served: Any, kind: str, cells: str, given: Any) -> None:
    """The estimator receives exactly this value, with its sign and its type."""
    client, runtime = served
    answer = client.post(f"/v1/models/{_model(kind)}:predict", data=body(cells).encode())
    assert answer.status_code == 200, answer.get_data(as_text=True)
    got = runtime.seen[-1]["c"].iloc[0]
    got = got.item() if hasattr(got, "item") else got
    assert (repr(got), type(got)) == (repr(given), type(given))


@pytest.mark.parametrize(
    ("kind", "cells", "message"),
    [
        ("real", "null", "expected a number, got null"),
        ("real", "true", "expected a number, got a boolean"),
        ("real", '"1.5"', "expected a number, got a string"),
        ("real", "{}", "expected a number, got an object"),
        ("real", "1" + "0" * 309, "too large for a number of float64"),
        ("single", "1e39", "too large for a number of float32"),
        ("whole", "5.5", "expected an integer, got a number with a fraction"),
        ("whole", "9223372036854775808", "expected an integer of 64 bits"),
        ("whole", "false", "expected an integer, got a boolean"),
        ("whole?", "null, 9007199254740993", "integers beyond 2^53 are not exact in a column with missing values"),
        ("byte", "128", "expected an integer of -128 to 127"),
        ("flag", "2", "expected true, false, 1 or 0, got an integer"),
        ("flag", '"true"', "expected true, false, 1 or 0, got a string"),
        ("text", "7", "expected a string, got an integer"),
        ("text", "null", "expected a string, got null"),
        ("shade", '"green"', "not a category of this column; expected one of red, pale"),
        ("shade", "0", "expected a string, got an integer"),
    ],
)
def test_a_cell_is_refused_by_name(served: Any, kind: str, cells: str, message: str) -> None:
    """A cell that does not fit answers 400 with its place and what was expected, without the value."""
    client, runtime = served
    content = error_of(client.post(f"/v1/models/{_model(kind)}:predict", data=body(cells).encode()))
    at = cells.count(", ")
    assert content["errors"] == [{"path": f"inputs.c[{at}]", "message": message}]
    assert content["status"] == 400
    assert not runtime.seen


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (body("NaN"), "expected a number, got null"),
        (body("-Infinity"), "inputs.c[0]: too large for a number"),
        (body("1e400"), "Number out of range"),
        (body('"\\ud800"'), "not valid JSON"),
        (body("[" * 100 + "1" + "]" * 100), "nested deeper than 8 levels"),
        (body("[" * 100_000 + "1" + "]" * 100_000), "nested too deeply"),
        (body("01"), "not valid JSON"),
        ("", "the body is empty"),
    ],
)
def test_a_body_is_refused(served: Any, text: str, message: str) -> None:
    """A body that is no JSON, or is nested too deeply, is refused with what is wrong."""
    client, _ = served
    assert message in error_of(client.post("/v1/models/real:predict", data=text.encode()))["error"]


def test_the_last_of_two_equal_keys_counts(served: Any) -> None:
    """RFC 8259 leaves duplicate keys open; as in Python and JavaScript, the last value counts."""
    client, runtime = served
    client.post("/v1/models/real:predict", data=b'{"instances": [{"c": 1, "c": 2}]}')
    assert runtime.seen[-1]["c"].tolist() == [2.0]


TWO = Input("frame", (Column("a", "FP64", "float64", nullable=True), Column("b", "FP64", "float64")))
SPLIT = "/models/two/invocations"


@pytest.fixture
def make_two(make_app: MakeApp) -> Callable[..., tuple[FlaskClient, RecordingRuntime]]:
    """Make an application with one model of two columns, under the given column rules."""

    def make(more: dict[str, str] | None = None, **rules: Any) -> tuple[FlaskClient, RecordingRuntime]:
        app, runtime = make_app(empty=True, **QUICK, **(more or {})), RecordingRuntime()
        serve(app, {"two": (TWO, runtime)}, ColumnConfig(**rules))
        return app.test_client(), runtime

    return make


CSV = {"Content-Type": "text/csv; header=present"}
MISSING = [
    ("/v1/models/two:predict", {"inputs": {"b": [1.0]}}, {}),
    (SPLIT, {"dataframe_split": {"columns": ["b"], "data": [[1.0]]}}, {}),
    ("/v2/models/two/infer", {"inputs": [{"name": "b", "shape": [1], "datatype": "FP64", "data": [1.0]}]}, {}),
    (SPLIT, b"b\n1.0\n", CSV),
]
EXTRA = [
    ("/v1/models/two:predict", {"inputs": {"a": [2.0], "b": [1.0], "z": ["?"]}}, {}),
    ("/v1/models/two:predict", {"instances": [{"a": 2.0, "b": 1.0, "z": "?"}]}, {}),
    (SPLIT, {"dataframe_split": {"columns": ["z", "b", "a"], "data": [["?", 1.0, 2.0]]}}, {}),
    (SPLIT, b"z,a,b\n?,2.0,1.0\n", CSV),
]
TWICE = [
    (SPLIT, {"dataframe_split": {"columns": ["b", "a", "b"], "data": [[1.0, 2.0, 9.0]]}}, {}),
    (SPLIT, b"b,a,b\n1.0,2.0,9.0\n", CSV),
]


def post(client: FlaskClient, path: str, content: Any, headers: dict[str, str]) -> Any:
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    return client.post(path, data=data, headers={"Content-Type": "application/json", **headers})


@pytest.mark.parametrize(
    ("requests", "rule", "message", "expected"),
    [
        (MISSING, {"missing": "fill"}, "a: this column is missing", [[np.nan, 1.0]]),
        (EXTRA, {"extra": "ignore"}, "no such column; expected a, b", [[2.0, 1.0]]),
        (TWICE, {"duplicate": "ignore"}, "given twice", [[2.0, 1.0]]),
    ],
)
def test_columns_follow_the_rules_of_the_model(
    make_two: Any, requests: Any, rule: Any, message: str, expected: Any
) -> None:
    """Missing, extra and repeated columns are refused by default; model.toml can have them filled or ignored."""
    strict, _ = make_two()
    lenient, runtime = make_two(**rule)
    for path, content, headers in requests:
        assert message in error_of(post(strict, path, content, headers))["error"]
        assert post(lenient, path, content, headers).status_code == 200
        np.testing.assert_array_equal(runtime.seen.pop().to_numpy(), expected)


def test_a_column_that_is_not_nullable_is_never_filled(make_two: Any) -> None:
    """`missing = "fill"` fills a column with missing cells, so it applies only to nullable columns."""
    client, _ = make_two(missing="fill")
    answer = post(client, "/v1/models/two:predict", {"inputs": {"a": [1.0]}}, {})
    assert "b: this column is missing, and it does not accept missing values" in error_of(answer)["error"]


def test_values_are_shown_only_where_the_operator_says_so(make_two: Any) -> None:
    """Errors quote a client's values only with `predict.show_values`."""
    for more, shown in (({}, False), ({"predict__show_values": "true"}, True)):
        client, _ = make_two(more)
        text = post(client, "/v1/models/two:predict", {"inputs": {"a": ["secret"], "b": [1.0]}}, {}).get_data(
            as_text=True
        )
        assert ("secret" in text) is shown


def test_every_bad_cell_is_named_at_once(make_two: Any) -> None:
    """The error lists all bad cells of a request up to `predict.max_cell_errors`; more are one for each message."""
    rows = [{"a": "x", "b": None}, {"a": 1.0, "b": 10**400}, {"a": True, "b": 1.0}, {"a": [], "b": {}}]
    text = json.dumps({"instances": rows})
    for most in (6, 5):
        client, _ = make_two({"predict__max_cell_errors": str(most)})
        content = error_of(client.post("/v1/models/two:predict", data=text.encode()))
        assert len(content["errors"]) == most
        assert content["errors"][0] == {"path": "instances[0].a", "message": "expected a number or null, got a string"}
    assert "6 errors, those with one message listed as one" in content["error"]


class Endless(RecordingRuntime):
    """Answers NaN and infinity, which JSON does not have."""

    def run(self, method: str, data: Any) -> Any:
        return np.array([np.nan, np.inf, 1.0, -np.inf, 0.1][: len(data)], dtype=np.float32)


def test_an_answer_that_is_not_finite(make_app: MakeApp) -> None:
    """NaN and infinity are null in JSON, empty in CSV, and counted; with `not_finite = "error"` they are a 500."""
    rows = {"inputs": {"a": [1.0] * 5, "b": [1.0] * 5}}
    for policy in ("null", "error"):
        app = make_app(empty=True, **QUICK, predict__not_finite=policy)
        serve(app, {"two": (TWO, Endless())})
        client = app.test_client()
        answer = post(client, SPLIT, rows, {})
        if policy == "error":
            assert answer.status_code == 500
            assert "not finite" in error_of(answer)["error"]
            continue
        assert answer.get_data() == b'{"predictions":[null,null,1.0,null,0.1]}'
        as_csv = post(client, SPLIT, rows, {"Accept": "text/csv"})
        assert as_csv.get_data() == b'""\n""\n1.0\n""\n0.1\n'
        metrics = client.get("/metrics", environ_overrides={"tableside.plane": "control"}).get_data(as_text=True)
        assert 'tableside_not_finite_total{model="two",version="1"} 6.0' in metrics


def test_a_model_that_refuses_values_is_400(make_app: MakeApp) -> None:
    """A ValueError of the estimator answers 400; its text, which may quote data, is only in the log."""
    app = make_app(empty=True, **QUICK)
    serve(app, {"two": (TWO, FailingRuntime(ValueError("Input contains 4711")))})
    answer = post(app.test_client(), "/v1/models/two:predict", {"inputs": {"a": [1.0], "b": [1.0]}}, {})
    assert "the estimator of model two raised ValueError on these values" in error_of(answer)["error"]
    assert "4711" not in answer.get_data(as_text=True)


@pytest.mark.parametrize(
    ("path", "content", "places"),
    [
        ("v1", {"instances": [{"b": "x", "c": 1}, {"a": "y"}, 5][:2]}, ["[0].c", "[1].b", "[1].a", "[0].b"]),
        ("v1", {"instances": [[1.0], ["x", 1.0], [1.0, None]]}, ["[0]", "[1][0] (a)", "[2][1] (b)"]),
        ("v1", {"inputs": {"a": ["x"], "z": [1]}}, ["inputs.z", "inputs.a[0]", "inputs.b"]),
        (
            "split",
            {"dataframe_split": {"columns": ["b", "a"], "data": [["x", 1.0], [1.0], [None, "y"]]}},
            ["data[1]", "data[2][1] (a)", "data[0][0] (b)", "data[2][0] (b)"],
        ),
        (
            "v2",
            {
                "inputs": [
                    {"name": "a", "shape": [1], "datatype": "BYTES", "data": ["x"]},
                    {"name": "z", "shape": [1], "datatype": "FP64", "data": [1.0]},
                    {"name": "b", "shape": [2], "datatype": "FP64", "data": [1.0]},
                ]
            },
            ["inputs[0].datatype", "inputs[1].name", "inputs[2].data"],
        ),
    ],
)
def test_one_mistake_does_not_hide_another(make_two: Any, path: str, content: Any, places: list[str]) -> None:
    """Missing columns, extra columns and bad cells of one request are all listed in one answer."""
    routes = {"v1": "/v1/models/two:predict", "v2": "/v2/models/two/infer", "split": SPLIT}
    client, _ = make_two()
    found = [error["path"] for error in error_of(post(client, routes[path], content, {}))["errors"]]
    assert len(found) == len(places)
    for place in places:
        assert any(path.endswith(place) for path in found), (place, found)
