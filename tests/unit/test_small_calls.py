"""Calls for few rows: the header is encoded once for each kind of call, and the table arrives as it was."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tableside.contracts import conversion
from tableside.contracts.schema import Column, Input
from tableside.contracts.table import Table
from tableside.model_process import connection, small_calls
from tableside.model_process.child import wire
from tableside.model_process.child.loaded_versions import Loaded
from tableside.model_process.remote_runtime import RemoteRuntime
from tableside.model_process.small_calls import SmallCalls
from tests.unit.test_wire import ARRAYS, same

pytestmark = pytest.mark.no_greenlets

ONE_COLUMN = {name: array for name, array in ARRAYS.items() if array.ndim == 1 and array.dtype.kind != "c"}
LONG = {name for name, array in ONE_COLUMN.items() if len(array) > small_calls.MAX_ROWS}


def table_of(*arrays: Any) -> Table:
    columns = tuple(Column(f"c{at}", "FP64", str(array.dtype)) for at, array in enumerate(arrays))
    named = {column.name: array for column, array in zip(columns, arrays, strict=True)}
    return Table(Input("frame", columns), len(arrays[0]), named)


def matrix_of(matrix: Any) -> Table:
    columns = tuple(Column(f"c{at}", "FP64", "float64") for at in range(matrix.shape[1]))
    return Table(Input("frame", columns), len(matrix), None, matrix)


def opened(content: bytes, schema: Input) -> tuple[dict[str, Any], Any]:
    """Return the header of a message and the table that a model process reads from it."""
    found = wire.whole(content, connection.read_header)
    assert found is not None
    loaded = Loaded(None, {"form": "frame", "columns": [{"name": column.name} for column in schema.columns]})
    return found.header, loaded.table(found.header, found.payload)


@pytest.mark.parametrize("name", ONE_COLUMN)
def test_columns_arrive_as_they_were(name: str) -> None:
    """Each array arrives to the bit beside others, from the first call of its kind and from later ones."""
    array = ONE_COLUMN[name]
    words = np.array(["ja"] * len(array), dtype=object)
    table, calls = table_of(words, array, array[::-1], words), SmallCalls("k")
    for _ in range(2):
        content = calls.message("predict", table)
        assert (content is None) == (name in LONG)
        if content is not None:
            assert table.arrays is not None
            header, got = opened(content, table.schema)
            assert (header["rows"], header["method"], header["key"]) == (len(array), "predict", "k")
            assert all(same(got.arrays[name], each) for name, each in table.arrays.items())


@pytest.mark.parametrize(
    "matrix", [ARRAYS["matrix"], np.float32([[1, -0.0]]), np.array([[1, 2**60]]), ARRAYS["no rows"]]
)
def test_a_matrix_arrives_as_it_was(matrix: Any) -> None:
    """It is a matrix there too, in memory that the estimator may write into."""
    content = SmallCalls("k").message("predict", matrix_of(matrix))
    assert content is not None
    _, got = opened(content, matrix_of(matrix).schema)
    assert got.arrays is None
    assert same(got.matrix, matrix)
    assert got.matrix.flags.writeable


@pytest.mark.parametrize("name", ["fortran", "strided"])
def test_another_order_in_memory_is_kept(name: str) -> None:
    """BLAS adds in another order there, so such a matrix goes the general way, which keeps it."""
    table = matrix_of(ARRAYS[name])
    assert SmallCalls("k").message("predict", table) is None
    message = b"".join(map(bytes, RemoteRuntime(None, "k", ()).request("predict", table)))  # type: ignore[arg-type]
    _, got = opened(message, table.schema)
    assert got.matrix.flags.f_contiguous == ARRAYS[name].flags.f_contiguous
    assert same(got.matrix, ARRAYS[name])


def test_large_tables_go_the_general_way() -> None:
    """Many rows, or wide ones, are sent without a copy."""
    calls = SmallCalls("k")
    assert calls.message("predict", matrix_of(np.zeros((small_calls.MAX_ROWS + 1, 1)))) is None
    assert calls.message("predict", matrix_of(np.zeros((1, 5000)))) is None
    assert calls.message("predict", matrix_of(np.zeros((1, 4000)))) is not None


def test_other_cells_are_refused() -> None:
    """Nothing is pickled here either."""
    with pytest.raises(wire.WireError, match="cannot be sent to a model process"):
        SmallCalls("k").message("predict", table_of(np.array([object()], dtype=object)))


CELL = st.one_of(st.none(), st.text(), st.just(float("nan")), st.booleans(), st.integers())


@given(st.lists(st.tuples(CELL, st.floats(), CELL), min_size=1, max_size=5))
def test_any_cells_of_several_columns_arrive_as_they_were(rows: list[tuple[Any, float, Any]]) -> None:
    """Cells of text, whole numbers, booleans, None and NaN keep their types and values, and their columns."""
    columns: list[Any] = [np.empty(len(rows), dtype=object), np.empty(len(rows)), np.empty(len(rows), dtype=object)]
    for at, row in enumerate(rows):
        for column, cell in zip(columns, row, strict=True):
            column[at] = cell
    content = SmallCalls("k").message("predict", table_of(*columns))
    assert content is not None
    _, got = opened(content, table_of(*columns).schema)
    assert all(same(got.arrays[f"c{at}"], column) for at, column in enumerate(columns))


def test_a_header_has_no_values_and_is_the_same_for_the_next_call() -> None:
    """Both sides remember it, so it must be the same bytes for other values, and must not quote any."""
    calls, found = SmallCalls("k"), []
    for word, number in (("first secret", 1.5), ("another, longer secret", 2.5)):
        content = calls.message("predict", table_of(np.array([word, None], dtype=object), np.array([number, np.nan])))
        assert content is not None
        header_bytes, _ = wire.sizes(content)
        found.append(content[wire.PREFIX.size : wire.PREFIX.size + header_bytes])
    assert found[0] == found[1]
    assert b"secret" not in found[0]


def test_calls_of_different_kinds_do_not_share_a_header() -> None:
    """Methods, rows, dtypes and widths are told apart; what is remembered stays bounded."""
    calls = SmallCalls("k")
    tables = [matrix_of(np.zeros(shape, dtype)) for shape in ((1, 2), (2, 2), (1, 4)) for dtype in ("f8", "f4", "i8")]
    for _ in range(2):
        for table in tables:
            for method in ("predict", "transform"):
                content = calls.message(method, table)
                assert content is not None
                header, got = opened(content, table.schema)
                assert header["method"] == method
                assert same(got.matrix, table.matrix)
    for rows in range(small_calls.MAX_ROWS + 1):
        for dtype in ("f8", "f4", "i8"):
            calls.message("predict", matrix_of(np.zeros((rows, 1), dtype)))
    assert len(calls._known) <= small_calls.MAX_LAYOUTS


def test_only_headers_without_values_are_remembered() -> None:
    """A reader parses the header of a call once. It keeps none with cells, none of an error, and no long one."""
    read: list[bytes] = []

    def parse(text: bytes) -> dict[str, Any]:
        read.append(text)
        return wire.read_header(text)

    reader = wire.HeaderReader(parse)
    run, long = b'{"op":"run","rows":1}', b'{"op":"run","key":"%s"}' % (b"k" * wire.MAX_REMEMBERED_BYTES)
    assert reader(run) is reader(run)
    others = [long, b'{"raised":"E","text":"v"}', b'{"array":["cells",[1],["v"]]}', b'{"op":"load"}']
    for text in others:
        assert reader(text) == reader(text)
    assert read == [run, *[text for text in others for _ in range(2)]]
    for number in range(3 * wire.MAX_REMEMBERED):
        reader(b'{"op":"run","rows":%d}' % number)
    assert len(reader._known) <= wire.MAX_REMEMBERED


@pytest.mark.parametrize("labels", [("a", "b"), (0, 1), (2, 0), ("", "a"), ("a", 1), ("x", "x ")])
def test_a_frame_has_the_names_that_pandas_makes(labels: tuple[str | int, ...]) -> None:
    """The names are made once; every DataFrame has the same ones, in an object that no other shares."""
    import pandas as pd

    columns = [Column(str(label), "FP64", "float64", integer_name=isinstance(label, int)) for label in labels]
    frames = [conversion.to_frame(columns, None, np.ones((1, 2))) for _ in range(2)]
    expected = pd.DataFrame(np.ones((1, 2)), columns=list(labels))
    for frame in frames:
        pd.testing.assert_frame_equal(frame, expected, check_column_type="exact")
        assert [type(name) for name in frame.columns] == [type(name) for name in expected.columns]
        assert frame.columns.name is None
        frame.columns.name = "changed by the estimator"
