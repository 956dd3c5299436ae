"""V2 tensors in and out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tableside.contract.schema import Column, Input, Output
from tableside.decoding.tensors import Tensor, flatten, from_tensors, to_tensor
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
    """Row-major data means the same nested and flat."""
    flat = from_tensors([tensor([1, 2, 3, 4.5], [2, 2])], AB).to_input()
    nested = from_tensors([tensor([[1, 2], [3, 4.5]], [2, 2])], AB).to_input()
    np.testing.assert_array_equal(flat, [[1, 2], [3, 4.5]])
    np.testing.assert_array_equal(nested, flat)


def test_columns_go_by_name() -> None:
    """One tensor a column, in any order, [N] or [N, 1]."""
    tensors = [tensor([2.0, 4.0], [2, 1], "b"), tensor([[1.0], [3.0]], [2], "a")]
    np.testing.assert_array_equal(from_tensors(tensors, AB).to_input(), [[1, 2], [3, 4]])


def test_types_fit_by_column() -> None:
    """Integers, text and booleans each in their own tensor."""
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
    ("tensors", "path", "said"),
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
def test_a_bad_tensor_is_named(tensors: list[Tensor], path: str, said: str) -> None:
    """A tensor that does not fit is refused at the place that is wrong; a huge shape allocates nothing."""
    got_path, message = refusal(tensors)
    assert got_path == path
    assert said in message


def test_a_narrow_float_is_itself() -> None:
    """An FP32 tensor's 0.1 is float32's 0.1, not the double's."""
    data = from_tensors([tensor([0.1, 0.5], [1, 2], datatype="FP32")], AB).to_input()
    assert data[0, 0] == np.float64(np.float32(0.1))


def test_a_scalar_shape_is_no_column() -> None:
    """A tensor without dimensions is refused."""
    assert refusal([tensor([1], [], "a")])[0] == "inputs[0].shape"


def test_zero_rows_decode() -> None:
    """Shape [0, columns] is an empty table (which a prediction then refuses)."""
    assert from_tensors([tensor([], [0, 2])], AB).rows == 0


def test_flatten_leaves_flat_lists_alone() -> None:
    """Flat data is not copied."""
    data = [1, 2, 3]
    assert flatten(data, "x") is data


def test_answers_are_shaped() -> None:
    """An answer of one value a row has shape [rows, 1]; a wide one [rows, width], row-major."""
    flat = to_tensor(Output("predict", "BYTES", 1, True), np.array(["x", "y"]))
    assert flat == {"name": "predict", "datatype": "BYTES", "shape": [2, 1], "data": ["x", "y"]}
    wide = to_tensor(Output("p", "FP64", 2, False), np.asfortranarray([[1.0, 2.0], [3.0, 4.0]]))
    assert wide["shape"] == [2, 2]
    np.testing.assert_array_equal(wide["data"], [1, 2, 3, 4])


@given(st.lists(st.tuples(*[st.floats(allow_nan=False, allow_infinity=False)] * 2), min_size=1, max_size=20))
def test_a_matrix_survives_the_wire(rows: list[tuple[float, float]]) -> None:
    """A float64 matrix written by orjson and read by msgspec comes back bit for bit, in and out."""
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
