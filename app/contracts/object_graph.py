"""Visits the objects inside an estimator: steps, members of ensembles, fitted attributes, whatever holds them.

This file also runs in model processes, as tableside.contracts.conversion does: Python 3.8, no import of Tableside.
"""

from __future__ import annotations

from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any, Callable, Iterator

import numpy as np

_LEAVES = (str, bytes, int, float, complex, bool, type(None), type, ModuleType, FunctionType, BuiltinFunctionType)
_CLOSED = ("numpy", "pandas", "polars", "pyarrow", "scipy")
"""Packages whose objects hold data and no estimators."""


def class_path(value: object) -> str:
    """The full name of an object's class, such as `xgboost.core.Booster`."""
    return f"{type(value).__module__}.{type(value).__qualname__}"


def package_of(value: object) -> str:
    """The name of the package that an object's class comes from, such as `xgboost`."""
    return type(value).__module__.partition(".")[0]


def objects(root: object) -> Iterator[object]:
    """Iterate over `root` and every object inside it that has attributes, each one once."""
    seen: dict[int, object] = {}  # keeps the objects, so that none of their ids is used again
    stack = [root]
    while stack:
        value = stack.pop()
        if id(value) in seen or isinstance(value, _LEAVES):
            continue
        seen[id(value)] = value
        if _is_open(value):
            yield value
        stack.extend(_inside(value))


def _is_open(value: object) -> bool:
    return hasattr(value, "__dict__") and package_of(value) not in _CLOSED


def contents(value: object) -> Iterator[object]:
    """Iterate over what a list, tuple, set, dict or array of objects holds, at any depth; nothing for other objects."""
    seen: dict[int, object] = {}
    stack = [value]
    while stack:
        holder = stack.pop()
        if id(holder) in seen or not isinstance(holder, (list, tuple, set, dict, np.ndarray)):
            continue
        seen[id(holder)] = holder
        found = [each for each in _inside(holder) if not isinstance(each, _LEAVES)]
        yield from found
        stack.extend(found)


def _inside(value: object) -> Iterator[object]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, (list, tuple, set)):
        yield from value
    elif isinstance(value, np.ndarray):
        if value.dtype == object:
            yield from value.ravel()
        return
    if _is_open(value):
        yield from vars(value).values()


def replace(root: object, swap: Callable[[object], object]) -> object:
    """Replace objects inside `root`, in place, and return the new root.

    swap: returns what to put in the place of an object, or the object itself. It is called once for each object.
    """
    return _Replacement(swap).visit(root)


class _Replacement:
    def __init__(self, swap: Callable[[object], object]) -> None:
        self._swap = swap
        self._seen: dict[int, tuple[object, object]] = {}

    def visit(self, value: Any) -> Any:
        if isinstance(value, _LEAVES):
            return value
        if id(value) in self._seen:
            return self._seen[id(value)][1]
        swapped = self._swap(value)
        self._seen[id(value)] = (value, swapped)
        if swapped is not value:
            return swapped
        if isinstance(value, tuple):
            found = self._tuple(value)
            self._seen[id(value)] = (value, found)
            return found
        self._contents(value)
        return value

    def _tuple(self, value: tuple[Any, ...]) -> Any:
        parts = [self.visit(part) for part in value]
        if all(new is old for new, old in zip(parts, value)):
            return value
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)

    def _contents(self, value: Any) -> None:
        if isinstance(value, dict):
            self._mapping(value)
        elif isinstance(value, list):
            value[:] = [self.visit(part) for part in value]
        elif isinstance(value, np.ndarray) and value.dtype == object:
            for place in np.ndindex(value.shape):
                value[place] = self.visit(value[place])
        if _is_open(value):
            self._mapping(vars(value))

    def _mapping(self, mapping: dict[Any, Any]) -> None:
        for key, old in list(mapping.items()):
            new = self.visit(old)
            if new is not old:
                mapping[key] = new
