"""Builds an estimator from records (`tableside.runtimes.skops_records`), as skops builds it from its file.

Each function does what the node class of skops of that name does. A type is imported only after skops' own audit has
passed it in this process, or if it is in the list of trusted types (`tableside.runtimes.skops_audit`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from importlib import import_module
from typing import Any

import numpy as np

from tableside.contracts.array_type import Array
from tableside.runtimes.skops_records import Records, TypeKey


def build(records: Records, trusted: Collection[str]) -> Any:
    """Return the object of the records.

    trusted: the types that skops may build besides those that it trusts itself; the audit of `records.types` is the
    caller's. Arrays of the object are those of `records.arrays`, not copies.
    """
    builder = _Builder(records, trusted)
    try:
        return builder.value(records.root)
    finally:
        builder.forget()


def _imported(key: TypeKey) -> Any:
    _, module, name = key
    return getattr(import_module(module), name)


class _Builder:
    def __init__(self, records: Records, trusted: Collection[str]) -> None:
        self._arrays: Sequence[Array] = records.arrays
        self._kept = records.kept
        self._trusted = trusted
        imported = [(key[0], _imported(key)) for key in records.types]

        def used_as(*loaders: str) -> dict[int, Any]:
            """The types that were audited for this use, by index: a function that is only named is never called."""
            return {at: found for at, (loader, found) in enumerate(imported) if loader in loaders}

        self._lists, self._tuples, self._dicts = (
            used_as("ListNode", "SetNode"),
            used_as("TupleNode"),
            used_as("DictNode"),
        )
        self._classes, self._reducible = used_as("ObjectNode"), used_as("TreeNode", "LossNode")
        self._scalars, self._named = used_as("NdArrayNode"), used_as("TypeNode", "FunctionNode")
        self._slots: dict[int, Any] = {}
        self._by_kind: dict[str, Callable[..., Any]] = {
            "let": self._let,
            "get": self._slots.__getitem__,
            "json": json.loads,
            "type": self._named.__getitem__,
            "array": self._arrays.__getitem__,
            "scalar": lambda kind, at: self._scalars[kind](self._arrays[at]),
            "list": lambda kind, items: self._lists[kind](self._all(items)),
            "tuple": self._tuple,
            "dict": self._dict,
            "object": self._object,
            "objects": self._objects,
            "reduced": self._reduced,
            "kept": self._load_kept,
        }

    def value(self, record: Any) -> Any:
        """The value of a record. A dict is used as it is, with its values built in place."""
        kind = record.__class__
        if kind is list:
            return self._by_kind[record[0]](*record[1:])
        if kind is dict:
            for key, value in record.items():
                if value.__class__ is list or value.__class__ is dict:
                    record[key] = self.value(value)
        return record

    def forget(self) -> None:
        """Break the circle of references, which would keep the arrays until the next garbage collection."""
        self._by_kind.clear()

    def _all(self, records: list[Any]) -> list[Any]:
        return [self.value(record) for record in records]

    def _let(self, slot: int, record: Any) -> Any:
        self._slots[slot] = built = self.value(record)
        return built

    def _tuple(self, kind: int, items: list[Any]) -> Any:
        cls, content = self._tuples[kind], tuple(self._all(items))
        return cls(*content) if cls.__bases__ == (tuple,) and hasattr(cls, "_fields") else content

    def _dict(self, kind: int, key_types: list[Any], keys: list[str], values: list[Any]) -> Any:
        content = self._dicts[kind]()
        for key_type, key, value in zip(self._all(key_types), keys, values, strict=False):
            content[key_type(key)] = self.value(value)
        return content

    def _object(self, kind: int, state: Any) -> Any:
        cls = self._classes[kind]
        instance = cls.__new__(cls)
        attributes = self.value(state)
        if attributes is not None:
            if hasattr(instance, "__setstate__"):
                instance.__setstate__(attributes)
            else:
                vars(instance).update(attributes)
        return instance

    def _reduced(self, kind: int, arguments: Any, state: Any) -> Any:
        instance, attributes = self._reducible[kind](*self.value(arguments)), self.value(state)
        if attributes:
            instance.__setstate__(attributes)
        return instance

    def _objects(self, shape: Any, items: list[Any]) -> Array:
        values, sides = self._all(items), self.value(shape)
        if len(sides) != 1:
            return np.array(values, dtype=object)
        found = np.empty(len(values), dtype=object)
        for at, value in enumerate(values):
            found[at] = value
        return found

    def _load_kept(self, at: int) -> Any:
        import skops.io

        return skops.io.loads(self._kept[at], trusted=sorted(self._trusted))
