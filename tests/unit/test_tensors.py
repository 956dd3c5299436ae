"""V2 tensors to tables, and outputs to V2 tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tableside.contracts.schema import Column, Input, Output
from tableside.decoding.output_tensors import rows_json, to_tensor
from tableside.decoding.rules import Rules
from tableside.decoding.tensors import Tensor, flatten, from_tensors, inputs, one_column
from tableside.errors import RequestRejected
from tests.fakes import numbers

AB = numbers("a", "b")
MIXED = Input(
    "frame",
    (Column("n", "INT64", "int64"), Column("t", "BYTES", "object"), Column("f", "BOOL", "bool")),
)


def tensor(data: Any, shape: list[int], name: str = "input-0", datatype: str = "FP64") -> Tensor:
    return Tensor(name, shape, datatype, data)


def refusal(tensors: list[Tensor], schema: Input = AB) -> tuple[str, str]:
    with pytest.raises(RequestRejected) as refused:
        from_tensors(tensors, schema)
    cell = refused.value.cells[0]
    return cell.path, cell.message


def test_nested_and_flat_are_one() -> None:
    """Row-major data gives the same table nested and flat."""
    flat = from_tensors([tensor([1, 2, 3, 4.5], [2, 2])], AB).to_input()
    nested = from_tensors([tensor([[1, 2], [3, 4.5]], [2, 2])], AB).to_input()
    np.testing.assert_array_equal(flat, [[1, 2], [3, 4.5]])
    np.testing.assert_array_equal(nested, flat)


def test_columns_go_by_name() -> None:
    """Tensors of shape [rows] or [rows, 1] are matched to columns by name, in any order."""
    tensors = [tensor([2.0, 4.0], [2, 1], "b"), tensor([[1.0], [3.0]], [2], "a")]
    np.testing.assert_array_equal(from_tensors(tensors, AB).to_input(), [[1, 2], [3, 4]])


def test_types_fit_by_column() -> None:
    """Integers, text and booleans are each sent in a tensor of their own datatype."""
    table = from_tensors(
        [
            tensor([True], [1], "f", "BOOL"),
            tensor([7], [1], "n", "INT32"),
            tensor(["x"], [1], "t", "BYTES"),
        ],
        MIXED,
    )
    assert table.to_input().iloc[0].tolist() == [7, "x", True]


@pytest.mark.parametrize(
    ("tensors", "path", "expected"),
    [
        ([tensor([1, 2, 3], [2, 2])], "inputs[0].data", "expected 4 elements"),
        ([tensor([1, 2], [1, -2])], "inputs[0].shape[1]", "at least 0"),
        ([tensor([1, 2], [-1, 2])], "inputs[0].shape[0]", "at least 0"),
        ([tensor([1, 2], [2**62, 2])], "inputs[0].shape[0]", "at most 2^53"),
        ([tensor([1.0], [2**80], "a")], "inputs[0].shape[0]", "at most 2^53"),
        ([tensor([1, 2, 3], [1, 3])], "inputs[0].shape", "expected [rows, 2] (a, b)"),
        ([tensor([[1, 2], [3]], [2, 2])], "inputs[0].data", "unequal"),
        ([tensor([[1, 2], 3], [2, 2])], "inputs[0].data", "unequal"),
        ([tensor([[[[[[[[[1]]]]]]]]], [1, 2])], "inputs[0].data", "deeper"),
        ([tensor({"x": 1}, [1, 2])], "inputs[0].data", "got an object"),
        ([tensor([1, 2], [1, 2], datatype="FP65")], "inputs[0].datatype", "unknown"),
        ([tensor(["1", "2"], [1, 2], datatype="BYTES")], "inputs[0].datatype", "takes FP64, got BYTES"),
        ([tensor([True, False], [1, 2], datatype="BOOL")], "inputs[0].datatype", "takes FP64, got BOOL"),
        ([tensor([1, 300], [1, 2], datatype="UINT8")], "inputs[0].data", "outside UINT8"),
        ([tensor([1, 1.5], [1, 2], datatype="INT32")], "inputs[0].data", "INT32"),
        ([tensor([1, 1e300], [1, 2], datatype="FP32")], "inputs[0].data", "outside FP32"),
        ([tensor([1, 10**400], [1, 2], datatype="FP32")], "inputs[0].data", "outside FP32"),
        ([tensor([1, 10**400], [1, 2])], "inputs[0].data[0][1] (b)", "too large"),
        ([tensor(["x", 1], [1, 2])], "inputs[0].data[0][0] (a)", "got a string"),
        ([tensor([1], [1], "a"), tensor([1], [1], "a")], "inputs[1].name", "given twice"),
        ([tensor([1], [1], "a"), tensor([1], [1], "c")], "inputs[1].name", "no such column; expected a, b"),
        ([tensor([1], [1], "a")], "inputs.b", "missing"),
        ([tensor([1, 2], [1, 1, 2], "a")], "inputs[0].shape", "for one column"),
        ([tensor([1], [1], "a"), tensor([1, 2], [2], "b")], "inputs.a", "expected 2 values"),
        ([], "inputs.a", "missing"),
    ],
)
def test_a_bad_tensor_is_named(tensors: list[Tensor], path: str, expected: str) -> None:
    """A tensor that does not fit is refused with the wrong place, before a huge shape allocates memory."""
    got_path, message = refusal(tensors)
    assert got_path == path
    assert expected in message


def test_a_narrow_float_is_itself() -> None:
    """0.1 in an FP32 tensor is the float32 next to 0.1, not the float64."""
    data = from_tensors([tensor([0.1, 0.5], [1, 2], datatype="FP32")], AB).to_input()
    assert data[0, 0] == np.float64(np.float32(0.1))


def test_a_scalar_shape_is_no_column() -> None:
    """A tensor without dimensions is refused by its shape."""
    assert refusal([tensor([1], [], "a")])[0] == "inputs[0].shape"


def test_zero_rows_decode() -> None:
    """A tensor of shape [0, columns] is an empty table, which a prediction refuses later."""
    assert from_tensors([tensor([], [0, 2])], AB).rows == 0


def test_flatten_leaves_flat_lists_alone() -> None:
    """Flat data is returned without a copy."""
    data = [1, 2, 3]
    assert flatten(data, "x") is data


def test_answers_are_shaped() -> None:
    """An output of one value per row has shape [rows, 1], a wide one [rows, width], with row-major data."""
    flat = to_tensor(Output("predict", "BYTES", 1, True), np.array(["x", "y"]))
    assert flat == {"name": "predict", "datatype": "BYTES", "shape": [2, 1], "data": ["x", "y"]}
    wide = to_tensor(Output("p", "FP64", 2, False), np.asfortranarray([[1.0, 2.0], [3.0, 4.0]]))
    assert wide["shape"] == [2, 2]
    np.testing.assert_array_equal(wide["data"], [1, 2, 3, 4])


@given(st.lists(st.tuples(*[st.floats(allow_nan=False, allow_infinity=False)] * 2), min_size=1, max_size=20))
def test_a_matrix_survives_the_wire(rows: list[tuple[float, float]]) -> None:
    """A float64 matrix that is written by orjson and read by msgspec keeps every bit, as input and as output."""
    import msgspec
    import orjson

    matrix = np.array(rows, dtype=np.float64)
    sent = orjson.dumps(
        {"name": "input-0", "datatype": "FP64", "shape": list(matrix.shape), "data": matrix.reshape(-1)},
        option=orjson.OPT_SERIALIZE_NUMPY,
    )
    got = from_tensors([msgspec.json.decode(sent, type=Tensor)], AB).to_input()
    assert got.tobytes() == matrix.tobytes()
    back = orjson.dumps(to_tensor(Output("p", "FP64", 2, False), got), option=orjson.OPT_SERIALIZE_NUMPY)
    again = np.array(orjson.loads(back)["data"], dtype=np.float64)
    assert again.tobytes() == matrix.tobytes()


def raw_tensor(name: str, datatype: str, size: int, shape: list[int]) -> Tensor:
    return Tensor(name, shape, datatype, parameters={"binary_data_size": size})


def test_binary_tensors_follow_each_other() -> None:
    """The bytes after the JSON are given to the inputs in their order; others keep their JSON data."""
    floats, integers = np.array([0.1, -0.0]), np.array([7, 8], dtype="<i4")
    schema = Input("frame", (*AB.columns, Column("n", "INT64", "int64")))
    sent = [raw_tensor("n", "INT32", 8, [2]), tensor([1, 2], [2], "b"), raw_tensor("a", "FP64", 16, [2, 1])]
    frame = from_tensors(sent, schema, tail=memoryview(integers.tobytes() + floats.tobytes())).to_input()
    assert frame["a"].to_numpy().tobytes() == floats.tobytes()
    assert frame[["b", "n"]].to_numpy().tolist() == [[1, 7], [2, 8]]


def test_data_is_sent_once() -> None:
    """An input with data in the JSON and as bytes is refused, and so is one without any."""
    both = Tensor("a", [1, 2], "FP64", [1, 2], {"binary_data_size": 16})
    with pytest.raises(RequestRejected) as refused:
        from_tensors([both], AB, tail=memoryview(bytes(16)))
    (error,) = refused.value.cells
    assert error.message == "given in JSON and as binary data; send only one of them"
    path, message = refusal([Tensor("a", [1, 2], "FP64")])
    assert path == "inputs[0].data"
    assert message == "missing; send it here, or as bytes after the JSON with 'parameters.binary_data_size'"


def test_every_bad_tensor_is_listed_up_to_the_limit() -> None:
    """The errors of several tensors are in one response, at most as many as the rules allow."""
    wrong = [tensor([1], [1], name) for name in ("x", "y", "z")]
    with pytest.raises(RequestRejected) as refused:
        from_tensors(wrong, AB, Rules(most_errors=2))
    assert [cell.path for cell in refused.value.cells] == ["inputs[0].name", "inputs[1].name"]


def test_lenient_rules_ignore_unknown_and_repeated_tensors() -> None:
    """Unknown tensors are left out, and the first tensor of a name is read; its place is that of the errors."""
    rules = Rules(extra="ignore", duplicate="ignore")
    sent = [tensor([0], [1], "x"), tensor([1], [1], "a"), tensor([9], [1], "a"), tensor([2], [1], "b")]
    assert from_tensors(sent, AB, rules).to_input().tolist() == [[1, 2]]
    with pytest.raises(RequestRejected) as refused:
        from_tensors([*sent[:3], tensor(["?"], [1], "b")], AB, rules)
    assert refused.value.cells[0].path == "inputs[3].data[0] (b)"


@pytest.mark.parametrize("data", [[1, 2], [[1], [2]], []])
def test_a_column_has_one_value_per_row(data: list[Any]) -> None:
    """Data of shape [rows] and [rows, 1] are the column's values."""
    assert one_column(data, "x") == ([1, 2] if data else [])


