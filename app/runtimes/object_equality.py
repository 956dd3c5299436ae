"""Compares two fitted objects part by part, to the bit."""

from __future__ import annotations

from collections.abc import Iterator
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

import numpy as np

_BY_IDENTITY = (type, FunctionType, BuiltinFunctionType, ModuleType, type(None), bool, np.ufunc)
_BY_VALUE = (str, bytes, bytearray, int, complex, slice, np.dtype)
Pair = tuple[Any, Any]


class _Different(Exception):
    """Two parts differ."""


def are_equal(one: object, other: object) -> bool:
    """Whether two objects have the same types, structure and values, floats and arrays in every bit.

    Objects of classes that are not known here are compared by what they give to pickle.
    """
    seen: dict[tuple[int, int], Pair] = {}  # keeps the parts, so that none of their ids is used again
    rest: list[Pair] = [(one, other)]
    try:
        while rest:
            pair = rest.pop()
            place = id(pair[0]), id(pair[1])
            if pair[0] is not pair[1] and place not in seen:
                seen[place] = pair
                rest.extend(_parts(*pair))
    except _Different:
        return False
    return True


def _require(equal: bool) -> None:
    if not equal:
        raise _Different


def _parts(one: Any, other: Any) -> Iterator[Pair]:
    """The pairs that must be equal too. Raises _Different."""
    kind = type(one)
    _require(kind is type(other))
    if issubclass(kind, _BY_IDENTITY):
        raise _Different
    if kind is float:
        _require(one.hex() == other.hex())
    elif issubclass(kind, (np.ndarray, np.generic)):
        yield from _array_parts(one, other)
    elif kind is dict:
        _require(len(one) == len(other))
        yield from zip(one, other, strict=True)
        yield from zip(one.values(), other.values(), strict=True)
    elif kind in (list, tuple):
        _require(len(one) == len(other))
        yield from zip(one, other, strict=True)
    elif kind in (set, frozenset) or kind in _BY_VALUE or issubclass(kind, np.dtype):
        _require(one == other)
    elif kind is np.random.RandomState:  # what it gives to pickle has a seed that its state does not depend on
        yield one.get_state(legacy=False), other.get_state(legacy=False)
    else:
        yield from _reduced_parts(one, other)


def _array_parts(one: Any, other: Any) -> Iterator[Pair]:
    _require(one.dtype == other.dtype and one.shape == other.shape)
    _require(all(one.flags[order] == other.flags[order] for order in ("C_CONTIGUOUS", "F_CONTIGUOUS")))
    if one.dtype.hasobject:
        yield from zip(one.ravel().tolist(), other.ravel().tolist(), strict=True)
    elif one.dtype.names:  # each field by itself: the bytes between fields have no meaning
        yield from ((one[name], other[name]) for name in one.dtype.names)
    else:
        _require(one.tobytes() == other.tobytes())


def _reduced_parts(one: Any, other: Any) -> Iterator[Pair]:
    was, now = one.__reduce_ex__(4), other.__reduce_ex__(4)
    if isinstance(was, str):  # the name of a global object, of which there is one
        raise _Different
    for old, new in zip(was, now, strict=True):
        is_iterator = hasattr(old, "__next__")
        yield (list(old), list(new)) if is_iterator else (old, new)
