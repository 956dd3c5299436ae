"""Messages between workers and model processes: every array arrives as it was, and nothing else is carried."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tableside.contracts import artifact_size, conversion
from tableside.model_process import connection
from tableside.model_process.child import wire
from tableside.model_process.known_environments import CHILD

pytestmark = pytest.mark.no_greenlets

ARRAYS: dict[str, Any] = {
    **{dtype: np.array([1, 0, 3], dtype) for dtype in ("i1", "i2", "i4", "i8", "u1", "u8", "f2", "f4", "f8", "c16")},
    "bool": np.array([True, False]),
    "big-endian": np.array([1.5, -2.0], ">f8"),
    "not finite": np.array([np.nan, np.inf, -np.inf, -0.0]),
    "matrix": np.arange(12.0).reshape(3, 4),
    "fortran": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
    "strided": np.arange(12.0).reshape(3, 4)[:, 1:3],
    "no rows": np.empty((0, 3)),
    "no columns": np.empty((3, 0)),
    "dates": np.array(["2024-01-01T00:00:01.5", "NaT"], "M8[ns]"),
    "durations": np.array([1, 2], "m8[s]"),
    "fixed text": np.array(["a", "été", ""]),
    "words": np.array(["Graz", "São Paulo", "", "\ud800", "大麦\x00"], dtype=object),
    "no words": np.empty(0, dtype=object),
    "missing": np.array(["a", None, np.nan], dtype=object),
    "flags": np.array([True, None, False, np.nan], dtype=object),
    "mixed": np.array([1, "1", 1.0, True, 2**70, -0.0], dtype=object),
    "many words": np.array(["ab", None, "", np.nan, "大麦", "\ud800"] * 40, dtype=object),
    "many numbers": np.array(["ab", 1.5, None] * 40, dtype=object),
    "many missing": np.array([None, np.nan] * 40, dtype=object),
    "wide words": np.array([["a", "b"], ["c", None]], dtype=object),
}


def sent(*arrays: Any) -> list[Any]:
    """Return the arrays as the other side reads them."""
    writer = wire.Writer()
    specs = [writer.add(array) for array in arrays]
    content = b"".join(map(bytes, writer.message({"arrays": specs})))
    header_bytes, payload_bytes = wire.sizes(content[: wire.PREFIX.size])
    assert len(content) == wire.PREFIX.size + header_bytes + payload_bytes
    body = content[wire.PREFIX.size :]
    payload = bytearray(body[header_bytes:])
    return [wire.read_array(spec, payload) for spec in wire.read_header(body[:header_bytes])["arrays"]]


def same(one: Any, other: Any) -> bool:
    """Whether two arrays have the same dtype, shape, order in memory and bits; NaN cells of objects count as equal."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    if one.dtype != object:
        return bool(one.tobytes() == other.tobytes())
    pairs = list(zip(one.ravel().tolist(), other.ravel().tolist(), strict=True))
    return all(type(a) is type(b) and (repr(a) == repr(b)) for a, b in pairs)


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_arrives_as_it_was(name: str) -> None:
    """dtype, shape, every bit and the order in memory stay; the array that arrives is writable."""
    array = ARRAYS[name]
    (got,) = sent(array)
    assert same(got, array)
    assert got.flags.writeable
    if array.ndim == 2 and array.size and array.dtype != object:
        assert got.flags.f_contiguous == array.flags.f_contiguous


def test_arrays_of_one_message_do_not_mix() -> None:
    """All arrays of a message arrive, also large ones, whose message is sent in several buffers."""
    arrays = [*ARRAYS.values(), np.arange(100_000), np.array(["x" * 50] * 5000, dtype=object)]
    assert all(same(got, array) for got, array in zip(sent(*arrays), arrays, strict=True))


CELLS = st.lists(st.one_of(st.none(), st.text(), st.floats(), st.booleans(), st.integers()), max_size=200)


@given(CELLS)
def test_any_cells_arrive_as_they_were(cells: list[Any]) -> None:
    """Cells of text, numbers, booleans, None and NaN keep their types and values, however many there are."""
    array = np.empty(len(cells), dtype=object)
    array[:] = cells
    assert same(sent(array)[0], array)


@pytest.mark.parametrize("name", ARRAYS)
def test_an_answer_of_one_array_is_the_json_that_the_encoder_writes(name: str) -> None:
    """The commonest answer has a quicker encoder, and the worker a quicker decoder; cells go through neither."""
    writer = wire.Writer()
    header = {"array": writer.add(ARRAYS[name])}
    content = b"".join(map(bytes, writer.message(header)))
    for read in (None, connection.read_header):
        found = wire.whole(content, read)
        assert found is not None
        assert same(wire.read_array(found.header["array"], found.payload), ARRAYS[name])
    text = content[wire.PREFIX.size : wire.PREFIX.size + wire.sizes(content)[0]]
    assert json.loads(text)["array"][:2] == header["array"][:2]


@pytest.mark.parametrize("text", ['{"raised":"E","text":"\\ud800"}', '{"raised":"E","text":"NaN"}', '{"x":NaN}'])
def test_a_worker_reads_any_json_that_a_process_writes(text: str) -> None:
    """Lone surrogates and NaN, which only the standard library reads, too."""
    assert repr(connection.read_header(text.encode())) == repr(json.loads(text))


@pytest.mark.parametrize("array", [np.array([object()], dtype=object), np.zeros(1, dtype=[("a", "f8")])])
def test_other_arrays_are_refused(array: Any) -> None:
    """Cells that are no values, and records, are an error: nothing is pickled."""
    with pytest.raises(wire.WireError, match="cannot be sent to a model process"):
        wire.Writer().add(array)


@pytest.mark.parametrize("text", [b"[]", b"{", b"\xff", b"{} {}"])
def test_a_bad_header_is_refused(text: bytes) -> None:
    """A header is a JSON object."""
    with pytest.raises(wire.WireError):
        wire.read_header(text)


def test_another_format_is_refused() -> None:
    """Bytes that begin with anything but the magic number are no message."""
    with pytest.raises(wire.WireError):
        wire.sizes(wire.PREFIX.pack(b"HTTP", 1, 1))


FILES = [*CHILD.parent.glob("*.py"), Path(conversion.__file__), Path(artifact_size.__file__)]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_the_program_runs_in_other_environments(file: Path) -> None:
    """Its files are Python 3.8, import nothing of Tableside when they run, and nothing that loads pickle."""
    tree = ast.parse(file.read_text(), feature_version=(3, 8))
    conditions = [each for each in ast.walk(tree) if isinstance(each, ast.If)]
    checks = [each for each in conditions if ast.unparse(each.test).startswith("TYPE_CHECKING")]
    guarded = {node for each in checks for body in each.body for node in ast.walk(body)}
    imported = [
        name
        for node in ast.walk(tree)
        if node not in guarded
        for name in (
            [alias.name for alias in node.names] if isinstance(node, ast.Import)
            else [str(node.module)] if isinstance(node, ast.ImportFrom) else []
        )
    ]  # fmt: skip
    assert not [name for name in imported if name.split(".")[0] in ("tableside", "pickle", "msgspec", "orjson")]