@pytest.mark.parametrize("data", [[[1, 2]], [[[1]], [[2]]], [[]], 3, None, {"a": 1}, [[1], 2]])
def test_a_column_of_another_shape_is_refused(data: Any) -> None:
    """Data of another shape is refused, not read as more rows."""
    with pytest.raises(RequestRejected, match="x: (expected|rows of unequal)"):
        one_column(data, "x")


@pytest.mark.parametrize(
    ("output", "array", "expected"),
    [
        (Output("predict", "FP64", 1, True), np.array([[1.0], [2.0]]), [1.0, 2.0]),
        (Output("predict", "FP64", 1, False), np.array([[1.0], [2.0]]), [[1.0], [2.0]]),
        (Output("predict", "BYTES", 1, True), np.array(["x", "y"]), ["x", "y"]),
        (Output("predict", "BYTES", 2, False), np.array([["x", None]], dtype=object), [["x", None]]),
        (Output("p", "FP64", 2, False), np.asfortranarray([[1.0, 2.0], [3.0, 4.0]]), [[1.0, 2.0], [3.0, 4.0]]),
    ],
)
def test_rows_of_an_output_can_be_written(output: Output, array: Any, expected: list[Any]) -> None:
    """orjson can write an output's rows, whatever the dtype and memory order: scalars for a flat output."""
    import orjson

    assert orjson.loads(orjson.dumps(rows_json(output, array), option=orjson.OPT_SERIALIZE_NUMPY)) == expected


def test_the_metadata_has_the_tensors_to_send() -> None:
    """A model that was trained on an array has one matrix, another model one tensor for each column."""
    assert inputs(AB) == [{"name": "input-0", "datatype": "FP64", "shape": [-1, 2]}]
    assert [(each["name"], each["datatype"], each["shape"]) for each in inputs(MIXED)] == [
        ("n", "INT64", [-1, 1]), ("t", "BYTES", [-1, 1]), ("f", "BOOL", [-1, 1]),
    ]  # fmt: skip
    assert inputs(Input("matrix", ()))[0]["shape"] == [-1, 0]
