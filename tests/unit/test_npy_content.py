"""Arrays of small npy files equal what numpy reads, whatever their header says."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.tree import DecisionTreeClassifier

from tableside.runtimes import npy_content
from tableside.runtimes.object_equality import are_equal


def written(array: Any, allow_pickle: bool = False) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=allow_pickle)
    return buffer.getvalue()


def some_arrays() -> list[Any]:
    features, classes = load_iris(return_X_y=True)
    tree = DecisionTreeClassifier().fit(features, classes).tree_.__getstate__()
    boosting = HistGradientBoostingClassifier(max_iter=1).fit(features, classes)
    return [
        tree["nodes"], tree["values"], boosting._predictors[0][0].nodes, features, classes, features.T,
        features[:, ::2],
        np.float32(2.5), np.array(7), np.array([], dtype=np.int8), np.zeros((0, 3)), np.zeros((3, 0)), np.array([True]),
        np.array(["a", "bcd"]), np.array([b"a"]), np.array([""]), np.arange(4, dtype=">i4"), np.array([1 + 2j]),
        np.asfortranarray(np.arange(24.0).reshape(2, 3, 4)), np.array(["2020-01-01"], dtype="M8[D]"),
        np.zeros(2, dtype=[("a", "<f8", (2,)), ("b", "<i4")]),
        np.zeros(2, dtype=[(f"field {at}", "<f8") for at in range(200)]),
    ]  # fmt: skip


def test_every_kind_of_array_is_read_as_numpy_reads_it() -> None:
    """With its dtype, shape, order in memory, and every bit."""
    for array in some_arrays():
        content = written(array)
        expected, found = np.load(io.BytesIO(content)), npy_content.array(content)
        assert are_equal(found, expected), array


def test_a_header_is_not_compiled_for_each_array(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of one dtype and of many shapes share what was read of the dtype."""
    npy_content.array(written(np.zeros(1)))
    monkeypatch.setattr(npy_content.ast, "literal_eval", None)
    monkeypatch.setattr(npy_content.np, "load", None)
    for rows in range(5):
        assert npy_content.array(written(np.zeros((rows, 2)))).shape == (rows, 2)


def test_other_versions_of_the_format_are_left_to_numpy() -> None:
    """Version 2 has a longer length of the header."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.arange(3.0), version=(2, 0))
    assert npy_content.array(buffer.getvalue()).tolist() == [0, 1, 2]


HEADER = "{'descr': '<f8', 'fortran_order': False, 'shape': (2,), }"


def forged(header: str, data: bytes = bytes(16)) -> bytes:
    text = header.encode("latin-1")
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


def test_a_forged_header_that_is_whole_is_read() -> None:
    """The other cases differ from this one in the part that they name."""
    assert npy_content.array(forged(HEADER)).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("header", "data"),
    [
        (HEADER, bytes(15)),  # cut off
        (HEADER, bytes(8)),
        (HEADER.replace("(2,)", "(2, 99999999999)"), bytes(16)),
        (HEADER.replace("(2,)", "(99999999999999999999999,)"), bytes(16)),
        (HEADER.replace("(2,)", "(2 2,)"), bytes(16)),
        (HEADER.replace("'<f8'", "'|O'"), bytes(16)),
        (HEADER.replace("'<f8'", "[('a', '|O')]"), bytes(16)),
        (HEADER.replace("'<f8'", "'nonsense'"), bytes(16)),
        (HEADER.replace("'<f8'", "__import__('os')"), bytes(16)),
        (HEADER.replace("False", "None"), bytes(16)),
        ("", bytes(16)),
    ],
)
def test_damaged_and_forged_content_is_refused(header: str, data: bytes) -> None:
    """As numpy refuses it: nothing is evaluated, and no array is larger than its content."""
    with pytest.raises((ValueError, SyntaxError, TypeError)):
        npy_content.array(forged(header, data))


@pytest.mark.parametrize("cut", [0, 5, 9, 60])
def test_a_file_that_ends_in_its_header_is_refused(cut: int) -> None:
    """Wherever it ends."""
    with pytest.raises((ValueError, EOFError)):
        npy_content.array(forged(HEADER)[:cut])


def test_pickled_objects_are_refused() -> None:
    """An array of objects is a pickle, which nobody reads."""
    with pytest.raises(ValueError, match="Object arrays cannot be loaded"):
        npy_content.array(written(np.array([{}], dtype=object), allow_pickle=True))
